//! `dcz sensitivity`: what pruning and quantising each layer alone does to the output, and settings proposed from it.

use std::path::{Path, PathBuf};

use dcz_compress::accuracy::images::{Alignment, Loader, list};
use dcz_compress::error::Error;
use dcz_compress::import::{ImportOptions, import};
use dcz_compress::onnx;
use dcz_compress::preprocess::Description;
use dcz_compress::sensitivity::{Points, Subject, json, propose, svg, table};
use serde_json::json;

use super::target::{check_target, write_text};

/// Measures, layer by layer, what zeros, steps and bits do to a network's output, and proposes settings.
///
/// Every layer is changed alone, as `dcz compress` would change it, and the network is run on images; printed is 1 minus
/// the cosine to the float network's output, mean over the images. The proposal (for `dcz compress --settings`) spends an
/// output error where it saves most bytes, and is measured as a whole.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The ONNX model
    model: PathBuf,
    /// Images, put through the preprocessing
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// How an image becomes the input (TOML, as for `dcz compress`; ready files: compress/presets)
    #[arg(long, value_name = "FILE.toml")]
    preprocess: PathBuf,
    /// Five points per image by which it is cut first, as for `dcz evaluate`
    #[arg(long, value_name = "FILE")]
    landmarks: Option<PathBuf>,
    /// At most so many images, evenly spread over the folder
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Shares of zeros, in percent [default: 30,50,60,70,80,90]
    #[arg(long, value_name = "P,..", value_delimiter = ',')]
    sparsity: Option<Vec<f64>>,
    /// Output channels that are pruned together: 1, 2, 4 or 8
    #[arg(long, value_name = "CHANNELS", default_value_t = 1)]
    prune_block: u8,
    /// Steps, in standard deviations of the layer [default: 0.1,0.2,0.35,0.5,0.75,1,1.5,2]
    #[arg(long, value_name = "C,..", value_delimiter = ',')]
    steps: Option<Vec<f32>>,
    /// Widths of a code [default: 8,6,5,4,3]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    bits: Option<Vec<u8>>,
    /// Mean cosine to the float output that the proposal keeps
    #[arg(long, value_name = "COSINE", default_value_t = 0.995)]
    cosine: f64,
    /// Writes the proposal as a settings file of `dcz compress`
    #[arg(long, value_name = "FILE.toml")]
    propose: Option<PathBuf>,
    /// Writes the curves as SVG
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// An image that cannot be used is an error, not skipped
    #[arg(long)]
    strict: bool,
    /// Prints one line of JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let targets = [&arguments.propose, &arguments.svg];
    for path in targets.into_iter().flatten() {
        check_target(path)?;
    }
    let points = points(arguments)?;
    let description = Description::load(&arguments.preprocess)?;
    let subject = subject(arguments, &description)?;

    let bar = super::progress_bar();
    bar.set_message("measuring");
    let report = &mut |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let curves = subject.curves(&points, report)?;
    bar.set_message("proposing");
    let proposal = propose(&subject, &curves, arguments.cosine, report)?;
    bar.finish_and_clear();

    if let Some(path) = &arguments.propose {
        write_text(path, &proposal.to_toml(&curves, subject.images())?)?;
    }
    if let Some(path) = &arguments.svg {
        write_text(path, &svg(&curves))?;
    }
    let text = table(&curves, Some(&proposal));
    if !arguments.json {
        return super::print(&text);
    }
    eprint!("{text}");
    let mut line = json(&curves, Some(&proposal), subject.images());
    let name = arguments.model.file_name();
    line["model"] = json!(name.map(|n| n.to_string_lossy()));
    super::print(&format!("{line}\n"))
}

fn points(arguments: &Arguments) -> Result<Points, Error> {
    let default = Points::default();
    let points = Points {
        sparsity: arguments.sparsity.clone().unwrap_or(default.sparsity),
        prune_block: arguments.prune_block,
        steps: arguments.steps.clone().unwrap_or(default.steps),
        bits: arguments.bits.clone().unwrap_or(default.bits),
    };
    let wrong = |why: &str| Err(Error::Usage(why.into()));
    if !points.sparsity.iter().all(|p| (0.0..=100.0).contains(p)) {
        return wrong("--sparsity: percentages are 0 to 100");
    }
    if !points.steps.iter().all(|s| s.is_finite() && *s > 0.0) {
        return wrong("--steps: steps are positive");
    }
    if !points.bits.iter().all(|b| (1..=8).contains(b)) {
        return wrong("--bits: widths are 1 to 8");
    }
    if points.steps.is_empty() && points.bits.is_empty() {
        return wrong("--steps and --bits are both empty");
    }
    if ![1, 2, 4, 8].contains(&points.prune_block) {
        return wrong("--prune-block is 1, 2, 4 or 8");
    }
    if !(arguments.cosine > 0.0 && arguments.cosine < 1.0) {
        return wrong("--cosine is between 0 and 1");
    }
    Ok(points)
}

/// Loads model and images.
fn subject(arguments: &Arguments, description: &Description) -> Result<Subject, Error> {
    let paths = list(&arguments.images)?;
    let float = import(
        &onnx::load(&arguments.model)?,
        &ImportOptions {
            folder: arguments.model.parent().map(Path::to_path_buf),
            ..ImportOptions::default()
        },
    )?;
    let mut described = float.network.clone();
    description.apply(&mut described)?;
    let record = described.preprocess.ok_or_else(|| {
        Error::Usage(format!(
            "{}: no [image], so it is not known how an image becomes the input",
            arguments.preprocess.display()
        ))
    })?;
    let alignment = arguments
        .landmarks
        .as_deref()
        .map(|path| Alignment::load(path, &record))
        .transpose()?;
    let loader = Loader { record, alignment };
    let (mut images, mut skipped) = (Vec::new(), Vec::new());
    let wanted = (arguments.limit as usize).min(paths.len());
    for path in (0..wanted).map(|i| &paths[i * paths.len() / wanted]) {
        match loader.load(path) {
            Ok(image) => images.push(image),
            Err(error) if arguments.strict => return Err(error),
            Err(error) => skipped.push(error),
        }
    }
    if let Some(first) = skipped.first() {
        let text = format!(
            "{} of {wanted} images cannot be used, the first: {first}",
            skipped.len()
        );
        if images.is_empty() {
            return Err(Error::Input(text));
        }
        eprintln!("note: {text}");
    }
    Subject::new(float, description, &loader, images)
}
