//! `dcz compress`: ONNX to `.dcz`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dcz::{Model, Session, SessionOptions};
use dcz_compress::encode::{CompressOptions, Ready, Stage, compress_ready};
use dcz_compress::error::Error;
use dcz_compress::export;
use dcz_compress::html::Page;
use dcz_compress::import::{Dynamic, FloatNetwork, ImportOptions, import};
use dcz_compress::onnx;
use dcz_compress::preprocess::Description;
use dcz_compress::report;
use dcz_compress::settings::{AllSettings, IndexSetting, Prune, Quantize, Settings};
use dcz_format::writer::Encoded;
use serde_json::json;

use super::calibrated;
use super::report as folder;
use super::retrain::RetrainArguments;
use super::target::{Partial, check_target};

/// Compresses an ONNX model into a .dcz file and prints what that did to each layer.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The ONNX model (operator sets 7 to 21)
    model: PathBuf,
    /// The file to write; an existing regular file is replaced atomically
    #[arg(short, long, value_name = "OUT.dcz")]
    output: PathBuf,
    /// Which weights become zero: none, manual=T (magnitude below T), percentile=P (of each layer), sensitivity=S
    /// (magnitude below S standard deviations; the first layer is spared, the last linear one gets 2 S) [default: none]
    #[arg(long, value_name = "RULE")]
    prune: Option<Prune>,
    /// Prunes so many neighbouring output channels together, by their norm: 1, 2, 4 or 8. Costs accuracy at equal
    /// sparsity; the runtime computes such layers faster [default: 1]
    #[arg(long, value_name = "CHANNELS")]
    prune_block: Option<u8>,
    /// How weights become codes: none (float32), minmax, grid, codebook [default: grid; layers with at most 256
    /// distinct values are coded bit-exactly]
    #[arg(long, value_name = "KIND")]
    quantize: Option<Quantize>,
    /// Width of a code, 1 to 8
    #[arg(long, value_name = "N")]
    bits: Option<u8>,
    /// Step of the grid in standard deviations of the layer
    #[arg(long, value_name = "C")]
    step: Option<f32>,
    /// How zeros are carried: auto, plain (auto without classes), classes, mask, dense, gaps, gaps:BITS [default: auto]
    #[arg(long, value_name = "MODE")]
    index: Option<IndexSetting>,
    /// Settings of one layer, named as its ONNX node; keys prune, prune-block, quantize, bits,
    /// step, index. Repeatable
    #[arg(long, value_name = "NAME:KEY=VALUE")]
    layer: Vec<String>,
    /// Settings from a TOML file: general keys, and a table [layers.NAME] per layer
    #[arg(long, value_name = "FILE.toml")]
    settings: Option<PathBuf>,
    /// How an image becomes the input and what the outputs mean (TOML)
    #[arg(long, value_name = "FILE.toml")]
    preprocess: Option<PathBuf>,
    /// Takes weights from a folder of .npy files with a layers.json as `dcz export` writes it: what another program made of
    /// them
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    calibration: calibrated::CalibrationArguments,
    /// Keeps a dimension open. NAME is an input or a symbolic dimension of the model. Repeatable
    #[arg(long, value_name = "NAME=AXIS[:MIN..MAX[:MULTIPLE]]")]
    dynamic: Vec<Dynamic>,
    /// Name of the network within the file [default: the graph's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Writes report.html, one page with the table of layers and, from lines of JSON that `dcz evaluate`, `sensitivity` and
    /// `score` printed into files of this folder, accuracy against size, sensitivity and ROC
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    retraining: RetrainArguments,
    /// Prints one line of JSON on stdout and everything else on stderr
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    check_target(&arguments.output)?;
    calibrated::check(&arguments.calibration, &arguments.retraining)?;
    if let Some(folder) = &arguments.report {
        folder::prepare(folder)?;
    }
    let options = CompressOptions {
        settings: all_settings(arguments)?,
        description: arguments
            .preprocess
            .as_deref()
            .map_or_else(|| Ok(Description::default()), Description::load)?,
    };
    let model = onnx::load(&arguments.model)?;
    let folder = arguments.model.parent().map(Path::to_path_buf);
    let mut float = import(
        &model,
        &ImportOptions {
            name: arguments.name.clone().unwrap_or_default(),
            dynamic: arguments.dynamic.clone(),
            folder,
        },
    )?;
    drop(model);
    if let Some(folder) = &arguments.weights {
        export::import(&mut float, folder)?;
    }
    let file_name = arguments
        .model
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let source = &mut float.network.provenance.source;
    *source = if source.is_empty() {
        file_name
    } else {
        format!("{file_name} ({source})")
    };
    let notes = std::mem::take(&mut float.notes);
    for note in &notes {
        eprintln!("note: {note}");
    }

    let calibration = calibrated::run(
        &arguments.calibration,
        &arguments.retraining,
        &mut float,
        &options,
    )?;
    let (encoded, frontier) = match calibration {
        Some((encoded, frontier)) => (encoded, Some(frontier)),
        None => {
            let ready = arguments.retraining.run(&mut float, &options)?;
            (plain(float, &options, &ready)?, None)
        }
    };

    // Written beside the target, opened again and tested there: the target is only replaced by a file that works.
    let partial = Partial::beside(&arguments.output)?;
    let bytes = encoded.write_atomic(&partial.path)?;
    let float_bytes = encoded.networks().first().map_or(0, report::float_bytes);
    drop(encoded);
    let opened = Model::open(&partial.path)?;
    let mut session = Session::new(&opened, SessionOptions::default())?;
    let test = session.self_test()?;
    if !test.passed() {
        return Err(Error::SelfTest(format!(
            "self-test failed: output error {:.2e}, norm error {:.2e}, limit {:.0e}; nothing was written",
            test.output_error, test.norm_error, test.tolerance
        )));
    }
    partial.rename_to(&arguments.output)?;

    let Some(network) = opened.networks().first() else {
        return Err(Error::Malformed("no network".into()));
    };
    let ratio = float_bytes as f64 / bytes.max(1) as f64;
    let summary = format!(
        "{}: {} bytes, {:.2} % of {} bytes in float32 ({ratio:.1}x smaller, rate {:.2} %); self-test error {:.1e}\n",
        arguments.output.display(),
        super::grouped(bytes),
        100.0 / ratio,
        super::grouped(float_bytes),
        100.0 * (1.0 - 1.0 / ratio),
        test.output_error,
    );
    let text = format!("{}{summary}", report::table(network));
    let rows = report::rows(network);
    let compressed: Vec<_> = rows.iter().filter(|r| r.compressed).cloned().collect();
    let mut line = json!({
        "file": arguments.output.display().to_string(),
        "bytes": bytes,
        "float_bytes": float_bytes,
        "rate_percent": 100.0 * (1.0 - bytes as f64 / float_bytes.max(1) as f64),
        "network": network.name,
        "notes": notes,
        "self_test_error": test.output_error,
        "layers": rows.iter().map(report::json).collect::<Vec<_>>(),
        "total_compressed": report::json(&report::total("total of compressed", &compressed)),
        "total": report::json(&report::total("total", &rows)),
    });
    if let Some(frontier) = frontier {
        line["calibration"] = frontier;
    }
    if let Some(folder) = &arguments.report {
        let page = Page {
            network,
            file: &arguments
                .output
                .file_name()
                .unwrap_or_default()
                .to_string_lossy(),
            bytes,
            float_bytes,
            notes: &notes,
            run: &line,
            measured: &folder::measured(folder)?,
        };
        folder::write(folder, &page, &line)?;
    }
    if !arguments.json {
        return super::print(&text);
    }
    eprint!("{text}");
    super::print(&format!("{line}\n"))
}

