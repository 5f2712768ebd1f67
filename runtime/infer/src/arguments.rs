//! The command line.

use crate::failure::Failure;
use clap::Parser;
use dcz::preprocess::Rect;
use dcz::{MemoryBudget, SessionOptions, Threads};
use dcz_face::{InputSize, LANDMARKS, Landmarks, Selection};
use std::path::PathBuf;

/// Runs a .dcz file on photos (`infer --model FILE PHOTO...`, `infer verify --model FILE A B`), or a network on images or
/// .npy tensors.
#[derive(Debug, Parser)]
#[command(
    name = "infer",
    version,
    override_usage = "infer [OPTIONS] --model <FILE> [IMAGE]...\n       infer verify [OPTIONS] --model <FILE> <IMAGE> <IMAGE>",
    after_help = "Exit codes: 0 ok or same person; 1 different person; \
2 usage; 3 malformed or corrupt file; 4 unsupported; 5 bad input; 6 budget; 7 input or output; 8 some of many images failed; 9 no face."
)]
pub struct Arguments {
    /// The .dcz file.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Image (PNG, JPEG, WebP or BMP); two are compared. With a file that has a pipeline: any number of photos and folders, whose
    /// faces are found, aligned and embedded; of more than two or a folder the result is a line of JSON each.
    #[arg(value_name = "IMAGE", num_args = 0.., conflicts_with = "input")]
    pub images: Vec<PathBuf>,
    /// The word `verify` came first: decide about two photos.
    #[arg(skip)]
    pub verify: bool,
    /// Two photos are not compared but described, a line of JSON each.
    #[arg(long, help_heading = "Photos")]
    pub each: bool,
    /// Faces of a photo: `all`, `main` (the one that counts when two photos are compared: large and near the centre),
    /// `largest`, or the N largest.
    #[arg(long, value_name = "main|largest|all|N", default_value = "all", value_parser = faces, help_heading = "Photos")]
    pub faces: Selection,
    /// Left eye, right eye, nose, left and right mouth corner of the face to embed; nothing is detected.
    #[arg(long, value_name = "X1,Y1,..,X5,Y5", value_parser = landmarks, allow_hyphen_values = true, help_heading = "Photos")]
    pub landmarks: Option<Landmarks>,
    /// Where to write the photo with boxes and landmarks.
    #[arg(long, value_name = "OUT.png", help_heading = "Photos")]
    pub draw: Option<PathBuf>,
    /// Folder for the aligned faces, as NAME_1.png and so on.
    #[arg(long, value_name = "DIR", help_heading = "Photos")]
    pub save_crops: Option<PathBuf>,
    /// Size at which faces are looked for: `native`, or pixels of the longest side, to which larger photos are scaled down
    /// [default: the file's].
    #[arg(long, value_name = "native|PIXELS", value_parser = size, help_heading = "Photos")]
    pub size: Option<InputSize>,
    /// Least score of a face [default: the file's].
    #[arg(long, value_name = "SCORE", help_heading = "Photos")]
    pub score: Option<f32>,
    /// Overlap above which the weaker of two faces is dropped [default: the file's].
    #[arg(long, value_name = "IOU", help_heading = "Photos")]
    pub nms: Option<f32>,
    /// Most faces of a photo [default: the file's].
    #[arg(long, value_name = "N", help_heading = "Photos")]
    pub max_faces: Option<usize>,
    /// Similarity (or distance) where the decision about two photos changes [default: the file's].
    #[arg(
        long,
        value_name = "T",
        allow_hyphen_values = true,
        help_heading = "Photos"
    )]
    pub threshold: Option<f32>,
    /// Larger photos are refused before they are decoded.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100_000_000,
        help_heading = "Photos"
    )]
    pub max_pixels: u64,
    /// Part of the image to use, in pixels; given twice: one per image.
    #[arg(long, value_name = "X,Y,W,H", requires = "images")]
    pub rect: Vec<String>,
    /// float32 tensor in C order that bypasses preprocessing; NAME=FILE for each of several inputs.
    #[arg(long, value_name = "[NAME=]FILE.npy")]
    pub input: Vec<String>,
    /// Where to write the output: a .npy file, or a directory for NAME.npy of every output.
    #[arg(long, value_name = "FILE.npy|DIR")]
    pub output: Option<PathBuf>,
    /// Network of a file with several.
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// Threads; the result does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: Option<u16>,
    /// Most memory to hold: bytes, a number with kB, KiB, MB, MiB, GB or GiB, `min` or `max`
    /// [default: max with --bench, else min: weights prepared once do not pay for a single run].
    #[arg(long, value_name = "SIZE|min|max", value_parser = budget)]
    pub memory_budget: Option<MemoryBudget>,
    /// Largest output error, relative to the largest magnitude of the output, that is accepted.
    #[arg(long, value_name = "ERROR", default_value_t = dcz::session::MAX_RELATIVE_ERROR)]
    pub max_error: f32,
    /// Print what every step does and where its tensors lie.
    #[arg(long)]
    pub plan: bool,
    /// Print time and live bytes of every step.
    #[arg(long)]
    pub profile: bool,
    /// Check the network against its self-test, then time N runs. With a photo: time detection and the embedding of its main
    /// face; --profile adds the steps of both networks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub bench: Option<u32>,
    /// Print one line of JSON, the last on standard output; everything else goes to standard error.
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// The arguments of the process. A leading `verify` is a flag.
    pub fn read() -> Arguments {
        let mut words: Vec<std::ffi::OsString> = std::env::args_os().collect();
        let verify = words.get(1).is_some_and(|word| word == "verify");
        if verify {
            words.remove(1);
        }
        let mut arguments = Arguments::parse_from(words);
        arguments.verify = verify;
        arguments
    }

    /// Photos are to go through the pipeline of a file that has one.
    pub fn wants_pipeline(&self) -> bool {
        !self.images.is_empty() && self.network.is_none() && !self.plan
    }

    /// Neither an image nor a network nor anything that goes without.
    pub fn names_nothing(&self) -> bool {
        let given = [
            !self.images.is_empty(),
            !self.input.is_empty(),
            self.network.is_some(),
            self.bench.is_some(),
            self.plan,
            self.profile,
        ];
        !given.contains(&true)
    }

    /// Two photos are to be compared.
    pub fn pairwise(&self) -> bool {
        self.verify
            || (self.images.len() == 2
                && !self.each
                && !self.images.iter().any(|path| path.is_dir()))
    }

    /// What goes without a pipeline only.
    pub fn check_plain(&self) -> Result<(), Failure> {
        let photos = self.each
            || self.faces != Selection::All
            || self.landmarks.is_some()
            || self.draw.is_some()
            || self.save_crops.is_some()
            || self.size.is_some()
            || self.score.is_some()
            || self.nms.is_some()
            || self.max_faces.is_some();
        if photos {
            return Err(Failure::usage(
                "options of photos need a file with a pipeline (dcz bundle)",
            ));
        }
        if self.images.len() > 2 {
            return Err(Failure::usage(
                "more than two images need a file with a pipeline (dcz bundle)",
            ));
        }
        Ok(())
    }

    /// What the parser cannot check.
    pub fn check(&self) -> Result<(), Failure> {
        if self.verify && self.images.len() != 2 {
            return Err(Failure::usage("verify compares two images"));
        }
        if self.images.len() > 1 && (self.output.is_some() || self.bench.is_some()) {
            return Err(Failure::usage("--output and --bench go with one image"));
        }
        if self.pairwise() {
            self.check_pair()?;
        } else if self.threshold.is_some() {
            return Err(Failure::usage(
                "--threshold goes with two images that are compared",
            ));
        }
        if self
            .threshold
            .is_some_and(|threshold| !threshold.is_finite())
        {
            return Err(Failure::usage("--threshold must be a finite number"));
        }
        if let Some(path) = &self.draw
            && !path
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("png"))
        {
            let why = format!(
                "--draw {}: a PNG file is written, so say NAME.png",
                path.display()
            );
            return Err(Failure::usage(why));
        }
        if self.bench.is_some() && self.output.is_some() {
            return Err(Failure::usage("--bench writes no output"));
        }
        if self.max_error.is_nan() || self.max_error <= 0.0 {
            return Err(Failure::usage("--max-error must be positive"));
        }
        Ok(())
    }

    /// Comparing takes the main face of either photo and writes nothing: what would be ignored is refused.
    fn check_pair(&self) -> Result<(), Failure> {
        let ignored = [
            ("--each", self.each),
            (
                "--faces",
                !matches!(self.faces, Selection::All | Selection::Main(1)),
            ),
            ("--landmarks", self.landmarks.is_some()),
            ("--draw", self.draw.is_some()),
            ("--save-crops", self.save_crops.is_some()),
        ];
        let hint = if self.verify {
            ""
        } else {
            " (--each describes both)"
        };
        match ignored.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Failure::usage(format!(
                "{name} has no meaning where two photos are compared{hint}"
            ))),
            None => Ok(()),
        }
    }

    /// The memory budget, given or by default.
    pub fn budget(&self) -> MemoryBudget {
        let by_default = if self.bench.is_some() {
            MemoryBudget::Max
        } else {
            MemoryBudget::Min
        };
        self.memory_budget.unwrap_or(by_default)
    }

    /// Options of the session.
    pub fn options(&self) -> Result<SessionOptions, Failure> {
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
        let threads = self.threads.map_or_else(available, usize::from);
        let mut options = SessionOptions::default()
            .with_threads(Threads::Own(threads))
            .with_memory_budget(self.budget())
            // A timed loop keeps the pages it is going to read again.
            .with_release_pages(self.bench.is_none() || self.budget() != MemoryBudget::Max);
        options.network.clone_from(&self.network);
        options.max_relative_error = self.max_error;
        Ok(options)
    }

    /// The rectangles, one per image.
    pub fn rects(&self) -> Result<Vec<Rect>, Failure> {
        if self.rect.len() > self.images.len() {
            return Err(Failure::usage("more rectangles than images"));
        }
        self.rect.iter().map(|text| rect(text)).collect()
    }
}

