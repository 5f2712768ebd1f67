//! `bench fit`: prices of operations from measurements, as the table of an instruction set that the planner reads.
//!
//! Takes the JSON of any number of runs of `bench conv --fit --json` (of the same shapes, or of parts of them: the least median
//! of a row counts) and prints the Rust file. For every algorithm the relative error of the planner's own model is made
//! least over all rows: non-negative least squares by coordinate descent, outliers weighed down in a few rounds. How many
//! pixels fill a vector is tried. A kernel that is seldom the quickest pays at least as much for a weight as the packed product,
//! which reads the same ones: the few shapes that it is good at say little about that (a price of nothing was found, and dlib's
//! network in f32 took 1.4 times its time). Errors that are left go to standard error; `bench pick` says whether they matter.

use crate::Result;
use crate::conv::{Model, Shape, Source, cuts};
use crate::stats::{Times, median};
use dcz::cost::{self, Calls, SELDOM, TileCost, Vectors, WEIGHTS, Weights};
use dcz_kernels::winograd::{self, Winograd};
use dcz_kernels::{ConvAlgo, ConvShape, Isa};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Relative error at which a row counts half.
const OUTLIER: f64 = 0.15;
/// Rounds of weighing.
const ROUNDS: usize = 12;
/// Sweeps of coordinate descent.
const SWEEPS: usize = 20_000;
/// Columns of [`cost::Work`] that all rows of an algorithm share.
const SHARED: usize = 13;
/// What an output element costs more that does not stay in the caches. Not fitted: alone, a kernel does not pay for who reads
/// its output. With 1 ns VGG-16 gets bands and takes 126 ms on a Zen 5, with what is fitted alone none and 140 ms.
const FAR: f64 = 1.0;

/// Options of `bench fit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Outputs of `bench conv --fit --json`.
    #[arg(required = true, value_name = "JSON")]
    runs: Vec<PathBuf>,
    /// The machine and date, for the head of the file.
    #[arg(long)]
    machine: String,
    /// Rows to name: those whose prediction is off by so many percent.
    #[arg(long, default_value_t = 30.0)]
    worst: f64,
    /// Instruction set that was measured; by default the best of this processor.
    #[arg(long)]
    isa: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Run {
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize)]
struct Row {
    network: String,
    #[serde(default)]
    shape: String,
    channels: [usize; 2],
    zeros_percent: u64,
    times: Times,
    geometry: Option<Shape>,
    model: Option<Model>,
}

/// A measured convolution.
struct Seen {
    title: String,
    shape: ConvShape,
    model: Model,
    ns: f64,
}

/// Fits and prints.
pub fn run(args: &Args) -> Result<ExitCode> {
    let isa = match &args.isa {
        Some(name) => Isa::from_name(name)
            .ok_or_else(|| format!("no instruction set {name} on this processor"))?,
        None => Isa::detect(),
    };
    let mut best: BTreeMap<String, Row> = BTreeMap::new();
    for file in &args.runs {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        // A file may hold the lines of several runs.
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let run: Run = serde_json::from_str(line)?;
            for row in run.rows.into_iter().filter(|row| row.model.is_some()) {
                let key = format!(
                    "{} {} {:?} {} {:?}",
                    row.network, row.shape, row.channels, row.zeros_percent, row.model
                );
                let slower = |old: &Row| row.times.median_ms < old.times.median_ms;
                if best.get(&key).is_none_or(slower) {
                    best.insert(key, row);
                }
            }
        }
    }
    let (mut seen, mut linear) = (Vec::new(), Vec::new());
    for row in best.into_values() {
        let ns = row.times.median_ms * 1e6;
        match (row.geometry, row.model) {
            (Some(geometry), Some(model)) => seen.push(Seen {
                title: format!("{} {} {}%", row.network, row.shape, row.zeros_percent),
                shape: geometry.geometry()?,
                model,
                ns,
            }),
            (None, Some(model)) => {
                let weights = row.channels.iter().product::<usize>() as f64;
                linear.push((model, weights, ns));
            }
            _ => {}
        }
    }
    let mut text = head(&args.machine);
    text.push_str("    tiles: &[\n");
    // The packed product comes first in every table, and says what others pay at least.
    let mut packed = [0.0; WEIGHTS.len()];
    for known in cost::table(isa).tiles {
        let weight = tiles(&mut text, known, &seen, packed, args.worst)?;
        if known.algorithm == ConvAlgo::Gemm {
            packed = weight;
        }
    }
    text.push_str("    ],\n    lists: &[\n");
    for group in [1, 2, 4] {
        lists(&mut text, group, &seen, args.worst)?;
    }
    text.push_str("    ],\n");
    linear_layers(&mut text, &linear)?;
    fft(&mut text, &seen, args.worst)?;
    text.push_str("};\n");
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn head(machine: &str) -> String {
    format!(
        "//! {machine}; one thread, release build.\n//!\n//! Written by `bench fit`; do not edit.\n\n\
         use super::{{FftCost, LinearCost, ListCost, Table, TileCost, Vectors}};\nuse dcz_kernels::ConvAlgo;\n\n\
         #[rustfmt::skip]\npub(super) static TABLE: Table = Table {{\n"
    )
}

