//! `dcz evaluate`: verification figures of a network on pairs of faces.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use dcz::Model;
use dcz_compress::accuracy::bootstrap::{Difference, differences};
use dcz_compress::accuracy::embed::{Embeddings, embed, output_of};
use dcz_compress::accuracy::figures::{Accuracy, Measured, Rate, agreement};
use dcz_compress::accuracy::images::{Alignment, Loader, list};
use dcz_compress::accuracy::pairs::Pairs;
use dcz_compress::chart::{Chart, Series};
use dcz_compress::encode::float_model;
use dcz_compress::error::Error;
use dcz_compress::import::{ImportOptions, import};
use dcz_compress::onnx;
use dcz_compress::preprocess::Description;
use dcz_format::graph::Metric;
use serde_json::json;

use super::target::{check_target, write_text};

/// Measures how well a network tells people apart, on pairs in the format of LFW.
///
/// Prints accuracy (ten-fold when the list has ten folds, else at the best threshold), true positive rates at false
/// positive rates of 1e-2, 1e-3 and 1e-4 on the listed pairs and over all pairs of the images, and the contest's z. With
/// --against also the differences to another network, with 95 % intervals from a bootstrap over people.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The network, as .dcz or ONNX
    model: PathBuf,
    /// The list of pairs: `name i j` or `name i other j` per line, after a line of folds and pairs per fold
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// The images, called NAME_0001 and so on
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Five points per image (file name, then x and y of left eye, right eye, nose, mouth corners): images are cut by them,
    /// to ArcFace's template for inputs of 112 x 112, to dlib's for 150 x 150
    #[arg(long, value_name = "FILE")]
    landmarks: Option<PathBuf>,
    /// Another network to compare with, usually the float one, as .dcz or ONNX
    #[arg(long, value_name = "FILE|ONNX")]
    against: Option<PathBuf>,
    /// How an image becomes the input of an ONNX model (TOML, as for `dcz compress`) [default: as the .dcz file says]
    #[arg(long, value_name = "FILE.toml")]
    preprocess: Option<PathBuf>,
    /// Which network of a .dcz file with several
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// How embeddings are compared [default: as the file says, else cosine]
    #[arg(long, value_name = "cosine|euclidean", value_parser = metric)]
    metric: Option<Metric>,
    /// An image that cannot be used is an error, not skipped
    #[arg(long)]
    strict: bool,
    /// Seed of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Writes the ROC curve over all pairs as SVG
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Prints one line of JSON on stdout
    #[arg(long)]
    json: bool,
}

fn metric(text: &str) -> Result<Metric, String> {
    match text {
        "cosine" => Ok(Metric::Cosine),
        "euclidean" => Ok(Metric::Euclidean),
        _ => Err("cosine or euclidean is needed".into()),
    }
}

/// A network that can be run on images.
pub(super) struct Runnable {
    label: String,
    /// Size of the file.
    bytes: u64,
    pub(super) model: Model,
    pub(super) network: Option<String>,
    metric: Metric,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    if let Some(path) = &arguments.svg {
        check_target(path)?;
    }
    let pairs = Pairs::load(&arguments.pairs)?;
    let paths = list(&arguments.images)?;
    let description = arguments
        .preprocess
        .as_deref()
        .map(Description::load)
        .transpose()?;
    let network = arguments.network.as_deref();
    let mut runnable = Vec::new();
    for path in [Some(&arguments.model), arguments.against.as_ref()]
        .into_iter()
        .flatten()
    {
        runnable.push(open(path, network, description.as_ref())?);
    }
    let loaders = loaders(&runnable, arguments.landmarks.as_deref())?;

