//! A threshold from photographs: the value of the decision that lets a stated share of pairs of different persons through.
//!
//! The photographs go through the finished pipeline (their main face). Of N pairs of different persons the most similar
//! K = floor(N * rate) may be taken for the same person: the threshold lies between the K-th and the next. K below 10 is refused:
//! with fewer, chance decides the threshold more than the network does. Pairs of the same person only say what the
//! threshold costs.

use std::collections::HashMap;
use std::path::Path;

use dcz::Model;
use dcz_compress::error::Error;
use dcz_face::{FacePipeline, Image, Options, Selection, SessionOptions, Threads};
use dcz_format::graph::Metric;
use image::ImageDecoder;

/// Fewest pairs of different persons that the threshold must let through.
const LEAST_RANK: usize = 10;
/// Most photographs when every pair counts.
const MOST_IMAGES: usize = 10_000;

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Where the decision changes.
    pub threshold: f32,
    /// Pairs of one person, and how many of them the threshold accepts.
    pub positives: [usize; 2],
    /// Pairs of different persons.
    pub negatives: usize,
    /// How many of those the threshold accepts at most.
    pub rank: usize,
    /// Photographs without a face, whose pairs do not count.
    pub without_face: usize,
}

/// Pairs of photographs, by index.
#[derive(Debug, Default, PartialEq)]
struct Pairs {
    files: Vec<String>,
    pairs: Vec<(usize, usize, bool)>,
    /// A person per file, instead of pairs: every pair counts.
    persons: Vec<String>,
}