/// Measured rows as equations: amounts of each column, and nanoseconds.
struct Equations {
    rows: Vec<(Vec<f64>, f64)>,
}

/// Prices, and the weighed mean of the relative errors.
struct Fit {
    prices: Vec<f64>,
    errors: Vec<f64>,
    score: f64,
}

impl Equations {
    /// `least`: the least price of each column; of those that it has not, 0.
    fn solve(&self, least: &[f64]) -> Fit {
        let columns = self.rows.first().map_or(0, |(row, _)| row.len());
        let mut prices = vec![0.0; columns];
        let mut trust = vec![1.0; self.rows.len()];
        let mut errors = vec![0.0; self.rows.len()];
        for _ in 0..ROUNDS {
            prices = self.least_squares(&trust, columns, least);
            for (((row, ns), error), trust) in self.rows.iter().zip(&mut errors).zip(&mut trust) {
                let predicted: f64 = row.iter().zip(&prices).map(|(a, p)| a * p).sum();
                *error = predicted / ns - 1.0;
                *trust = 1.0 / (1.0 + (*error / OUTLIER).powi(2));
            }
        }
        // Large errors count, but none alone decides.
        let score = errors
            .iter()
            .map(|e| (1.0 + (e / OUTLIER).powi(2)).ln())
            .sum();
        Fit {
            prices,
            errors,
            score,
        }
    }

    /// Prices, one at a time along the normal equations. Columns are scaled to unit length.
    fn least_squares(&self, trust: &[f64], columns: usize, least: &[f64]) -> Vec<f64> {
        let mut gram = vec![vec![0.0; columns]; columns];
        let mut right = vec![0.0; columns];
        for ((row, ns), trust) in self.rows.iter().zip(trust) {
            for i in 0..columns {
                right[i] += trust * row[i] / ns;
                for j in 0..columns {
                    gram[i][j] += trust * row[i] / ns * (row[j] / ns);
                }
            }
        }
        let scale: Vec<f64> = (0..columns).map(|i| gram[i][i].sqrt()).collect();
        let least: Vec<f64> = (0..columns)
            .map(|i| least.get(i).copied().unwrap_or(0.0) * scale[i])
            .collect();
        let mut x = least.clone();
        for _ in 0..SWEEPS {
            let mut moved = 0.0f64;
            for i in (0..columns).filter(|&i| scale[i] > 0.0) {
                let others: f64 = (0..columns)
                    .filter(|&j| j != i && scale[j] > 0.0)
                    .map(|j| gram[i][j] / (scale[i] * scale[j]) * x[j])
                    .sum();
                let next = (right[i] / scale[i] - others).max(least[i]);
                moved = moved.max((next - x[i]).abs());
                x[i] = next;
            }
            if moved < 1e-9 {
                break;
            }
        }
        let unscaled = x.iter().zip(&scale);
        unscaled
            .map(|(x, s)| if *s > 0.0 { x / s } else { 0.0 })
            .collect()
    }
}

