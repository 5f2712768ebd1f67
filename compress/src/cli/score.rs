//! `dcz score`: the contest's score of a compressed network, everything in it measured.

use std::path::{Path, PathBuf};

use dcz_compress::accuracy::embed::embed;
use dcz_compress::accuracy::figures::{Contest, Measured};
use dcz_compress::accuracy::images::list;
use dcz_compress::accuracy::pairs::Pairs;
use dcz_compress::encode::float_model;
use dcz_compress::error::Error;
use dcz_compress::import::{ImportOptions, import};
use dcz_compress::onnx;
use dcz_compress::preprocess::Description;
use dcz_compress::score::Score;
use dcz_format::graph::Metric;
use serde_json::json;

use super::evaluate::{loaders, open, warn_skipped};
use super::measure::peak_of;
use super::target::Partial;

/// Measures memory, size and accuracy of a compressed network beside its original and prints the contest's score.
///
/// score = ((M - m)/M * 20 + (S - s)/S * 80) * A(z) * B(s). m is the high-water mark of a fresh process that runs the
/// compressed file under the smallest budget, M that of one that runs the uncompressed network with all weights resident;
/// S and s are sizes of files; z is the true positive rate at a false positive rate of 1e-4 over (a_i, b_j), without pairs of
/// one person among the negatives. A: 1 for z >= 0.97, 0.9 from 0.965. B: 1 to 40 MB, 0.9 to 50, 0.8 to 63 (10^6 bytes).
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The original, as ONNX
    #[arg(long, value_name = "MODEL.onnx")]
    original: PathBuf,
    /// The compressed network
    #[arg(long, value_name = "FILE.dcz")]
    compressed: PathBuf,
    /// The list of pairs, as for `dcz evaluate`; at least 500 of one person
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// The images, called NAME_0001 and so on
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Five points per image by which it is cut first, as for `dcz evaluate`
    #[arg(long, value_name = "FILE")]
    landmarks: Option<PathBuf>,
    /// Which network of a .dcz file with several
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// M, measured elsewhere (peak memory of another runtime, in bytes)
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    baseline_peak: Option<u64>,
    /// An image that cannot be used is an error, not skipped
    #[arg(long)]
    strict: bool,
    /// Prints one line of JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let compressed = &arguments.compressed;
    if !super::is_dcz(compressed)? {
        return Err(Error::Usage(format!(
            "--compressed {}: not a .dcz file",
            compressed.display()
        )));
    }
    // Accuracy first: it may refuse.
    let contest = contest(arguments)?;
    let network = arguments.network.as_deref();
    let (original_bytes, original_peak) = original(arguments)?;
    let score = Score {
        original_peak,
        compressed_peak: peak_of(compressed, network, false)?,
        original_bytes,
        compressed_bytes: size_of(compressed)?,
        contest,
    };
    let text = describe(&score, arguments.baseline_peak.is_some());
    if !arguments.json {
        return super::print(&text);
    }
    eprint!("{text}");
    let mut line = score.json();
    line["M_given"] = json!(arguments.baseline_peak.is_some());
    line["compressed"] = json!(compressed.file_name().map(|n| n.to_string_lossy()));
    super::print(&format!("{line}\n"))
}

fn size_of(path: &Path) -> Result<u64, Error> {
    let found = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    Ok(found.len())
}

/// The contest's z of the compressed network, or why there is none.
fn contest(arguments: &Arguments) -> Result<Contest, Error> {
    let pairs = Pairs::load(&arguments.pairs)?;
    let paths = list(&arguments.images)?;
    let one = open(&arguments.compressed, arguments.network.as_deref(), None)?;
    let network = one.network.as_deref();
    if one.model.network(network)?.preprocess.is_none() {
        return Err(Error::Usage(format!(
            "{} does not say how an image becomes the input; compress the network with --preprocess",
            arguments.compressed.display()
        )));
    }
    let runnable = [one];
    let loaders = loaders(&runnable, arguments.landmarks.as_deref())?;
    let (Some(one), Some(loader)) = (runnable.first(), loaders.first()) else {
        return Err(Error::Usage("no network".into()));
    };
    let bar = super::progress_bar();
    bar.set_message("embedding");
    bar.set_length(paths.len() as u64);
    let progress = |done: usize, _: usize| bar.set_position(done as u64);
    let network = one.network.as_deref();
    let embeddings = embed(
        &one.model,
        network,
        &paths,
        loader,
        arguments.strict,
        &progress,
    );
    bar.finish_and_clear();
    let embeddings = embeddings?;
    warn_skipped(&embeddings, paths.len())?;
    // The contest compares by cosine whatever the network's own metric is.
    let measured = Measured::new(&embeddings, &pairs, Metric::Cosine)?;
    (measured.contest).map_err(|why| Error::Input(format!("no score without z: {why}")))
}

/// Size of the original's files, and its peak memory.
fn original(arguments: &Arguments) -> Result<(u64, u64), Error> {
    let path = &arguments.original;
    let model = onnx::load(path)?;
    let mut bytes = size_of(path)?;
    for file in onnx::external_files(&model, path.parent().unwrap_or(Path::new(""))) {
        bytes += size_of(&file)?;
    }
    if let Some(peak) = arguments.baseline_peak {
        return Ok((bytes, peak));
    }
    let float = import(
        &model,
        &ImportOptions {
            folder: path.parent().map(Path::to_path_buf),
            ..ImportOptions::default()
        },
    )?;
    drop(model);
    // The uncompressed network in our own format, for a moment.
    let partial = Partial::beside(&std::env::temp_dir().join("dcz-score-original.dcz"))?;
    let float = float_model(float, &Description::default())?;
    let source = float.container().source();
    let content = source.bytes().unwrap_or_default();
    std::fs::write(&partial.path, content).map_err(|e| Error::io(&partial.path, &e))?;
    drop(float);
    Ok((bytes, peak_of(&partial.path, None, true)?))
}

fn describe(score: &Score, given: bool) -> String {
    let c = &score.contest;
    let of_original = if given {
        "given"
    } else {
        "process of dcz, all weights resident"
    };
    format!(
        "memory  M = {} ({of_original}), m = {} (process of dcz, smallest budget): {:.2} of 20 points\n\
         size    S = {}, s = {} bytes: {:.2} of 80 points\n\
         z = {:.4}: {} positives, {} negatives ({} of one person removed), rank {}, threshold {:.4}\n\
         A(z) = {}, B(s) = {}\n\
         score = {:.2}\n\
         (size counts as (S - s)/S and B of s; the contest's slides print (S - s)/s and B of z, read as slips)\n",
        super::grouped(score.original_peak),
        super::grouped(score.compressed_peak),
        20.0 * score.memory_saved(),
        super::grouped(score.original_bytes),
        super::grouped(score.compressed_bytes),
        80.0 * score.size_saved(),
        c.z,
        c.positives,
        c.negatives,
        c.removed,
        c.rank,
        c.threshold,
        score.a(),
        score.b(),
        score.value(),
    )
}
