//! The options of `dcz compress` that retrain a network, and what is shown meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dcz_compress::accuracy::images::{Alignment, Loader};
use dcz_compress::chart::{Chart, Series};
use dcz_compress::encode::{CompressOptions, Ready};
use dcz_compress::error::Error;
use dcz_compress::import::FloatNetwork;
use dcz_compress::retrain::{Folder, retrain};
use dcz_train::augment::Augment;
use dcz_train::{Budget, Control, Event, Losses, Options, Record, Source};

use super::target::write_text;

/// Images cut by landmarks have so much more on every side, of their size, for augmentations that turn and shift.
const MARGIN_SHARE: u32 = 8;

/// Options of retraining.
#[derive(Debug, clap::Args)]
pub struct RetrainArguments {
    /// Retrains with the original network as the teacher on the images of this folder (labels, for the loss ce: one folder
    /// per class)
    #[arg(long, value_name = "DIR")]
    retrain: Option<PathBuf>,
    /// What student and teacher are compared by: ce, l2, cosine, kl, relational, each with =WEIGHT [default: cosine=1]
    #[arg(long, value_name = "NAME[=WEIGHT],..", requires = "retrain")]
    loss: Option<Losses>,
    /// Temperature of the losses kl and relational [default: 1 and 0.1]
    #[arg(long, value_name = "T", requires = "retrain", value_parser = positive)]
    temperature: Option<f64>,
    /// How long to train: 90s, 60m, 2h [default: 60m]
    #[arg(long, value_name = "TIME", requires = "retrain", conflicts_with = "steps", value_parser = seconds)]
    time: Option<f64>,
    /// How many steps to train instead: the same seed and number of threads then give the same file
    #[arg(long, value_name = "N", requires = "retrain")]
    steps: Option<u64>,
    /// Images per step
    #[arg(long, value_name = "N", requires = "retrain", default_value_t = 16)]
    batch: usize,
    /// Largest step of the optimiser, in steps of each layer's grid
    #[arg(long, value_name = "R", requires = "retrain", default_value_t = 0.01, value_parser = positive)]
    learning_rate: f64,
    /// How pictures are changed before teacher and student see them: none, or flip, geometry, colour, blur, noise, erase, blend
    /// (of two pictures), paste, each with =AMOUNT; what is not named is as by default
    #[arg(long, value_name = "NAME=AMOUNT,..", requires = "retrain")]
    augment: Option<Augment>,
    /// So many changed versions of each image and no more: the teacher answers once for each [default: always new ones]
    #[arg(long, value_name = "N", requires = "retrain", value_parser = clap::value_parser!(u64).range(1..))]
    variants: Option<u64>,
    /// Images that are only measured, best of other persons [default: one in 16 of --retrain, at most 64]
    #[arg(long, value_name = "DIR", requires = "retrain")]
    held_out: Option<PathBuf>,
    /// Bytes the file is to have: steps and weights are pressed until it fits (1500000, 1500kB, 1.5MB)
    #[arg(long, value_name = "SIZE", requires = "retrain", value_parser = bytes)]
    retrain_size: Option<u64>,
    /// The student begins as this file, made from the same model (for example with --calibration), instead of as the model
    #[arg(long, value_name = "FILE.dcz", requires = "retrain")]
    start: Option<PathBuf>,
    /// Seed of everything random in training
    #[arg(long, value_name = "N", requires = "retrain", default_value_t = 0)]
    seed: u64,
    /// Folder of checkpoint and loss curve (curve.tsv, curve.svg); the same command goes on from there
    #[arg(long, value_name = "DIR", requires = "retrain")]
    checkpoint: Option<PathBuf>,
    /// Seconds between checkpoints
    #[arg(
        long,
        value_name = "S",
        requires = "checkpoint",
        default_value_t = 60.0
    )]
    checkpoint_seconds: f64,
    /// For --calibration and --retrain: five points per image (file name, then x and y of eyes, nose, mouth corners); images are
    /// cut by them first, to ArcFace's template for inputs of 112 x 112, to dlib's for 150 x 150
    #[arg(long, value_name = "FILE")]
    pub landmarks: Option<PathBuf>,
    /// For --calibration and --retrain: an image that cannot be used is an error instead of being skipped and counted
    #[arg(long)]
    pub strict: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|v: &f64| v.is_finite() && *v > 0.0)
        .ok_or_else(|| format!("'{text}': expected a positive number"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
        .unwrap_or((text, 60.0));
    positive(number)
        .map(|number| number * unit)
        .map_err(|_| format!("'{text}': expected a time such as 90s, 60m or 2h"))
}

fn bytes(text: &str) -> Result<u64, String> {
    let units = [("MB", 1e6), ("kB", 1e3), ("B", 1.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
        .unwrap_or((text, 1.0));
    positive(number.trim())
        .map(|number| (number * unit) as u64)
        .map_err(|_| format!("'{text}': expected a size such as 1500000, 1500kB or 1.5MB"))
}

impl RetrainArguments {
    /// Whether there is training.
    pub fn asked(&self) -> bool {
        self.retrain.is_some()
    }

    /// Retrains when asked to; the new weights, none without `--retrain`.
    pub fn run(
        &self,
        float: &mut FloatNetwork,
        compress: &CompressOptions,
    ) -> Result<BTreeMap<String, Ready>, Error> {
        let Some(folder) = &self.retrain else {
            return Ok(BTreeMap::new());
        };
        compress.description.apply(&mut float.network)?;
        let record = float.network.preprocess.clone().ok_or_else(|| {
            Error::Usage("--retrain needs --preprocess: how an image becomes the input".into())
        })?;
        let alignment = self
            .landmarks
            .as_deref()
            .map(|path| Alignment::load(path, &record))
            .transpose()?
            .map(|alignment| alignment.with_margin(record.size[0] / MARGIN_SHARE));
        let source = Folder::open(
            folder,
            self.held_out.as_deref(),
            Loader { record, alignment },
            self.strict,
        )?;
        if let Some(first) = source.skipped.first() {
            eprintln!(
                "note: {} images skipped, the first: {first}",
                source.skipped.len()
            );
        }
        let options = self.options();
        let stop = Arc::new(AtomicBool::new(false));
        // The first Ctrl-C asks to stop, the second ends the process as ever.
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_default(signal, stop.clone())
                .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
                .map_err(|e| Error::Io(format!("signals: {e}")))?;
        }
        let mut shown = Shown::new(self.checkpoint.as_deref(), &source);
        let (ready, outcome) = retrain(
            float,
            compress,
            self.start.as_deref(),
            &source,
            options,
            &mut |event| {
                shown.show(event);
                if stop.load(Ordering::Relaxed) {
                    Control::Stop
                } else {
                    Control::Continue
                }
            },
        )?;
        shown.bar.finish_and_clear();
        shown.curve(&outcome.curve)?;
        eprintln!(
            "note: retrained with {} steps of {} images in {:.0} s ({:.1} images a second); seed {}",
            outcome.steps,
            self.batch,
            outcome.seconds,
            outcome.steps as f64 * self.batch as f64 / outcome.seconds.max(1e-9),
            self.seed
        );
        if let Some(size) = self
            .retrain_size
            .filter(|&size| outcome.bytes > 1.02 * size as f64)
        {
            eprintln!(
                "note: the size {} was not reached, the nearest was about {}; more time, coarser --step or --prune may help",
                super::grouped(size),
                super::grouped(outcome.bytes as u64)
            );
        }
        Ok(ready)
    }

    fn options(&self) -> Options {
        let mut losses = self.loss.clone().unwrap_or_default();
        if let Some(temperature) = self.temperature {
            losses.temperature = temperature;
            losses.relational_temperature = temperature;
        }
        Options {
            losses,
            budget: match self.steps {
                Some(steps) => Budget::Steps(steps),
                None => Budget::Seconds(self.time.unwrap_or(3600.0)),
            },
            batch: self.batch,
            learning_rate: self.learning_rate,
            seed: self.seed,
            augment: self.augment.unwrap_or_default(),
            variants: self.variants,
            size: self.retrain_size,
            checkpoint: self.checkpoint.clone(),
            checkpoint_seconds: self.checkpoint_seconds,
            ..Options::default()
        }
    }
}

/// Progress on the terminal, curve in the checkpoint's folder.
struct Shown<'a> {
    bar: indicatif::ProgressBar,
    folder: Option<&'a Path>,
}

impl Shown<'_> {
    fn new<'a>(folder: Option<&'a Path>, source: &dyn Source) -> Shown<'a> {
        let bar = super::progress_bar();
        bar.set_length(1000);
        let aside = source.held_out();
        let images = source.len() - aside;
        match aside {
            0 => eprintln!("note: retraining on {images} images"),
            _ => eprintln!("note: retraining on {images} images, measuring on {aside}"),
        }
        eprintln!(
            "{:>7} {:>10} {:>9} {:>10} {:>7} {:>9} {:>8}",
            "step", "loss", "held out", "bytes", "zeros", "images/s", "left"
        );
        Shown { bar, folder }
    }

    fn show(&mut self, event: &Event) {
        self.bar.set_position((event.progress * 1000.0) as u64);
        self.bar.set_message(format!("{:.4}", event.loss));
        if !event.recorded {
            return;
        }
        if let Some(last) = event.curve.last() {
            let line = format!(
                "{:>7} {:>10.5} {:>9.5} {:>10} {:>7.4} {:>9.1} {:>7.0}s",
                last.step,
                last.loss,
                last.held_out,
                super::grouped(last.bytes as u64),
                last.zeros,
                event.rate,
                event.eta
            );
            self.bar.suspend(|| eprintln!("{line}"));
        }
        // The curve is a by-product: training does not end because it cannot be written.
        if let Err(error) = self.curve(event.curve) {
            self.bar.suspend(|| eprintln!("note: {error}"));
        }
    }

    fn curve(&self, curve: &[Record]) -> Result<(), Error> {
        let Some(folder) = self.folder else {
            return Ok(());
        };
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
        let mut text = String::from("step\tloss\theld_out_cosine\tbytes\tzeros\n");
        for r in curve {
            text.push_str(&format!(
                "{}\t{:.6}\t{:.6}\t{:.0}\t{:.5}\n",
                r.step, r.loss, r.held_out, r.bytes, r.zeros
            ));
        }
        write_text(&folder.join("curve.tsv"), &text)?;
        let points = |value: fn(&Record) -> f64| -> Vec<(f64, f64)> {
            curve.iter().map(|r| (r.step as f64, value(r))).collect()
        };
        let chart = Chart {
            title: "Retraining".into(),
            x: "step".into(),
            y: "loss, 1 - cosine to the teacher".into(),
            log_x: false,
            series: vec![
                Series {
                    name: "loss".into(),
                    points: points(|r| r.loss),
                },
                Series {
                    name: "1 - cosine, held-out images".into(),
                    points: points(|r| 1.0 - r.held_out),
                },
            ],
        };
        write_text(&folder.join("curve.svg"), &chart.svg())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        assert_eq!(seconds("90s"), Ok(90.0));
        assert_eq!(seconds("1.5h"), Ok(5400.0));
        assert_eq!(seconds("60m"), Ok(3600.0));
        assert_eq!(bytes("1.5MB"), Ok(1_500_000));
        assert_eq!(bytes("1500000"), Ok(1_500_000));
        for bad in ["", "x", "-1m", "0s", "m"] {
            assert!(seconds(bad).is_err() && bytes(bad).is_err(), "{bad}");
        }
    }
}