/// A row of an algorithm on tiles; what a weight costs. `packed`: what it costs the packed product.
fn tiles(
    text: &mut String,
    known: &TileCost,
    seen: &[Seen],
    packed: [f64; WEIGHTS.len()],
    worst: f64,
) -> Result<[f64; WEIGHTS.len()]> {
    let algorithm = known.algorithm;
    let mut least = vec![0.0; SHARED];
    if SELDOM.contains(&algorithm) {
        least.extend(packed);
    }
    let size = match algorithm {
        ConvAlgo::Winograd2 => Some(Winograd::F2),
        ConvAlgo::Winograd4 => Some(Winograd::F4),
        ConvAlgo::Winograd6 => Some(Winograd::F6),
        _ => None,
    };
    let name = format!("{algorithm:?}");
    let source = |s: Source| match s {
        Source::I8 => Some(Weights::I8),
        Source::Lut => Some(Weights::Lut),
        Source::Wide => Some(Weights::Wide),
        Source::Float => Some(Weights::Float),
        Source::Transformed => Some(Weights::Transformed),
        Source::Transformed16 => Some(Weights::Transformed16),
        Source::Lists | Source::Fft | Source::Decoded => None,
    };
    let rows: Vec<(&Seen, Weights)> = (seen.iter().filter(|s| s.model.algorithm == name))
        .filter_map(|s| Some((s, source(s.model.weights)?)))
        .collect();
    if rows.is_empty() {
        return Err(format!("{name}: no measurement").into());
    }
    let sparse = rows.iter().any(|(s, _)| s.model.skips());
    let equations = |vectors: (Vectors, usize)| Equations {
        rows: (rows.iter())
            .map(|(s, weights)| (row(algorithm, size, vectors, s, *weights), s.ns))
            .collect(),
    };
    let lanes: &[usize] = match (size, sparse) {
        (None, false) => &[1, 8, 16],
        (None, true) => &[0],
        (Some(_), _) => &[4, 8, 16],
    };
    let few_tiles: &[usize] = match size {
        Some(_) => &[4, 16],
        None => &[0],
    };
    let alone = [Vectors {
        lanes: 1,
        sizes: [1; 3],
        least: 1.0,
    }];
    let ways: Vec<Vectors> = if sparse { ways() } else { alone.to_vec() };
    let mut best: Option<((Vectors, usize), Fit)> = None;
    for way in ways {
        for &lanes in lanes {
            for &few in few_tiles {
                let lanes = if lanes == 0 { way.lanes } else { lanes };
                let vectors = (Vectors { lanes, ..way }, few);
                let fit = equations(vectors).solve(&least);
                if best.as_ref().is_none_or(|(_, old)| fit.score < old.score) {
                    best = Some((vectors, fit));
                }
            }
        }
    }
    let Some(((vectors, few_tiles), fit)) = best else {
        return Err(format!("{name}: no fit").into());
    };
    let titles = rows.iter().map(|(s, w)| format!("{} {w:?}", s.title));
    report(&name, titles, &fit.errors, worst);
    let p = &fit.prices;
    let list = |from: usize| {
        let prices: Vec<String> = (0..WEIGHTS.len()).map(|i| price(p[from + i])).collect();
        prices.join(", ")
    };
    let [
        product,
        strided,
        present,
        odd,
        input,
        copy,
        output,
        _,
        row,
        pixel,
        call,
        again,
        tile,
    ] = std::array::from_fn(|i| price(p[i]));
    writeln!(
        text,
        "        TileCost {{ algorithm: ConvAlgo::{name}, vectors: {vectors:?},\n            \
         product: {product}, strided: {strided}, present: {present}, odd: {odd}, input: {input}, copy: {copy}, output: {output}, far: {FAR:?}, row: {row}, pixel: {pixel}, call: {call},\n            \
         weight: [{}], again: {again}, tile: {tile}, few: [{}], few_tiles: {few_tiles} }},",
        list(SHARED),
        list(SHARED + WEIGHTS.len())
    )?;
    Ok(std::array::from_fn(|i| p[SHARED + i]))
}