/// Reads the pairs, runs the photographs of `images`, and chooses the threshold.
pub fn calibrate(
    model: &Model,
    list: &Path,
    images: &Path,
    fpr: f64,
) -> Result<Calibration, Error> {
    let text = dcz_compress::settings::read_text(list)?;
    let pairs =
        Pairs::parse(&text).map_err(|why| Error::Input(format!("{}: {why}", list.display())))?;
    enough(pairs.different(), fpr)?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    let session = SessionOptions::default().with_threads(Threads::Own(threads));
    let wrong = |e: dcz_face::Error| super::bundle::face_error(e);
    let mut pipeline =
        FacePipeline::new(model, Options::default().with_session(session)).map_err(wrong)?;
    let bar = super::progress_bar();
    bar.set_length(pairs.files.len() as u64);
    bar.set_message("photographs");
    let mut vectors = Vec::with_capacity(pairs.files.len());
    for file in &pairs.files {
        vectors.push(embed(&mut pipeline, &images.join(file))?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (mut same, mut different) = (Vec::new(), Vec::new());
    pairs.visit(|a, b, one| {
        if let (Some(Some(a)), Some(Some(b))) = (vectors.get(a), vectors.get(b)) {
            let value = pipeline.compare(a, b).value;
            if one { &mut same } else { &mut different }.push(value);
        }
    });
    let mut found = choose(pipeline.record().compare.metric, &same, &mut different, fpr)?;
    found.without_face = vectors.iter().filter(|v| v.is_none()).count();
    Ok(found)
}

/// The vector of the main face; `None` without a face.
fn embed(pipeline: &mut FacePipeline, path: &Path) -> Result<Option<Vec<f32>>, Error> {
    let wrong = |why: &dyn std::fmt::Display| Error::Input(format!("{}: {why}", path.display()));
    let decode = || -> image::ImageResult<image::RgbImage> {
        let reader = image::ImageReader::open(path)?.with_guessed_format()?;
        let mut decoder = reader.into_decoder()?;
        let orientation = decoder.orientation();
        let mut image = image::DynamicImage::from_decoder(decoder)?;
        if let Ok(orientation) = orientation {
            image.apply_orientation(orientation);
        }
        Ok(image.into_rgb8())
    };
    let pixels = decode().map_err(|e| match e {
        image::ImageError::IoError(e) => Error::io(path, &e),
        other => wrong(&other),
    })?;
    let image = Image::new(pixels.width(), pixels.height(), pixels.as_raw());
    let image = image.map_err(|e| wrong(&e))?;
    let faces = pipeline.embed_selected(&image, Selection::Main(1));
    Ok(faces.map_err(|e| wrong(&e))?.pop().map(|f| f.embedding))
}

fn enough(negatives: usize, fpr: f64) -> Result<usize, Error> {
    let rank = (negatives as f64 * fpr) as usize;
    if rank >= LEAST_RANK {
        return Ok(rank);
    }
    Err(Error::Input(format!(
        "{negatives} pairs of different persons are too few for a rate of {fpr}: {} are needed",
        (LEAST_RANK as f64 / fpr).ceil()
    )))
}

/// The threshold that accepts at most the share `fpr` of `different`.
fn choose(
    metric: Metric,
    same: &[f64],
    different: &mut [f64],
    fpr: f64,
) -> Result<Calibration, Error> {
    let rank = enough(different.len(), fpr)?;
    // As similarities: larger is more alike.
    let sign = match metric {
        Metric::Cosine => 1.0,
        Metric::Euclidean => -1.0,
    };
    different.sort_by(|a, b| (sign * b).total_cmp(&(sign * a)));
    let (Some(&last), Some(&next)) = (different.get(rank - 1), different.get(rank)) else {
        return Err(Error::Usage("the rate must be below 1".into()));
    };
    // In the middle; equal values cannot be told apart: all or none.
    let mut threshold = ((last + next) / 2.0) as f32;
    while sign * f64::from(threshold) <= sign * next {
        threshold = sign as f32 * (sign as f32 * threshold).next_up();
    }
    let accepted = |value: &&f64| sign * **value >= sign * f64::from(threshold);
    Ok(Calibration {
        threshold,
        positives: [same.len(), same.iter().filter(accepted).count()],
        negatives: different.len(),
        rank: different.iter().filter(accepted).count(),
        without_face: 0,
    })
}

impl Pairs {
    /// Lines of one of three forms: `FILE FILE same|different`; `FILE PERSON`, where every pair of the files counts; or LFW's
    /// (`NAME I J` for one person, `NAME I OTHER J` for two, standing for `NAME_000I.jpg`, after a line of numbers).
    fn parse(text: &str) -> Result<Pairs, String> {
        let mut pairs = Pairs::default();
        let mut places = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_number = |word: &&str| word.parse::<u32>().is_ok();
            let lfw = |name: &str, number: &str| format!("{name}_{number:0>4}.jpg");
            let mut place = |file: String| {
                let next = places.len();
                *places.entry(file.clone()).or_insert_with(|| {
                    pairs.files.push(file);
                    next
                })
            };
            match words[..] {
                [] => {}
                [a, b, word @ ("same" | "different")] => {
                    let pair = (place(a.into()), place(b.into()), word == "same");
                    pairs.pairs.push(pair);
                }
                [name, i, j] if is_number(&i) && is_number(&j) => {
                    let pair = (place(lfw(name, i)), place(lfw(name, j)), true);
                    pairs.pairs.push(pair);
                }
                [a, i, b, j] if is_number(&i) && is_number(&j) => {
                    let pair = (place(lfw(a, i)), place(lfw(b, j)), false);
                    pairs.pairs.push(pair);
                }
                _ if number == 0 && words.iter().all(is_number) => {}
                [file, person] => {
                    if place(file.into()) != pairs.persons.len() {
                        return Err(format!("line {}: {file} has a person already", number + 1));
                    }
                    pairs.persons.push(person.into());
                }
                _ => {
                    return Err(format!(
                        "line {}: `FILE FILE same`, `FILE FILE different`, `FILE PERSON` or a line of LFW's pairs.txt is needed",
                        number + 1
                    ));
                }
            }
        }
        match (pairs.persons.len(), pairs.pairs.len()) {
            (0, 0) => Err("no pairs".into()),
            (0, _) | (_, 0) if pairs.persons.len() <= MOST_IMAGES => Ok(pairs),
            (_, 0) => Err(format!(
                "more than {MOST_IMAGES} files of which every pair counts"
            )),
            _ => Err("lines of a file and a person do not go with lines of pairs".into()),
        }
    }

    fn visit(&self, mut pair: impl FnMut(usize, usize, bool)) {
        for &(a, b, same) in &self.pairs {
            pair(a, b, same);
        }
        for (a, person) in self.persons.iter().enumerate() {
            for (b, other) in self.persons.iter().enumerate().skip(a + 1) {
                pair(a, b, person == other);
            }
        }
    }

    fn different(&self) -> usize {
        let mut count = 0;
        self.visit(|_, _, same| count += usize::from(!same));
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let pairs = Pairs::parse("a.png b.png same\n\na.png c/d.jpg different\n").unwrap();
        assert_eq!(pairs.files, ["a.png", "b.png", "c/d.jpg"]);
        assert_eq!(pairs.pairs, [(0, 1, true), (0, 2, false)]);
        let pairs = Pairs::parse("2\t300\nAnn\t1\t2\nAnn\t1\tBob_B\t12\n").unwrap();
        assert_eq!(
            pairs.files,
            ["Ann_0001.jpg", "Ann_0002.jpg", "Bob_B_0012.jpg"]
        );
        assert_eq!(pairs.pairs, [(0, 1, true), (0, 2, false)]);
        let pairs = Pairs::parse("a.png Ann\nb.png Bob\nc.png Ann\n").unwrap();
        assert_eq!(pairs.different(), 2);
        for bad in [
            "",
            "\n",
            "a.png\n",
            "a.png b.png perhaps\n",
            "a.png Ann\na.png Bob\n",
            "a.png Ann\na.png b.png same\n",
        ] {
            assert!(Pairs::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn thresholds() {
        let mut different: Vec<f64> = (0..1000).map(|i| f64::from(i) / 1000.0).collect();
        let same = [0.985, 0.995, 0.5];
        let found = choose(Metric::Cosine, &same, &mut different, 0.01).unwrap();
        assert_eq!((found.threshold, found.rank), (0.9895, 10));
        assert_eq!((found.positives, found.negatives), ([3, 1], 1000));
        let found = choose(Metric::Euclidean, &same, &mut different, 0.01).unwrap();
        assert_eq!((found.threshold, found.rank), (0.0095, 10));
        assert_eq!(found.positives, [3, 0]);
        // All alike: none may pass.
        let found = choose(Metric::Cosine, &same, &mut [0.5; 1000], 0.01).unwrap();
        assert_eq!((found.rank, found.positives), (0, [3, 2]));
        assert!(choose(Metric::Cosine, &same, &mut [0.5; 999], 0.01).is_err());
        assert!(choose(Metric::Cosine, &same, &mut [0.5; 99], 1.0).is_err());
    }
}