fn rect(text: &str) -> Result<Rect, Failure> {
    let numbers: Vec<u32> = text
        .split(',')
        .filter_map(|part| part.trim().parse().ok())
        .collect();
    match (numbers.as_slice(), text.split(',').count()) {
        (&[x, y, width, height], 4) => Ok(Rect {
            x,
            y,
            width,
            height,
        }),
        _ => Err(Failure::usage(format!(
            "--rect {text}: four numbers X,Y,W,H are needed"
        ))),
    }
}

fn faces(text: &str) -> Result<Selection, String> {
    match text {
        "all" => Ok(Selection::All),
        "main" => Ok(Selection::Main(1)),
        "largest" => Ok(Selection::Largest(1)),
        _ => match text.parse() {
            Ok(count) if count > 0 => Ok(Selection::Largest(count)),
            _ => Err("main, largest, all or a number is needed".into()),
        },
    }
}

fn landmarks(text: &str) -> Result<Landmarks, String> {
    let numbers: Option<Vec<f32>> = text
        .split(',')
        .map(|part| part.trim().parse().ok().filter(|v: &f32| v.is_finite()))
        .collect();
    let mut landmarks = [[0.0; 2]; LANDMARKS];
    match numbers {
        Some(numbers) if numbers.len() == 2 * LANDMARKS => {
            landmarks.as_flattened_mut().copy_from_slice(&numbers);
            Ok(landmarks)
        }
        _ => Err("ten numbers X1,Y1,..,X5,Y5 are needed".into()),
    }
}