/// Amounts of the columns of a measured row.
fn row(
    algorithm: ConvAlgo,
    size: Option<Winograd>,
    vectors: (Vectors, usize),
    seen: &Seen,
    weights: Weights,
) -> Vec<f64> {
    let (shape, model) = (&seen.shape, &seen.model);
    let cuts = cuts(shape);
    let tiles = cuts.iter().map(|c| [c.panels, c.k_len]);
    let panels = cuts.iter().map(|c| c.panels).max().unwrap_or(1);
    let made = !matches!(weights, Weights::Transformed | Weights::Transformed16);
    let calls = match size {
        Some(size) if made => {
            let cut = winograd::tile_cut(size, shape, panels, shape.out_h, 0);
            Calls::new(shape, tiles, Some(&cut))
        }
        Some(_) => Calls::ONE,
        None if model.joined => Calls::joined(shape),
        None => Calls::new(shape, tiles, None),
    };
    let w = cost::work(algorithm, vectors, shape, weights, calls, model.present);
    let skips = model.skips();
    // Only what skips zeros is paid for by what is there, and has copies; only the other one takes panels in pairs.
    let only = |yes: bool, amount: f64| if yes { amount } else { 0.0 };
    let mut row = vec![
        w.product,
        w.strided,
        only(skips, w.present),
        only(!skips, w.odd),
        w.input,
        only(skips, w.copy),
        w.output,
        w.far,
        w.row,
        w.pixel,
        w.call,
        w.again,
        w.tile,
    ];
    row.resize(SHARED + 2 * WEIGHTS.len(), 0.0);
    row[SHARED + weights as usize] = w.weight;
    row[SHARED + WEIGHTS.len() + weights as usize] = w.few;
    row
}

fn lists(text: &mut String, group: usize, seen: &[Seen], worst: f64) -> Result<()> {
    let name = match group {
        1 => "DirectSparse",
        2 => "BlockSparse2",
        _ => "BlockSparse4",
    };
    let rows: Vec<&Seen> = (seen.iter())
        .filter(|s| s.model.weights == Source::Lists && s.model.algorithm == name)
        .collect();
    let mut best: Option<(Vectors, Fit)> = None;
    for vectors in ways() {
        let equation = |s: &&Seen| {
            let w = cost::list_work(group, vectors, &s.shape, s.model.entries);
            (
                vec![
                    w.product, w.entry, w.list, w.tile, w.input, w.copy, w.strided, w.output,
                    w.far, w.row, w.again,
                ],
                s.ns,
            )
        };
        let fit = Equations {
            rows: rows.iter().map(equation).collect(),
        }
        .solve(&[]);
        if best.as_ref().is_none_or(|(_, old)| fit.score < old.score) {
            best = Some((vectors, fit));
        }
    }
    let found = best.filter(|_| !rows.is_empty());
    let (vectors, fit) = found.ok_or("lists: no measurement")?;
    let titles = rows.iter().map(|s| s.title.clone());
    report(&format!("lists of {group}"), titles, &fit.errors, worst);
    let [
        product,
        entry,
        list,
        tile,
        input,
        copy,
        strided,
        output,
        far,
        row,
        again,
    ] = std::array::from_fn(|i| fit.prices[i]);
    writeln!(
        text,
        "        ListCost {{ group: {group}, vectors: {vectors:?}, product: {}, entry: {}, list: {}, tile: {}, input: {}, copy: {}, strided: {}, output: {}, far: {}, row: {}, again: {} }},",
        price(product),
        price(entry),
        price(list),
        price(tile),
        price(input),
        price(copy),
        price(strided),
        price(output),
        price(far),
        price(row),
        price(again)
    )?;
    Ok(())
}

/// How kernels that skip zeros may take their pixels.
fn ways() -> Vec<Vectors> {
    const SIZES: [[usize; 3]; 9] = [
        [1, 1, 1],
        [2, 1, 1],
        [4, 2, 1],
        [4, 1, 1],
        [6, 4, 2],
        [8, 4, 2],
        [12, 8, 4],
        [12, 6, 3],
        [12, 6, 2],
    ];
    let least = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0];
    let of = |sizes: [usize; 3]| {
        least.map(|least| Vectors {
            lanes: 16,
            sizes,
            least,
        })
    };
    SIZES.into_iter().flat_map(of).collect()
}

