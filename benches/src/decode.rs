//! `bench decode`: dense weights per second from coded tiles to i8 codes, and size against order-0 entropy.
//!
//! Synthetic layers (Gaussian or Laplacian weights, the smallest pruned, the rest on a symmetric grid) are coded in every
//! index mode and decoded tile by tile into one buffer, as the runtime does. Times are the best of many sweeps over the
//! layer, on one thread, wall clock: on a busy machine the best sweep is the least disturbed one. Two figures: tables built
//! beforehand, and with building the tables of the layer. Sizes are of all coded tiles, stream lengths included, plus the
//! stored tables.

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dcz_format::codec::{
    BuildSpace, CodeLengths, CodecError, CodecScratch, DecodeTable, LayerHistogram, ModeCost,
    TileCoding, TileEncoding, decode_tile, encode_tile,
};
use serde_json::json;

/// Options of `bench decode`.
#[derive(clap::Args)]
pub struct Args {
    /// Least time spent on each measurement, in milliseconds.
    #[arg(long, default_value_t = 300)]
    millis: u64,
    /// Decode a file instead: all layers of its first network.
    #[arg(long, value_name = "FILE.dcz", conflicts_with_all = ["case", "portable", "check"])]
    file: Option<std::path::PathBuf>,
    /// Only cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
    /// Measure the loops for any CPU, whatever this one has.
    #[arg(long)]
    portable: bool,
    /// One line of JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Fail when a case with a target misses it (speed, or size more than 2 % above entropy plus tables).
    #[arg(long)]
    check: bool,
}