    let mut embedded = Vec::new();
    for (one, loader) in runnable.iter().zip(&loaders) {
        let bar = super::progress_bar();
        bar.set_message("embedding");
        bar.set_length(paths.len() as u64);
        let result = embed(
            &one.model,
            one.network.as_deref(),
            &paths,
            loader,
            arguments.strict,
            &|done, _| bar.set_position(done as u64),
        );
        bar.finish_and_clear();
        let embeddings = result?;
        warn_skipped(&embeddings, paths.len())?;
        embedded.push(embeddings);
    }
    let agreement = match embedded.as_mut_slice() {
        [a, b] => {
            keep_common(a, b);
            agreement(a, b)
        }
        _ => None,
    };
    let metric = arguments
        .metric
        .or_else(|| runnable.first().map(|r| r.metric));
    let metric = metric.unwrap_or(Metric::Cosine);
    let measured: Vec<Measured> = embedded
        .iter()
        .map(|e| Measured::new(e, &pairs, metric))
        .collect::<Result<_, _>>()?;
    let compared = match measured.as_slice() {
        [a, b] => differences(a, b, arguments.seed),
        _ => Vec::new(),
    };
    let mut text = String::new();
    for (one, m) in runnable.iter().zip(&measured) {
        describe(&mut text, &one.label, m, metric);
    }
    if let Some((mean, least, image)) = &agreement {
        let _ = writeln!(
            text,
            "cosine between the two networks' embeddings: mean {mean:.5}, least {least:.5} ({image})"
        );
    }
    describe_differences(&mut text, &compared);
    if let Some(path) = &arguments.svg {
        write_text(path, &roc_chart(&runnable, &measured).svg())?;
    }
    if !arguments.json {
        return super::print(&text);
    }
    eprint!("{text}");
    let networks: Vec<_> = runnable
        .iter()
        .zip(&measured)
        .zip(&embedded)
        .map(|((one, m), e)| {
            let mut value = m.json();
            value["model"] = json!(one.label);
            value["bytes"] = json!(one.bytes);
            value["skipped"] = json!(e.skipped);
            value
        })
        .collect();
    let line = json!({
        "metric": if metric == Metric::Cosine { "cosine" } else { "euclidean" },
        "networks": networks,
        "agreement": agreement.map(|(mean, least, image)| json!({ "mean_cosine": mean, "least_cosine": least, "least_image": image })),
        "differences": compared.iter().map(Difference::json).collect::<Vec<_>>(),
    });
    super::print(&format!("{line}\n"))
}

/// Opens a .dcz file, or imports an ONNX model as it is.
pub(super) fn open(
    path: &Path,
    network: Option<&str>,
    description: Option<&Description>,
) -> Result<Runnable, Error> {
    let label = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let (model, network) = if super::is_dcz(path)? {
        (Model::open(path)?, network.map(str::to_string))
    } else {
        let folder = path.parent().map(Path::to_path_buf);
        let float = import(
            &onnx::load(path)?,
            &ImportOptions {
                folder,
                ..ImportOptions::default()
            },
        )?;
        let description = description.cloned().unwrap_or_default();
        (float_model(float, &description)?, None)
    };
    let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    let metric = output_of(model.network(network.as_deref())?)?.1;
    Ok(Runnable {
        label,
        bytes: bytes.len(),
        model,
        network,
        metric,
    })
}

/// How images become inputs, per network; one that does not say takes what the other says, since float networks are
/// compared with the files made from them.
pub(super) fn loaders(all: &[Runnable], landmarks: Option<&Path>) -> Result<Vec<Loader>, Error> {
    let mut records = Vec::new();
    for one in all {
        records.push(
            one.model
                .network(one.network.as_deref())?
                .preprocess
                .clone(),
        );
    }
    let known = records.iter().flatten().next().cloned().ok_or_else(|| {
        Error::Usage(
            "no network says how an image becomes the input; use --preprocess (ready files: compress/presets)".into(),
        )
    })?;
    records
        .into_iter()
        .map(|record| {
            let record = record.unwrap_or_else(|| known.clone());
            let alignment = landmarks
                .map(|path| Alignment::load(path, &record))
                .transpose()?;
            Ok(Loader { record, alignment })
        })
        .collect()
}