/// Prices of linear layers: medians of what is left after the rows that came before.
fn linear_layers(text: &mut String, seen: &[(Model, f64, f64)]) -> Result<()> {
    let of = |source: Source, one: bool, ns: &dyn Fn(&Model, f64, f64) -> f64| -> Result<f64> {
        let rows = seen
            .iter()
            .filter(|(m, ..)| m.weights == source && (m.rows == 1) == one);
        let prices: Vec<f64> = rows.map(|(m, weights, t)| ns(m, *weights, *t)).collect();
        median(&prices).ok_or_else(|| format!("linear layers: no {source:?}").into())
    };
    let each = |_: &Model, weights: f64, t: f64| t / weights;
    let decoded = of(Source::Decoded, true, &each)?;
    let codes = of(Source::I8, true, &each)?;
    let float = of(Source::Float, true, &each)?;
    let lut = (of(Source::Lut, true, &each)? - codes).max(0.0);
    let further = |first: f64, amount: f64, m: &Model, t: f64| {
        (t / amount - first) / m.rows.saturating_sub(1).max(1) as f64
    };
    let more = of(Source::I8, false, &|m, weights, t| {
        further(codes, weights, m, t)
    })?
    .max(0.0);
    let entry = of(Source::Lists, true, &|m, _, t| t / m.entries as f64)?;
    let entry_more = of(Source::Lists, false, &|m, _, t| {
        further(entry, m.entries as f64, m, t)
    })?;
    writeln!(
        text,
        "    linear: LinearCost {{ decoded: {}, codes: {}, float: {}, lut: {}, further: {}, entry: {}, entry_further: {} }},",
        price(decoded),
        price(codes),
        price(float),
        price(lut),
        price(more),
        price(entry),
        price(entry_more.max(0.0))
    )?;
    Ok(())
}

fn fft(text: &mut String, seen: &[Seen], worst: f64) -> Result<()> {
    let rows = || seen.iter().filter(|s| s.model.weights == Source::Fft);
    let equations = rows().filter_map(|s| {
        let w = cost::fft_work(&s.shape)?;
        Some((vec![w.transform, w.product, w.output], s.ns))
    });
    let rows_of: Vec<_> = equations.collect();
    if rows_of.is_empty() {
        return Err("FFT: no measurement; bench fit needs the feature fft".into());
    }
    let fit = Equations { rows: rows_of }.solve(&[]);
    report("FFT", rows().map(|s| s.title.clone()), &fit.errors, worst);
    let [transform, product, output] = std::array::from_fn(|i| price(fit.prices[i]));
    writeln!(
        text,
        "    fft: FftCost {{ transform: {transform}, product: {product}, output: {output} }},"
    )?;
    Ok(())
}

/// A price with four digits.
fn price(ns: f64) -> String {
    if ns <= 1e-6 {
        return "0.0".into();
    }
    let digits = (3 - ns.log10().floor() as i32).clamp(1, 7) as usize;
    let text = format!("{ns:.digits$}");
    let text = text.trim_end_matches('0');
    if text.ends_with('.') {
        format!("{text}0")
    } else {
        text.into()
    }
}

/// Says how well a fit does.
fn report(name: &str, titles: impl Iterator<Item = String>, errors: &[f64], worst: f64) {
    let sizes: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    let middle = median(&sizes).unwrap_or(0.0);
    eprintln!(
        "{name}: {} rows, median error {:.1} %",
        errors.len(),
        100.0 * middle
    );
    for (title, error) in titles.zip(errors).filter(|(_, e)| 100.0 * e.abs() > worst) {
        eprintln!("    {:+.0} % {title}", 100.0 * error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_found_in_spite_of_an_outlier() {
        let mut rows: Vec<(Vec<f64>, f64)> = (1..40)
            .map(|i| {
                let row = vec![f64::from(i * i), f64::from(40 - i), f64::from(i % 5)];
                let ns = 2.0 * row[0] + 3.0 * row[1];
                (row, ns)
            })
            .collect();
        rows[7].1 *= 5.0;
        let equations = Equations { rows };
        let fit = equations.solve(&[]);
        let wanted = [2.0, 3.0, 0.0];
        for (found, wanted) in fit.prices.iter().zip(wanted) {
            assert!((found - wanted).abs() < 0.05, "{:?}", fit.prices);
        }
        // A price is not below the least one.
        assert_eq!(equations.solve(&[0.0, 0.0, 0.7]).prices[2], 0.7);
    }

    #[test]
    fn the_packed_product_comes_first_in_every_table() {
        for isa in Isa::available() {
            assert_eq!(cost::table(isa).tiles[0].algorithm, ConvAlgo::Gemm);
        }
    }

    #[test]
    fn prices_are_printed_as_numbers() {
        assert_eq!(price(0.0), "0.0");
        assert_eq!(price(0.012345), "0.01235");
        assert_eq!(price(3.0), "3.0");
        assert_eq!(price(1234.56), "1234.6");
    }
}