/// A synthetic layer.
struct Case {
    name: &'static str,
    laplace: bool,
    /// Scale of the weights varies between panels, as in real layers (the sub-streams differ in density).
    uneven: bool,
    /// Share of weights pruned.
    zeros: f64,
    /// Width of a code; the grid has `2^bits - 1` levels.
    bits: u32,
    panels: usize,
    k_len: usize,
    tiles: usize,
    /// Mode and G weights/s that must be reached.
    target: Option<(&'static str, f64)>,
}

const CASES: &[Case] = &[
    case("gauss 50% 7b", false, 0.5, 7, Some(("raw mask", 1.0))),
    case("laplace 50% 7b", true, 0.5, 7, Some(("raw mask", 1.0))),
    case("gauss 75% 5b", false, 0.75, 5, Some(("coded mask", 2.0))),
    case("laplace 75% 5b", true, 0.75, 5, Some(("coded mask", 2.0))),
    case("laplace 90% 5b", true, 0.9, 5, None),
    Case {
        uneven: true,
        ..case("uneven 60% 6b", true, 0.6, 6, None)
    },
    case("gauss 0% 8b", false, 0.0, 8, None),
    Case {
        panels: 16,
        k_len: 128,
        tiles: 1,
        ..case("small 128x128", true, 0.5, 5, None)
    },
    Case {
        panels: 16,
        k_len: 9,
        tiles: 1,
        ..case("depthwise 128x9", true, 0.3, 7, None)
    },
];

/// A layer of 16 tiles of 64 Ki weights.
const fn case(
    name: &'static str,
    laplace: bool,
    zeros: f64,
    bits: u32,
    target: Option<(&'static str, f64)>,
) -> Case {
    Case {
        name,
        laplace,
        uneven: false,
        zeros,
        bits,
        panels: 8,
        k_len: 1024,
        tiles: 16,
        target,
    }
}

const MODES: [&str; 4] = ["dense", "raw mask", "coded mask", "gaps"];
const WIDTHS: [u8; 2] = [11, 12];
const GAP_BITS: u8 = 5;

struct Row {
    mode: &'static str,
    width: u8,
    bits_per_weight: f64,
    /// Size over (order-0 entropy + tables), minus 1.
    overhead: f64,
    build_us: f64,
    rate: f64,
    rate_with_build: f64,
}

/// Runs the measurements and prints them.
pub fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(file) = &args.file {
        return crate::decode_file::run(file, args.millis, args.json);
    }
    let (mut report, mut missed) = (Vec::new(), Vec::new());
    let wanted = |case: &&Case| {
        args.case
            .as_ref()
            .is_none_or(|name| case.name.contains(name.as_str()))
    };
    for case in CASES.iter().filter(wanted) {
        let layer = Layer::generate(case);
        if !args.json {
            let (weights, entropy) = (
                layer.weights(),
                layer.entropy_bits() / layer.weights() as f64,
            );
            println!(
                "{}: {} tiles, {weights} weights, order-0 entropy {entropy:.3} bits/weight",
                case.name, case.tiles
            );
            println!("  mode        width  bits/w   over   build us   G w/s  with build");
        }
        let mut best = None::<(f64, f64)>;
        for mode in MODES {
            for width in WIDTHS {
                let row = measure(&layer, mode, width, args)?;
                if !args.json {
                    println!(
                        "  {:<10}  {:>5}  {:>6.3}  {:>4.1}%  {:>8.1}  {:>6.2}  {:>10.2}",
                        row.mode,
                        row.width,
                        row.bits_per_weight,
                        row.overhead * 100.0,
                        row.build_us,
                        row.rate,
                        row.rate_with_build
                    );
                }
                if case.target.is_some_and(|(target, _)| target == mode)
                    && best.is_none_or(|best| row.rate_with_build > best.0)
                {
                    best = Some((row.rate_with_build, row.overhead));
                }
                report.push(json!({
                    "case": case.name, "mode": row.mode, "width": row.width, "weights": layer.weights(),
                    "bits_per_weight": row.bits_per_weight, "overhead": row.overhead, "build_us": row.build_us,
                    "gweights_per_s": row.rate, "gweights_per_s_with_build": row.rate_with_build,
                }));
            }
        }
        if let (Some((rate, overhead)), Some((mode, target))) = (best, case.target) {
            let met = rate >= target && overhead <= 0.02;
            if !args.json {
                let verdict = if met { "met" } else { "MISSED" };
                println!(
                    "  target: {mode} >= {target:.1} G w/s and <= 2 % over: {rate:.2}, {:.1} %: {verdict}",
                    overhead * 100.0
                );
            }
            if !met {
                missed.push(case.name);
            }
        }
    }
    if args.json {
        println!(
            "{}",
            json!({ "subject": "decode", "portable": args.portable, "rows": report, "missed": missed })
        );
    }
    Ok(if args.check && !missed.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Codes and masks of all tiles.
struct Layer {
    panels: usize,
    k_len: usize,
    codes: Vec<u8>,
    mask: Vec<u8>,
    histogram: LayerHistogram,
}

impl Layer {
    fn generate(case: &Case) -> Layer {
        let tile = case.panels * case.k_len * 8;
        let mut random = Random(0x00dc_0002);
        let mut weights = Vec::with_capacity(tile * case.tiles);
        for _ in 0..case.panels * case.tiles {
            let scale = if case.uneven {
                0.3 + 1.4 * random.unit()
            } else {
                1.0
            };
            for _ in 0..case.k_len * 8 {
                weights.push(
                    scale
                        * if case.laplace {
                            random.laplace()
                        } else {
                            random.gauss()
                        },
                );
            }
        }
        let mut sizes: Vec<f64> = weights.iter().map(|w| w.abs()).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        let threshold = sizes[((sizes.len() as f64 * case.zeros) as usize).min(sizes.len() - 1)];
        // The range is clipped at 1/2000 of the weights, so that one outlier does not set the step.
        let largest = sizes[sizes.len() - 1 - sizes.len() / 2000];
        let levels = f64::from((1u32 << (case.bits - 1)) - 1);
        let code = |w: f64| (w / largest * levels).round().clamp(-levels, levels) as i8 as u8;
        let mut codes = vec![0u8; weights.len()];
        let mut mask = vec![0u8; weights.len() / 8];
        for (i, (place, &weight)) in codes.iter_mut().zip(&weights).enumerate() {
            let code = code(weight);
            if weight.abs() >= threshold && code != 0 {
                *place = code;
                mask[i / 8] |= 1 << (i % 8);
            }
        }
        let mut histogram = LayerHistogram::new();
        for (codes, mask) in codes.chunks(tile).zip(mask.chunks(tile / 8)) {
            histogram.add_tile(codes, mask);
        }
        Layer {
            panels: case.panels,
            k_len: case.k_len,
            codes,
            mask,
            histogram,
        }
    }

    fn weights(&self) -> usize {
        self.codes.len()
    }

    fn entropy_bits(&self) -> f64 {
        let total = self.weights() as f64;
        let counts = self
            .histogram
            .all
            .iter()
            .filter(|count| **count > 0)
            .map(|count| *count as f64);
        counts.map(|count| count * (total / count).log2()).sum()
    }
}

/// A coded tile.
struct Coded {
    present: u32,
    bytes: Vec<u8>,
}

fn measure(layer: &Layer, mode: &'static str, width: u8, args: &Args) -> Result<Row, CodecError> {
    let cost = match mode {
        "dense" => layer.histogram.dense(width),
        "gaps" => layer.histogram.gaps(GAP_BITS, 0, width),
        _ => layer.histogram.mask(mode == "coded mask", width),
    };
    let tiles = encode(layer, mode, &cost)?;
    let (mut values, mut index) = (DecodeTable::new(width), DecodeTable::new(width));
    let mut space = BuildSpace::new(width);
    let mut build = |values: &mut DecodeTable, index: &mut DecodeTable| -> Result<(), CodecError> {
        values.build(&cost.values, width, &mut space)?;
        cost.index.as_ref().map_or(Ok(()), |lengths: &CodeLengths| {
            index.build(lengths, width, &mut space)
        })
    };
    let tile = layer.panels * layer.k_len * 8;
    let (mut codes, mut mask) = (vec![0u8; tile], vec![0u8; tile / 8]);
    let mut scratch = if args.portable {
        CodecScratch::portable(tile)
    } else {
        CodecScratch::new(tile)
    };
    let mut decode =
        |values: &DecodeTable, index: &DecodeTable, check: bool| -> Result<(), CodecError> {
            let coding = match mode {
                "dense" => TileCoding::Dense { values },
                "gaps" => TileCoding::Gaps {
                    bits: GAP_BITS,
                    gaps: index,
                    values,
                },
                _ => TileCoding::Mask {
                    mask: cost.index.is_some().then_some(index),
                    values,
                },
            };
            for (coded, plain) in tiles.iter().zip(layer.codes.chunks(tile)) {
                decode_tile(
                    &coding,
                    layer.panels,
                    layer.k_len,
                    coded.present,
                    0,
                    &coded.bytes,
                    &mut codes,
                    &mut mask,
                    &mut scratch,
                )?;
                black_box(&codes);
                assert!(!check || codes == plain, "{mode}: wrong codes");
            }
            Ok(())
        };

    build(&mut values, &mut index)?;
    decode(&values, &index, true)?;
    let least = Duration::from_millis(args.millis);
    let decode_time = best_of(least, || decode(&values, &index, false))?;
    let build_time = best_of(least / 10, || build(&mut values, &mut index))?;
    let with_build = best_of(least, || {
        build(&mut values, &mut index).and_then(|()| decode(&values, &index, false))
    })?;

    let tables = (cost.value_table_bits + cost.index_table_bits) as f64;
    let bits = tiles
        .iter()
        .map(|coded| coded.bytes.len() * 8)
        .sum::<usize>() as f64
        + tables;
    let weights = layer.weights() as f64;
    Ok(Row {
        mode,
        width,
        bits_per_weight: bits / weights,
        overhead: bits / (layer.entropy_bits() + tables) - 1.0,
        build_us: build_time.as_secs_f64() * 1e6,
        rate: weights / decode_time.as_secs_f64() / 1e9,
        rate_with_build: weights / with_build.as_secs_f64() / 1e9,
    })
}

fn encode(layer: &Layer, mode: &str, cost: &ModeCost) -> Result<Vec<Coded>, CodecError> {
    let tile = layer.panels * layer.k_len * 8;
    let values = &cost.values;
    let encoding = match (mode, cost.index.as_ref()) {
        ("gaps", Some(gaps)) => TileEncoding::Gaps {
            bits: GAP_BITS,
            gaps,
            values,
        },
        ("dense", _) => TileEncoding::Dense { values },
        (_, mask) => TileEncoding::Mask { mask, values },
    };
    let tiles = layer.codes.chunks(tile).zip(layer.mask.chunks(tile / 8));
    tiles
        .map(|(codes, mask)| {
            let mut bytes = Vec::new();
            let stats = encode_tile(
                &encoding,
                layer.panels,
                layer.k_len,
                codes,
                mask,
                0,
                &mut bytes,
            )?;
            Ok(Coded {
                present: stats.present,
                bytes,
            })
        })
        .collect()
}

/// The shortest run of `work`, repeated for at least `least` and five times.
fn best_of<E>(least: Duration, mut work: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    let (start, mut best, mut runs) = (Instant::now(), Duration::MAX, 0);
    while runs < 5 || start.elapsed() < least {
        let before = Instant::now();
        work()?;
        best = best.min(before.elapsed());
        runs += 1;
    }
    Ok(best.max(Duration::from_nanos(1)))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// Uniform over (0, 1].
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
    fn gauss(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
    fn laplace(&mut self) -> f64 {
        let size = -self.unit().ln();
        if self.unit() > 0.5 { size } else { -size }
    }
}
