//! `dcz compare`: a compressed file beside the float network it was made from.

use std::path::{Path, PathBuf};

use dcz::Model;
use dcz::oracle::Array;
use dcz_compress::compare::{Difference, compare};
use dcz_compress::encode::generated_inputs;
use dcz_compress::error::Error;
use dcz_compress::import::{Dynamic, ImportOptions, import};
use dcz_compress::{npy, onnx};
use dcz_format::graph::{Dim, Network};
use serde_json::json;

/// Compares a .dcz file with the ONNX model it was made from, layer by layer, both computed in float64.
///
/// Without --input and --images the input of the self-test is used. Calibrated files scale channels between layers; `fitted` is the
/// least cosine once every channel is scaled to fit (of outputs, which are never scaled, the plain one), and decides which layer is bad.
/// With a bad layer the exit code is 9.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The ONNX model
    model: PathBuf,
    /// The file
    file: PathBuf,
    /// Images to run, put through the file's preprocessing
    #[arg(long, value_name = "DIR", conflicts_with = "input")]
    images: Option<PathBuf>,
    /// Input array (float32); NAME=X.npy when there are several inputs. Repeatable
    #[arg(long, value_name = "[NAME=]X.npy")]
    input: Vec<String>,
    /// Which network of the file
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// A layer is bad when its fitted cosine is below this
    #[arg(long, value_name = "COSINE", default_value_t = 0.99)]
    bad_below: f64,
    /// At most this many images
    #[arg(long, value_name = "N", default_value_t = 16)]
    limit: usize,
    /// Prints one line of JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let opened = Model::open(&arguments.file)?;
    let net = opened.find(arguments.network.as_deref())?;
    let container = opened.container();
    let Some(network) = container.networks().get(net) else {
        return Err(Error::Usage("no such network".into()));
    };
    let folder = arguments.model.parent().map(Path::to_path_buf);
    let float = import(
        &onnx::load(&arguments.model)?,
        &ImportOptions {
            name: network.name.clone(),
            dynamic: dynamic_of(network),
            folder,
        },
    )?;
    let (sets, names) = match &arguments.images {
        Some(folder) => super::images::read_folder(folder, network, arguments.limit)?,
        None if arguments.input.is_empty() => {
            let test = network.self_test.as_ref().ok_or_else(|| {
                Error::Usage("the file has no self-test: give --input or --images".into())
            })?;
            (
                vec![generated_inputs(network, test)?],
                vec!["generated".to_string()],
            )
        }
        None => (
            vec![arrays(network, &arguments.input)?],
            arguments.input.clone(),
        ),
    };
    let bar = super::progress_bar();
    bar.set_message("comparing");
    let compared = compare(&float, container, net, &sets, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let differences = compared?;
    let bad = differences
        .iter()
        .find(|d| d.least_fitted.is_nan() || d.least_fitted < arguments.bad_below);
    let text = table(&differences, bad, arguments.bad_below);
    let verdict = match bad {
        None => Ok(()),
        Some(d) => Err(Error::Differs(format!(
            "layer '{}' has a cosine of {:.5}, below {}",
            d.node, d.least_fitted, arguments.bad_below
        ))),
    };
    if !arguments.json {
        super::print(&text)?;
        return verdict;
    }
    eprint!("{text}");
    let layers: Vec<_> = differences
        .iter()
        .map(|d| json!({ "node": d.node, "tensor": d.tensor, "has_weights": d.has_weights, "cosine": d.cosine, "least_cosine": d.least_cosine, "least_fitted": d.least_fitted, "max_error": d.max_error, "relative_error": d.relative_error() }))
        .collect();
    let line = json!({ "inputs": names, "layers": layers, "bad_below": arguments.bad_below, "first_bad": bad.map(|d| d.node.clone()) });
    super::print(&format!("{line}\n"))?;
    verdict
}

fn table(differences: &[Difference], bad: Option<&Difference>, limit: f64) -> String {
    let width = differences
        .iter()
        .map(|d| d.node.chars().count())
        .max()
        .unwrap_or(5)
        .max(5);
    let mut text = format!(
        "{:<width$}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}\n",
        "layer", "cosine", "least", "fitted", "max error", "relative"
    );
    for d in differences {
        let mark = if d.has_weights { "" } else { "  (output)" };
        text.push_str(&format!(
            "{:<width$}  {:>10.7}  {:>10.7}  {:>10.7}  {:>10.3e}  {:>10.3e}{mark}\n",
            d.node,
            d.cosine,
            d.least_cosine,
            d.least_fitted,
            d.max_error,
            d.relative_error()
        ));
    }
    text.push_str(&match bad {
        Some(d) => format!(
            "first bad layer: '{}', cosine {:.7} below {limit}\n",
            d.node, d.least_fitted
        ),
        None => format!("no layer's cosine is below {limit}\n"),
    });
    text
}

/// The symbolic dimensions of a file, as the importer takes them.
fn dynamic_of(network: &Network) -> Vec<Dynamic> {
    let mut list = Vec::new();
    for tensor in network
        .inputs
        .iter()
        .filter_map(|id| network.tensors.get(id.0 as usize))
    {
        for (axis, dim) in tensor.dims.iter().enumerate() {
            if let Dim::Symbol(id) = dim
                && let Some(symbol) = network.symbols.get(id.0 as usize)
            {
                list.push(Dynamic {
                    name: tensor.name.clone(),
                    axis,
                    range: Some((symbol.min, symbol.max, symbol.multiple)),
                });
            }
        }
    }
    list
}

fn arrays(network: &Network, arguments: &[String]) -> Result<Vec<Array>, Error> {
    let mut given: Vec<Option<Array>> = vec![None; network.inputs.len()];
    let names: Vec<&str> = network
        .inputs
        .iter()
        .map(|id| {
            network
                .tensors
                .get(id.0 as usize)
                .map_or("", |t| t.name.as_str())
        })
        .collect();
    for argument in arguments {
        let named = names.iter().position(|name| {
            argument
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('='))
        });
        let (index, path) = match named {
            Some(index) => (index, &argument[names[index].len() + 1..]),
            None if names.len() == 1 => (0, argument.as_str()),
            None => {
                return Err(Error::Usage(format!(
                    "--input '{argument}': expected NAME=X.npy; the inputs are {}",
                    names.join(", ")
                )));
            }
        };
        let (dims, values) = npy::read(Path::new(path))?;
        if given[index]
            .replace(Array {
                dims,
                values: values.into_iter().map(f64::from).collect(),
            })
            .is_some()
        {
            return Err(Error::Usage(format!(
                "input '{}' is given twice",
                names[index]
            )));
        }
    }
    if let Some(missing) = given.iter().position(Option::is_none) {
        return Err(Error::Usage(format!("no --input for '{}'", names[missing])));
    }
    let arrays: Vec<Array> = given.into_iter().flatten().collect();
    let dims: Vec<Vec<usize>> = arrays.iter().map(|a| a.dims.clone()).collect();
    dcz::shape::check_inputs(network, &dims).map_err(|e| Error::Input(e.to_string()))?;
    Ok(arrays)
}