/// Says what was skipped; an error when nothing is left.
pub(super) fn warn_skipped(embeddings: &Embeddings, all: usize) -> Result<(), Error> {
    let skipped = &embeddings.skipped;
    if let Some(first) = skipped.first() {
        let text = format!(
            "{} of {all} images cannot be used, the first: {first}",
            skipped.len()
        );
        if embeddings.rows.is_empty() {
            return Err(Error::Input(text));
        }
        eprintln!("note: {text}");
    }
    Ok(())
}

/// Keeps the images that both networks have embedded.
fn keep_common(a: &mut Embeddings, b: &mut Embeddings) {
    if a.names == b.names {
        return;
    }
    let filter = |one: &mut Embeddings, other: &[String]| {
        let keep: Vec<bool> = one.names.iter().map(|n| other.contains(n)).collect();
        let mut at = keep.iter();
        one.rows.retain(|_| *at.next().unwrap_or(&false));
        let mut at = keep.iter();
        one.names.retain(|_| *at.next().unwrap_or(&false));
    };
    let names = a.names.clone();
    filter(a, &b.names);
    filter(b, &names);
}

fn describe(text: &mut String, label: &str, m: &Measured, metric: Metric) {
    let by = if metric == Metric::Cosine {
        "cosine"
    } else {
        "distance"
    };
    let _ = writeln!(
        text,
        "{label}: {} images of {} people, compared by {by}",
        m.people.iter().sum::<u32>(),
        m.people.len()
    );
    let missing = match m.missing {
        0 => String::new(),
        n => format!(" ({n} more listed without both images)"),
    };
    let _ = match m.accuracy() {
        Accuracy::Best {
            accuracy,
            threshold,
        } => writeln!(
            text,
            "  accuracy on {} listed pairs{missing}: {:.2} % at the best threshold, {threshold:.4}",
            m.listed.len(),
            100.0 * accuracy
        ),
        Accuracy::TenFold {
            accuracy,
            deviation,
        } => writeln!(
            text,
            "  accuracy on {} listed pairs{missing}: {:.2} % +- {:.2} over ten folds",
            m.listed.len(),
            100.0 * accuracy,
            100.0 * deviation
        ),
    };
    let _ = writeln!(
        text,
        "  TPR on the listed pairs: {}",
        rates(&m.listed_rates())
    );
    let _ = writeln!(
        text,
        "  TPR over all pairs ({} of one person, {} of different people): {}",
        m.same.len(),
        m.different.len(),
        rates(&m.rates())
    );
    let _ = match &m.contest {
        Ok(c) => writeln!(
            text,
            "  contest: z = {:.4} (A = {}), {} positives, {} negatives ({} of one person removed), rank {}, threshold {:.4}",
            c.z,
            c.a(),
            c.positives,
            c.negatives,
            c.removed,
            c.rank,
            c.threshold
        ),
        Err(why) => writeln!(text, "  contest: no z: {why}"),
    };
}

fn rates(rates: &[Rate]) -> String {
    if rates.is_empty() {
        return "no pair of either kind".into();
    }
    let list: Vec<String> = rates
        .iter()
        .map(|r| {
            let few = if r.resolved {
                ""
            } else {
                " (too few pairs of different people: their largest)"
            };
            format!("{:.2} % at FPR {:e}{few}", 100.0 * r.tpr, r.fpr)
        })
        .collect();
    list.join(", ")
}

fn describe_differences(text: &mut String, list: &[Difference]) {
    for d in list {
        let _ = writeln!(
            text,
            "difference in {}: {:+.2} points, 95 % interval {:+.2} to {:+.2}",
            d.what,
            100.0 * (d.values[0] - d.values[1]),
            100.0 * d.interval[0],
            100.0 * d.interval[1]
        );
    }
}

fn roc_chart(all: &[Runnable], measured: &[Measured]) -> Chart {
    Chart {
        title: "ROC over all pairs of the images".into(),
        x: "false positive rate".into(),
        y: "true positive rate".into(),
        log_x: true,
        series: all
            .iter()
            .zip(measured)
            .map(|(one, m)| Series {
                name: one.label.clone(),
                points: m.roc(),
            })
            .collect(),
    }
}
