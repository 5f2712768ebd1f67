//! `dcz compress --calibration`: options, progress, and the frontier in words, numbers and lines.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;

use dcz_compress::accuracy::images::{Alignment, Loader};
use dcz_compress::calibrate::{self, Calibrated, Images, Options, Target};
use dcz_compress::chart::{Chart, Series};
use dcz_compress::encode::CompressOptions;
use dcz_compress::error::Error;
use dcz_compress::import::FloatNetwork;
use dcz_format::writer::Encoded;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::retrain::RetrainArguments;
use super::target::{check_target, write_text};

/// Options of calibration.
#[derive(Debug, clap::Args)]
pub struct CalibrationArguments {
    /// Calibrates with the images of this folder (no labels needed, a few hundred are good): steps, rounding and biases
    /// follow from what the layers read and what an error does to the output. Needs --preprocess
    #[arg(long, value_name = "DIR", conflicts_with = "retrain")]
    calibration: Option<PathBuf>,
    /// How far to go: size=1.9MB, ratio=12 (float32 size over file size), cosine=0.995 (mean, to the float outputs, on
    /// images held out), tpr-drop=0.002 (at a false positive rate of 1e-3; images named NAME_0001) [default: the size
    /// without calibration]
    #[arg(long, value_name = "KIND=VALUE", requires = "calibration")]
    target: Option<Target>,
    /// Most images that go through every layer
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        requires = "calibration"
    )]
    calibration_images: usize,
    /// Writes the files that the search tried, cosine against size, as SVG
    #[arg(long, value_name = "FILE.svg", requires = "calibration")]
    frontier: Option<PathBuf>,
}

/// What can be known to be wrong before the work.
pub fn check(arguments: &CalibrationArguments, shared: &RetrainArguments) -> Result<(), Error> {
    let images = arguments.calibration.is_some() || shared.asked();
    if !images && (shared.landmarks.is_some() || shared.strict) {
        return Err(Error::Usage(
            "--landmarks and --strict belong to --calibration or --retrain".into(),
        ));
    }
    if arguments.calibration_images == 0 {
        return Err(Error::Usage(
            "--calibration-images must be at least 1".into(),
        ));
    }
    arguments.frontier.as_deref().map_or(Ok(()), check_target)
}

/// Calibrates when asked to; the file and the frontier as JSON.
pub fn run(
    arguments: &CalibrationArguments,
    shared: &RetrainArguments,
    float: &mut FloatNetwork,
    options: &CompressOptions,
) -> Result<Option<(Encoded, Value)>, Error> {
    let Some(folder) = &arguments.calibration else {
        return Ok(None);
    };
    options.description.apply(&mut float.network)?;
    let record = float.network.preprocess.clone().ok_or_else(|| {
        Error::Usage(
            "--calibration needs to know how an image becomes the input; use --preprocess (ready files: compress/presets)".into(),
        )
    })?;
    let alignment = shared.landmarks.as_deref();
    let alignment = alignment.map(|p| Alignment::load(p, &record)).transpose()?;
    let images = Images::open(folder, Loader { record, alignment }, shared.strict)?;
    for why in images.skipped.iter().take(5) {
        eprintln!("skipped: {why}");
    }
    if !images.skipped.is_empty() {
        eprintln!(
            "{} images skipped, {} used",
            images.skipped.len(),
            images.len()
        );
    }
    let mut settings = Options::default();
    settings.target = arguments.target;
    settings.images = arguments.calibration_images;
    let mut bar = Bar::new();
    let result = calibrate::compress(
        float.clone(),
        &images,
        &settings,
        options,
        &mut |what, done, all| bar.show(what, done, all),
    );
    bar.finish();
    let result = result?;
    for note in &result.notes {
        eprintln!("note: {note}");
    }
    eprint!("{}", table(&result));
    if let Some(path) = &arguments.frontier {
        write_text(path, &chart(&result).svg())?;
    }
    let line = json(&result, &images);
    Ok(Some((result.encoded, line)))
}

/// One bar per part of the work, with the time that is left of it; plain lines where stderr is no terminal.
struct Bar {
    bar: ProgressBar,
    what: String,
    started: std::time::Instant,
}

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("{msg:<24} {bar:40} {pos}/{len} {elapsed}, {eta} left")
        {
            bar.set_style(style);
        }
        Bar {
            bar,
            what: String::new(),
            started: std::time::Instant::now(),
        }
    }

    fn show(&mut self, what: &str, done: usize, all: usize) {
        if what != self.what {
            self.what = what.to_string();
            self.bar.reset();
            self.bar.set_message(self.what.clone());
            if !std::io::stderr().is_terminal() {
                eprintln!(
                    "{what}: {all} steps, {:.0} s so far",
                    self.started.elapsed().as_secs_f64()
                );
            }
        }
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn table(result: &Calibrated) -> String {
    let mut text = format!(
        "target {}\n      bytes    cosine     least  price of a bit  seconds\n",
        result.target
    );
    for (index, p) in result.points.iter().enumerate() {
        let drop = p
            .tpr_drop
            .map(|d| format!(", tpr-drop {d:.4}"))
            .unwrap_or_default();
        let taken = match (index == result.taken, p.meets) {
            (true, _) => "taken",
            (_, true) => "meets the target",
            _ => "misses it",
        };
        let _ = writeln!(
            text,
            "{:>11}  {:.6}  {:.6}       {:.3e}  {:7.0}  {taken}{drop}",
            super::grouped(p.bytes),
            p.cosine[0],
            p.cosine[1],
            p.lambda,
            p.seconds
        );
    }
    text
}

fn json(result: &Calibrated, images: &Images) -> Value {
    let points: Vec<Value> = result
        .points
        .iter()
        .map(|p| {
            json!({
                "bytes": p.bytes, "cosine": p.cosine[0], "least_cosine": p.cosine[1], "tpr_drop": p.tpr_drop,
                "lambda": p.lambda, "seconds": p.seconds, "meets": p.meets,
            })
        })
        .collect();
    json!({
        "target": result.target.to_string(), "taken": result.taken, "frontier": points,
        "images": images.len(), "held_out": images.held_out, "skipped": images.skipped,
    })
}

fn chart(result: &Calibrated) -> Chart {
    let mut points: Vec<(f64, f64)> = result
        .points
        .iter()
        .map(|p| (p.bytes as f64 / 1e6, p.cosine[0]))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let taken = &result.points[result.taken.min(result.points.len().saturating_sub(1))];
    Chart {
        title: format!("Files tried for {}", result.target),
        x: "file, MB".into(),
        y: "mean cosine to the float network, held-out images".into(),
        log_x: false,
        series: vec![
            Series {
                name: "tried".into(),
                points,
            },
            Series {
                name: "taken".into(),
                points: vec![(taken.bytes as f64 / 1e6, taken.cosine[0])],
            },
        ],
    }
}