/// Without images.
fn plain(
    float: FloatNetwork,
    options: &CompressOptions,
    ready: &BTreeMap<String, Ready>,
) -> Result<Encoded, Error> {
    let bar = super::progress_bar();
    let encoded = compress_ready(float, options, ready, &mut |stage, done, total| {
        bar.set_message(match stage {
            Stage::Quantise => "quantising",
            Stage::Encode => "encoding",
            Stage::SelfTest => "self-test",
        });
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    encoded
}

fn all_settings(arguments: &Arguments) -> Result<AllSettings, Error> {
    let mut all = arguments
        .settings
        .as_deref()
        .map_or_else(|| Ok(AllSettings::default()), AllSettings::load)?;
    let general = Settings {
        prune: arguments.prune,
        prune_block: arguments.prune_block,
        quantize: arguments.quantize,
        bits: arguments.bits,
        step: arguments.step,
        index: arguments.index,
    };
    general.check().map_err(Error::Usage)?;
    all.general = all.general.overridden_by(general);
    for argument in &arguments.layer {
        all.add(argument)?;
    }
    let pruned = |settings: &Settings| !matches!(settings.prune, None | Some(Prune::None));
    if all.general.prune_block.is_some_and(|block| block > 1)
        && !pruned(&all.general)
        && !all.layers.values().any(pruned)
    {
        return Err(Error::Usage(
            "--prune-block says how to prune, --prune how much; give both".into(),
        ));
    }
    if all.general.step.is_some() && all.general.quantize == Some(Quantize::Minmax) {
        return Err(Error::Usage("--step belongs to --quantize grid".into()));
    }
    Ok(all)
}