fn size(text: &str) -> Result<InputSize, String> {
    match text {
        "native" => Ok(InputSize::Native),
        _ => match text.parse() {
            Ok(side) if side > 0 => Ok(InputSize::LongestSide(side)),
            _ => Err("native or a number of pixels is needed".into()),
        },
    }
}

fn budget(text: &str) -> Result<MemoryBudget, String> {
    match text {
        "min" => return Ok(MemoryBudget::Min),
        "max" => return Ok(MemoryBudget::Max),
        _ => {}
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        other => return Err(format!("unknown unit {other}")),
    };
    let value: f64 = number.parse().map_err(|_| format!("{text} is no size"))?;
    let bytes = value * factor as f64;
    if bytes.is_finite() && bytes < u64::MAX as f64 {
        Ok(MemoryBudget::Bytes(bytes as u64))
    } else {
        Err(format!("{text} is too large"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(budget("8MiB"), Ok(MemoryBudget::Bytes(8 << 20)));
        assert_eq!(budget("1.5 MB"), Ok(MemoryBudget::Bytes(1_500_000)));
        assert_eq!(budget("123"), Ok(MemoryBudget::Bytes(123)));
        assert_eq!(budget("min"), Ok(MemoryBudget::Min));
        assert!(budget("MiB").is_err() && budget("8 furlongs").is_err() && budget("-1").is_err());
    }

    #[test]
    fn rectangles() {
        assert_eq!(
            rect("1, 2,3,4").unwrap(),
            Rect {
                x: 1,
                y: 2,
                width: 3,
                height: 4
            }
        );
        for bad in ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "-1,2,3,4"] {
            assert_eq!(rect(bad).unwrap_err().code, 2, "{bad}");
        }
    }
}
