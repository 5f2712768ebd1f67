//! What a program needs, which algorithm and which weights every step uses, and how many threads it gets.
//!
//! * **Candidates** ([`units`]): a layer can be computed by several algorithms, from weights that are decoded in every run
//!   or stay in memory as codes, as f32 or transformed. Each candidate has resident bytes, scratch that finds no hole in the
//!   arena, and a predicted time.
//! * **Selection** ([`select`]): scratch is shared by all steps, resident bytes add up. For every possible amount of
//!   scratch each layer starts with its candidate of fewest resident bytes and is upgraded in order of saved time per
//!   byte; the amount with the least total time wins. The smallest feasible budget ([`least`]) is exact, the choice is
//!   greedy in the knapsack of resident bytes only.
//! * **Error** ([`legal`]): an algorithm that rounds more than others is a candidate only if it may be used in every layer
//!   that could use it without the root of the sum of squares of its errors exceeding the session's limit.
//! * **Threads** come last: the choice is made again for more threads among candidates that keep its order of sums, and
//!   the number of threads with the least predicted time wins. So memory goes to threads where they save more than
//!   resident weights, and threads change no bit.

use crate::arena;
use crate::band;
use crate::cost::{self, Joined, Table};
use crate::error::{Error, ErrorKind};
use crate::fft;
use crate::liveness::{self, Room, Span};
use crate::plan::Memory;
use crate::program::{self, ConvWork, LinearWork, Program, Source, Step, Work};
use crate::resident::{self, ResidentForm};
use crate::weights::{self, LayerInfo};
use dcz_format::TileForm;
use dcz_format::graph::Network;
use dcz_format::layer::{Layer, PANEL};
use dcz_kernels::winograd::{self, Winograd};
use dcz_kernels::{ALGOS, ConvAlgo, ConvShape, sparse};
use std::ops::Range;

/// Multiply-adds that are worth waking another thread for.
const MACS_PER_THREAD: usize = 100_000;
/// Elements of simple operations that are worth waking another thread for.
const ELEMENTS_PER_THREAD: usize = 32_768;

/// Largest map, in pixels, on which threads take panels instead of rows.
const SMALL_MAP: usize = 256;
/// Most elements of the output of a tile that a thread keeps to itself.
const PANEL_SCRATCH: usize = 16_384;
/// The same for a thread's share of a layer with transformed weights.
const SHARE_SCRATCH: usize = 65_536;

/// Differences of predicted times that mean nothing.
const NOISE: f64 = 0.04;

/// One way to compute a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Algorithm of its convolutions.
    pub algorithm: Option<ConvAlgo>,
    /// How its weights are kept; none: decoded in every run.
    pub form: Option<ResidentForm>,
    /// Bytes kept between runs.
    pub resident: u64,
    /// How much of the scratch that it wants it gets.
    pub level: usize,
    /// Bytes of scratch of all threads that find no place in the arena.
    pub scratch: u64,
    /// Predicted time of all steps of the layer.
    pub ms: f64,
}

/// How a convolution is computed: its algorithm, how weights are kept, and how much of the scratch that it wants it gets.
type With = (ConvAlgo, Option<ResidentForm>, usize);

/// A layer with weights, the steps that use it, and its candidates.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub layer: usize,
    pub steps: Vec<usize>,
    pub candidates: Vec<Candidate>,
}

/// The layers of a program with all their candidates, their scratch being that of `threads` threads together.
pub(crate) fn units(
    program: &Program,
    network: &Network,
    layers: &[LayerInfo],
    max_error: f32,
    threads: usize,
    costs: &Table,
) -> Vec<Unit> {
    let mut steps: Vec<Vec<usize>> = vec![Vec::new(); network.layers.len()];
    for (index, step) in program.steps.iter().enumerate() {
        if let Some(list) = layer_of(&step.work).and_then(|layer| steps.get_mut(layer)) {
            list.push(index);
        }
    }
    let whole = |layer: usize| {
        let whole = |l: &Layer| {
            l.tiles
                .iter()
                .all(|t| t.k == 0 && t.k_len as usize == l.shape.k())
        };
        network.layers.get(layer).is_some_and(whole)
    };
    let steps_support = |layer: usize, supports: fn(&ConvShape) -> bool| {
        steps[layer].iter().all(|&step| {
            let work = program.steps.get(step).map(|s| &s.work);
            matches!(work, Some(Work::Conv(w)) if supports(&w.shape))
        })
    };
    let winograd = |layer| whole(layer) && steps_support(layer, winograd::supports);
    // Transformed for one size of map.
    let by_fft = |layer: usize| steps[layer].len() == 1 && steps_support(layer, fft::supports);
    let transformable = |layer| winograd(layer) || by_fft(layer);
    let rooms = program.rooms();
    let used = |layer: &usize| !steps[*layer].is_empty();
    let sharing = (0..steps.len()).filter(used).filter(|&l| transformable(l));
    let sharing = sharing.count();
    let mut units = Vec::new();
    for (index, (layer, info)) in network.layers.iter().zip(layers).enumerate() {
        if !used(&index) {
            continue;
        }
        let job = |&at: &usize| {
            let step = program.steps.get(at)?;
            let strips = Strips::of(program, at);
            let parts = worth(step, network, strips).clamp(1, threads.max(1));
            Some(Job {
                work: &step.work,
                parts,
                strips,
                room: *rooms.get(at)?,
            })
        };
        let works: Vec<Job<'_>> = steps[index].iter().filter_map(job).collect();
        let (winograd, by_fft) = (winograd(index), by_fft(index));
        let allowed = |algorithm: ConvAlgo| {
            let possible = match algorithm {
                ConvAlgo::Fft => by_fft,
                other => cost::transform(other).is_none() || winograd,
            };
            possible && legal(algorithm, sharing, max_error)
        };
        units.push(Unit {
            layer: index,
            candidates: candidates(
                &works,
                (layer, info),
                &allowed,
                whole(index),
                program.arena,
                costs,
            ),
            steps: steps[index].clone(),
        });
    }
    units
}

/// A step as candidates see it: on how many threads, and whether a band computes it.
#[derive(Clone, Copy)]
struct Job<'a> {
    work: &'a Work,
    parts: usize,
    strips: Option<Strips>,
    /// Where its scratch can lie.
    room: Room,
}

/// How a band computes a step.
#[derive(Clone, Copy)]
struct Strips {
    /// Most rows of a call.
    rows: usize,
    /// Calls per run and image.
    calls: usize,
    /// Calls begin at multiples of this.
    align: usize,
}

impl Strips {
    fn of(program: &Program, step: usize) -> Option<Strips> {
        let (band, index) = program.band(step)?;
        Some(Strips {
            rows: band.rows.get(index).copied().unwrap_or(1),
            calls: band.strips,
            align: band::align(band.strip),
        })
    }

    /// The rows of a call as a layer of their own.
    fn shape(rows: usize, shape: &ConvShape) -> ConvShape {
        let inputs = rows.saturating_sub(1) * shape.stride[0]
            + shape.kernel[0].saturating_sub(1) * shape.dilation[0]
            + 1;
        ConvShape {
            in_h: inputs.min(shape.in_h),
            out_h: rows.min(shape.out_h),
            ..*shape
        }
    }

    /// Tiles of Winograd are not cut by calls.
    fn allows(&self, algorithm: ConvAlgo) -> bool {
        cost::transform(algorithm).is_none_or(|size| self.align.is_multiple_of(size.tile()))
    }
}

/// Whether an algorithm may be used in all of `layers` layers: errors of layers are independent, so their squares add up.
fn legal(algorithm: ConvAlgo, layers: usize, max_error: f32) -> bool {
    cost::error(algorithm) * (layers as f64).sqrt() <= f64::from(max_error)
}

/// The layer whose weights a step needs.
pub(crate) fn layer_of(work: &Work) -> Option<usize> {
    match work {
        Work::Conv(work) => Some(work.layer),
        Work::Linear(work) => Some(work.layer),
        _ => None,
    }
}

/// All ways to compute a layer for these steps, whose tiles may be of `whole` panels; scratch that finds no place within
/// `arena` elements counts.
fn candidates(
    works: &[Job<'_>],
    (layer, info): (&Layer, &LayerInfo),
    allowed: &dyn Fn(ConvAlgo) -> bool,
    whole: bool,
    arena: usize,
    costs: &Table,
) -> Vec<Candidate> {
    let any_conv = works.iter().any(|j| matches!(j.work, Work::Conv(_)));
    let algorithms: Vec<Option<ConvAlgo>> = if any_conv {
        let all = ALGOS.iter().map(|a| a.algo).chain([ConvAlgo::Fft]);
        all.map(Some).collect()
    } else {
        vec![None]
    };
    let decode = cost::decode(layer);
    let mut list = Vec::new();
    for algorithm in algorithms {
        if algorithm.is_some_and(|a| !allowed(a)) {
            continue;
        }
        let mut forms = vec![None, Some(ResidentForm::Codes)];
        if info.form != TileForm::F32 {
            forms.push(Some(ResidentForm::Float));
        }
        if let Some(size) = algorithm.and_then(cost::transform) {
            forms.push(Some(ResidentForm::Winograd(size)));
            if resident::fits_16(size, layer, info) {
                forms.push(Some(ResidentForm::Winograd16(size)));
            }
        }
        if let (
            Some(ConvAlgo::Fft),
            [
                Job {
                    work: Work::Conv(work),
                    strips: None,
                    ..
                },
            ],
        ) = (algorithm, works)
        {
            forms = vec![Some(ResidentForm::Fft(work.shape))];
        }
        // The order of sums is that of sparse convolutions.
        if algorithm.is_none() && allowed(ConvAlgo::DirectSparse) {
            forms.push(Some(ResidentForm::LinearLists));
        }
        if let (
            Some(group),
            [
                Job {
                    work: Work::Conv(work),
                    strips: None,
                    ..
                },
            ],
        ) = (algorithm.and_then(cost::group), works)
            && whole
            && sparse::supports_resident(&work.shape)
            && cost::worth_listing(layer.shape.weights(), group, info.entries(group))
        {
            forms.push(Some(ResidentForm::Lists(group, work.shape)));
        }
        for form in forms {
            let mut fewest = u64::MAX;
            for level in 0..levels(algorithm, form) {
                let mut total = (0.0, 0u64);
                let possible = works.iter().all(|job| {
                    let needs = match (job.work, algorithm) {
                        (Work::Conv(work), Some(algorithm)) => {
                            let with = (algorithm, form, level);
                            conv_needs(work, with, (layer, info), job, costs)
                        }
                        (Work::Linear(work), _) => linear_needs(work, form, (layer, info), costs),
                        _ => None,
                    };
                    let Some((ms, scratch)) = needs else {
                        return false;
                    };
                    total.0 += ms + if form.is_none() { decode } else { 0.0 };
                    let tiles = decoded(algorithm, (form, level), job.strips, layer);
                    let need = of_threads(scratch, job.parts) + of_threads(tiles, job.parts);
                    let place = job.room.place(need);
                    let beyond = place.range().end.saturating_sub(arena);
                    total.1 = total.1.max(f32s(beyond));
                    true
                });
                // A level that needs no less is only slower.
                if possible && total.1 < fewest {
                    fewest = total.1;
                    list.push(Candidate {
                        algorithm,
                        form,
                        level,
                        resident: form.map_or(0, |form| resident::bytes(layer, info, form)),
                        scratch: total.1,
                        ms: total.0,
                    });
                }
            }
        }
    }
    // With one tap the others are the pointwise product with a detour, which prices fitted to many taps, or to inputs that lie in no
    // cache, do not know: gemm packs its input, and made MobileFaceNet 5 % slower where it was priced lower.
    let one_tap = |job: &Job| matches!(job.work, Work::Conv(work) if work.shape.taps() == 1);
    let one_tap = works.iter().all(one_tap);
    let pointwise = (list.iter()).any(|c| c.algorithm == Some(ConvAlgo::Pointwise));
    let plain = match pointwise {
        true => ConvAlgo::Pointwise,
        false => ConvAlgo::Gemm,
    };
    // With the least scratch that it can do with.
    let packed: Vec<Candidate> = (list.iter().enumerate())
        .filter(|(i, c)| {
            let mut after = list.iter().skip(i + 1);
            c.algorithm == Some(plain)
                && !after.any(|d| (d.algorithm, d.form) == (c.algorithm, c.form))
        })
        .map(|(_, c)| *c)
        .collect();
    let detour = |a| a != plain && (a == ConvAlgo::Gemm || cost::SELDOM.contains(&a));
    list.retain(|c| {
        let beaten = |p: &Candidate| p.form == c.form && (one_tap || p.ms <= c.ms);
        !c.algorithm.is_some_and(detour) || !packed.iter().any(beaten)
    });
    list
}

/// How many amounts of scratch there are to choose from.
fn levels(algorithm: Option<ConvAlgo>, form: Option<ResidentForm>) -> usize {
    match algorithm {
        Some(algorithm) if cost::transform(algorithm).is_some() => winograd::LEVELS,
        // Neighbouring tiles together, or one at a time.
        Some(algorithm) if dcz_kernels::joins(algorithm) && form.is_none() => 2,
        _ => 1,
    }
}

/// Whether neighbouring tiles are computed together that are not resident.
fn joins(algorithm: Option<ConvAlgo>, level: usize) -> bool {
    algorithm.is_some_and(dcz_kernels::joins) && level == 0
}

/// Whether a step of a program computes neighbouring tiles together.
pub(crate) fn joined(work: &ConvWork, step: &Step, program: &Program) -> bool {
    let resident = step.source.resident.and_then(|r| program.residents.get(r));
    match resident.map(|r| r.form) {
        None => joins(Some(work.algorithm), work.level),
        Some(ResidentForm::Codes | ResidentForm::Float) => dcz_kernels::joins(work.algorithm),
        Some(_) => false,
    }
}

/// How the kernels see the weights.
fn tile_form(form: Option<ResidentForm>, info: &LayerInfo) -> TileForm {
    match form {
        Some(ResidentForm::Float) => TileForm::F32,
        _ => info.form,
    }
}

/// Predicted time without decoding, and elements of scratch of a thread.
fn conv_needs(
    work: &ConvWork,
    (algorithm, form, level): With,
    (layer, info): (&Layer, &LayerInfo),
    job: &Job<'_>,
    costs: &Table,
) -> Option<(f64, usize)> {
    let (mut shape, mut images) = (work.shape, work.images);
    if let Some(strips) = &job.strips {
        if !strips.allows(algorithm) {
            return None;
        }
        // All calls together compute every row once.
        shape = Strips::shape(work.shape.out_h.div_ceil(strips.calls), &work.shape);
        images *= strips.calls;
    }
    if algorithm != ConvAlgo::Fft && !dcz_kernels::supports(algorithm, &shape) {
        return None;
    }
    let ms = match form {
        Some(ResidentForm::Fft(shape)) => cost::fft(costs, &shape, images)?,
        _ if algorithm == ConvAlgo::Fft => return None,
        Some(ResidentForm::Winograd(_) | ResidentForm::Winograd16(_)) => {
            let narrow = matches!(form, Some(ResidentForm::Winograd16(_)));
            cost::transformed(costs, algorithm, &shape, images, narrow, level)?
        }
        Some(ResidentForm::Lists(group, shape)) => {
            cost::lists(costs, group, &shape, images, info.entries(group))?
        }
        _ => {
            let joined = match form {
                Some(_) => Joined::All,
                None if joins(Some(algorithm), level) => Joined::Runs,
                None => Joined::No,
            };
            let form = tile_form(form, info);
            let cut = cost::transform(algorithm).map(|size| {
                let panels = layer.tiles.iter().map(|t| t.panels as usize).max();
                let cut = winograd::tile_cut(
                    size,
                    &shape,
                    panels.unwrap_or(1),
                    shape.out_h.div_ceil(job.parts),
                    level,
                );
                (cut, cost::level_factor(level))
            });
            {
                let form = (form, joined);
                cost::conv(costs, algorithm, &shape, images, layer, form, info, cut)?
            }
        }
    };
    let with = (algorithm, form, level);
    Some((ms, conv_scratch(work, with, layer, job.parts, job.strips)))
}

/// Elements of the tiles that a thread decodes while it computes; bands have decoded theirs before.
fn decoded(
    algorithm: Option<ConvAlgo>,
    (form, level): (Option<ResidentForm>, usize),
    strips: Option<Strips>,
    layer: &Layer,
) -> usize {
    match (form, strips) {
        (None, None) => weights::run_len(layer, joins(algorithm, level)),
        _ => 0,
    }
}

/// Elements of the scratch of all threads.
fn of_threads(scratch: usize, threads: usize) -> usize {
    liveness::round(scratch).saturating_mul(threads)
}

fn linear_needs(
    work: &LinearWork,
    form: Option<ResidentForm>,
    (layer, info): (&Layer, &LayerInfo),
    costs: &Table,
) -> Option<(f64, usize)> {
    let ms = match form {
        Some(ResidentForm::LinearLists) => cost::linear_lists(costs, info.entries(1), work.rows),
        Some(ResidentForm::Codes | ResidentForm::Float) | None => {
            let form_in = tile_form(form, info);
            cost::linear(costs, layer, form_in, form.is_some(), work.rows)
        }
        Some(_) => return None,
    };
    Some((ms, linear_scratch(form, layer)))
}

fn f32s(len: usize) -> u64 {
    (len as u64).saturating_mul(size_of::<f32>() as u64)
}

/// Bytes of the cheapest choice: exact.
pub(crate) fn least(units: &[Unit]) -> u64 {
    let options = thresholds(units).into_iter().filter_map(|scratch| {
        let fewest = |unit: &Unit| {
            let fitting = unit.candidates.iter().filter(|c| c.scratch <= scratch);
            fitting.map(|c| c.resident).min()
        };
        let resident: Option<u64> = units.iter().map(fewest).sum();
        Some(scratch + resident?)
    });
    options.min().unwrap_or(0)
}

/// All amounts of scratch that a choice can have.
fn thresholds(units: &[Unit]) -> Vec<u64> {
    let scratch = units.iter().flat_map(|u| &u.candidates).map(|c| c.scratch);
    let mut list: Vec<u64> = scratch.collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// The candidate of every unit, within `room` bytes; `None` when nothing fits.
pub(crate) fn select(units: &[Unit], room: Option<u64>) -> Option<Vec<usize>> {
    let fastest: Option<Vec<usize>> = units.iter().map(fastest).collect();
    let Some(room) = room else {
        return fastest;
    };
    // Greedy upgrades do not always find what no budget would choose, where it fits.
    let mut best = fastest.and_then(|choice| {
        let chosen = || {
            units
                .iter()
                .zip(&choice)
                .filter_map(|(u, &i)| u.candidates.get(i))
        };
        let resident = chosen().map(|c| c.resident).fold(0, u64::saturating_add);
        let scratch = chosen().map(|c| c.scratch).max().unwrap_or(0);
        let ms = chosen().map(|c| c.ms).sum::<f64>();
        (resident.saturating_add(scratch) <= room).then_some((ms, choice))
    });
    for scratch in thresholds(units) {
        let Some(rest) = room.checked_sub(scratch) else {
            break;
        };
        if let Some((ms, choice)) = upgrade(units, scratch, rest)
            && best.as_ref().is_none_or(|(least, _)| ms < *least)
        {
            best = Some((ms, choice));
        }
    }
    best.map(|(_, choice)| choice)
}

/// The fastest candidate; of those that the prediction cannot tell apart from it, the one that keeps least. Decoding in every
/// run is real work, however little. Scratch does not count: how much of it finds a place in the arena depends on the batch,
/// on which this choice must not depend.
fn fastest(unit: &Unit) -> Option<usize> {
    let candidate = |i: usize| unit.candidates[i];
    let all = 0..unit.candidates.len();
    let least = all
        .clone()
        .map(|i| candidate(i).ms)
        .fold(f64::MAX, f64::min);
    let equal = |c: Candidate| c.form.is_some() && c.ms <= least * (1.0 + NOISE);
    all.filter(|&i| candidate(i).ms <= least || equal(candidate(i)))
        .min_by(|&a, &b| {
            let (a, b) = (candidate(a), candidate(b));
            a.resident.cmp(&b.resident).then(a.ms.total_cmp(&b.ms))
        })
}

/// One step on a unit's way from few resident bytes to little time.
struct Upgrade {
    unit: usize,
    candidate: usize,
    bytes: u64,
    saved: f64,
}

/// The choice for a given amount of scratch and bytes for residents, with its time.
fn upgrade(units: &[Unit], scratch: u64, room: u64) -> Option<(f64, Vec<usize>)> {
    let mut choice = Vec::with_capacity(units.len());
    let mut upgrades = Vec::new();
    let (mut left, mut total) = (room, 0.0);
    for (index, unit) in units.iter().enumerate() {
        let frontier = frontier(unit, scratch);
        let first = *frontier.first()?;
        let base = unit.candidates[first];
        left = left.checked_sub(base.resident)?;
        total += base.ms;
        choice.push(first);
        for pair in frontier.windows(2) {
            let [from, to] = [pair[0], pair[1]].map(|i| unit.candidates[i]);
            upgrades.push(Upgrade {
                unit: index,
                candidate: pair[1],
                bytes: to.resident - from.resident,
                saved: from.ms - to.ms,
            });
        }
    }
    upgrades.sort_by(|a, b| {
        let rate = |u: &Upgrade| u.saved / u.bytes as f64;
        rate(b).total_cmp(&rate(a))
    });
    let mut closed = vec![false; units.len()];
    for u in &upgrades {
        // A frontier is convex: a later upgrade of the same unit presumes the earlier ones.
        if closed[u.unit] || u.bytes > left {
            closed[u.unit] = true;
            continue;
        }
        left -= u.bytes;
        total -= u.saved;
        choice[u.unit] = u.candidate;
    }
    // What is left may still pay for a candidate off the frontier.
    for (index, unit) in units.iter().enumerate() {
        let now = unit.candidates[choice[index]];
        let better = (0..unit.candidates.len()).filter(|&i| {
            let c = unit.candidates[i];
            c.scratch <= scratch && c.ms < now.ms && c.resident <= now.resident + left
        });
        let best = better.min_by(|&a, &b| {
            let [a, b] = [a, b].map(|i| unit.candidates[i].ms);
            a.total_cmp(&b)
        });
        if let Some(best) = best {
            let then = unit.candidates[best];
            left = left + now.resident - then.resident;
            total += then.ms - now.ms;
            choice[index] = best;
        }
    }
    Some((total, choice))
}

/// Candidates that fit into the scratch, by resident bytes, each faster than those before, saving less and less time per
/// byte.
fn frontier(unit: &Unit, scratch: u64) -> Vec<usize> {
    let candidate = |i: usize| unit.candidates[i];
    let mut order: Vec<usize> = (0..unit.candidates.len())
        .filter(|&i| candidate(i).scratch <= scratch)
        .collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (candidate(a), candidate(b));
        a.resident.cmp(&b.resident).then(a.ms.total_cmp(&b.ms))
    });
    let mut hull: Vec<usize> = Vec::new();
    for i in order {
        let c = candidate(i);
        if hull.last().is_some_and(|&last| candidate(last).ms <= c.ms) {
            continue;
        }
        while let [.., a, b] = hull[..] {
            let (a, b) = (candidate(a), candidate(b));
            let rate = |from: Candidate, to: Candidate| {
                (from.ms - to.ms) / (to.resident - from.resident) as f64
            };
            if rate(a, b) >= rate(b, c) {
                break;
            }
            hull.pop();
        }
        hull.push(i);
    }
    hull
}

/// Leaves only candidates whose order of sums is that of the choice made for one thread.
pub(crate) fn keep_sums(units: &mut [Unit], single: &[Unit], choice: &[usize]) {
    let sums = |c: &Candidate| {
        let entry = ALGOS.iter().find(|a| Some(a.algo) == c.algorithm);
        (
            entry.map(|a| a.sums),
            c.form == Some(ResidentForm::LinearLists),
        )
    };
    for ((unit, single), &chosen) in units.iter_mut().zip(single).zip(choice) {
        let wanted = single.candidates.get(chosen).map(sums);
        unit.candidates.retain(|c| Some(sums(c)) == wanted);
    }
}

/// Predicted time of a choice on so many threads.
pub(crate) fn time(units: &[Unit], choice: &[usize], threads: usize) -> f64 {
    let chosen = units.iter().zip(choice);
    let ms = chosen.filter_map(|(unit, &i)| unit.candidates.get(i).map(|c| c.ms));
    // Threads wait for each other now and then.
    ms.sum::<f64>() / (threads as f64).powf(0.9)
}

/// Writes a choice into the program.
pub(crate) fn apply(program: &mut Program, units: &[Unit], choice: &[usize]) {
    program.residents = Vec::with_capacity(units.len());
    for step in &mut program.steps {
        step.source = Source {
            resident: None,
            ms: cost::elements(step.output.len()),
        };
    }
    for (unit, &chosen) in units.iter().zip(choice) {
        let Some(candidate) = unit.candidates.get(chosen) else {
            continue;
        };
        let resident = candidate.form.map(|form| {
            program.residents.push(program::Resident {
                layer: unit.layer,
                form,
                bytes: candidate.resident,
            });
            program.residents.len() - 1
        });
        for &index in &unit.steps {
            if let Some(step) = program.steps.get_mut(index) {
                if let (Work::Conv(work), Some(algorithm)) = (&mut step.work, candidate.algorithm) {
                    work.algorithm = algorithm;
                    work.level = candidate.level;
                }
                step.source = Source {
                    resident,
                    ms: candidate.ms / unit.steps.len() as f64,
                };
            }
        }
    }
}

/// Bytes of the weights that a program keeps.
pub(crate) fn resident_bytes(program: &Program) -> u64 {
    program.residents.iter().map(|r| r.bytes).sum()
}

/// How many threads a step is worth.
fn worth(step: &Step, network: &Network, strips: Option<Strips>) -> usize {
    let elements = step.output.len() / strips.map_or(1, |s| s.calls.max(1));
    let layer = |index: usize| network.layers.get(index).map_or(1, |l| l.shape.k());
    match &step.work {
        Work::Conv(work) => elements.saturating_mul(layer(work.layer)) / MACS_PER_THREAD,
        Work::Linear(work) => elements.saturating_mul(layer(work.layer)) / MACS_PER_THREAD,
        Work::Pool(shape) => elements * shape.kernel[0] * shape.kernel[1] / ELEMENTS_PER_THREAD,
        Work::Function(_) | Work::Resize(_) | Work::Rows(_) => elements / ELEMENTS_PER_THREAD,
        _ => 1,
    }
}

/// Gives every step the number of threads it is worth, at most `threads`.
pub(crate) fn assign_threads(program: &mut Program, network: &Network, threads: usize) {
    let strips: Vec<Option<Strips>> = (0..program.steps.len())
        .map(|step| Strips::of(program, step))
        .collect();
    let residents = &program.residents;
    for (step, strips) in program.steps.iter_mut().zip(strips) {
        step.threads = worth(step, network, strips).clamp(1, threads.max(1));
        let form = step.source.resident.and_then(|r| residents.get(r));
        if let Work::Conv(work) = &mut step.work {
            let layer = network.layers.get(work.layer);
            let form = form.map(|r| r.form);
            let with = (work.algorithm, form, work.level);
            let panels = |layer| by_panels(work, with, layer, step.threads);
            work.by_panels = strips.is_none() && layer.is_some_and(panels);
        }
    }
}

/// Whether threads take panels of a convolution instead of rows: on small maps a thread's share of
/// the rows fills register tiles badly, and every thread would expand all weights. Each thread
/// then computes whole panels into its scratch. Changes no bit.
fn by_panels(work: &ConvWork, with: With, layer: &Layer, threads: usize) -> bool {
    let (_, form, _) = with;
    if matches!(form, Some(ResidentForm::Fft(_) | ResidentForm::Lists(..))) {
        return false;
    }
    let pixels = work.shape.out_h * work.shape.out_w;
    let (panels, most) = match form.and_then(ResidentForm::transform) {
        Some(_) => (work.shape.panels(), SHARE_SCRATCH),
        None => {
            let own = own_runs(with, layer);
            let starts = own.filter(|run| layer.tiles.get(run.start).is_some_and(|t| t.k == 0));
            (starts.count(), PANEL_SCRATCH)
        }
    };
    threads > 1
        && work.shape.groups == 1
        && pixels <= SMALL_MAP
        && panels >= 2 * threads
        && panel_scratch(work, with, layer, threads) <= most
}

/// The tiles that a thread takes at a time.
fn own_runs(
    (algorithm, form, level): With,
    layer: &Layer,
) -> impl Iterator<Item = Range<usize>> + use<'_> {
    weights::runs(layer, form.is_none() && joins(Some(algorithm), level))
}

/// Elements of output that a thread keeps to itself: of the largest run of tiles, or of its share of the
/// panels.
fn panel_scratch(work: &ConvWork, with: With, layer: &Layer, threads: usize) -> usize {
    let (_, form, _) = with;
    let panels = match form.and_then(ResidentForm::transform) {
        Some(_) => work.shape.panels().div_ceil(threads),
        None => {
            let panels = own_runs(with, layer).map(|run| weights::run_panels(layer, run));
            panels.max().unwrap_or(0)
        }
    };
    let pixels = work
        .images
        .saturating_mul(work.shape.out_h * work.shape.out_w);
    pixels.saturating_mul(panels * PANEL)
}

/// f32 elements of scratch of one of `threads` threads of a convolution.
fn conv_scratch(
    work: &ConvWork,
    with: With,
    layer: &Layer,
    threads: usize,
    strips: Option<Strips>,
) -> usize {
    let (algorithm, ..) = with;
    let unit = cost::transform(algorithm).map_or(1, Winograd::tile);
    if let Some(strips) = strips {
        // Calls differ in rows, and scratch need not grow with them.
        let call = |rows: usize| {
            let shape = Strips::shape(rows, &work.shape);
            let share = share_of_rows(rows, unit, threads).min(rows);
            kernel_scratch(&shape, with, layer, work.shape.panels(), share)
        };
        return (1..=strips.rows).map(call).max().unwrap_or(0);
    }
    let shape = &work.shape;
    let panels = shape.panels();
    if by_panels(work, with, layer, threads) {
        let panels = panels.div_ceil(threads);
        let kernel = kernel_scratch(shape, with, layer, panels, shape.out_h);
        return kernel.saturating_add(panel_scratch(work, with, layer, threads));
    }
    let rows = share_of_rows(work.images * shape.out_h, unit, threads).min(shape.out_h);
    kernel_scratch(shape, with, layer, panels, rows)
}

/// f32 elements that a kernel needs for calls of `rows` rows; transformed weights come `panels` panels at a time.
fn kernel_scratch(
    shape: &ConvShape,
    (algorithm, form, level): With,
    layer: &Layer,
    panels: usize,
    rows: usize,
) -> usize {
    if let Some(ResidentForm::Fft(shape)) = form {
        let load = resident::load_scratch(ResidentForm::Fft(shape), layer);
        return fft::needs(&shape).map_or(0, |needs| needs.run.max(load));
    }
    if let Some(ResidentForm::Lists(group, whole)) = form {
        let load = resident::load_scratch(ResidentForm::Lists(group, whole), layer);
        return sparse::run_workspace(&whole, panels, rows).max(load);
    }
    if let Some((form, size)) = form.and_then(|form| Some((form, form.transform()?))) {
        let run = winograd::workspace(size, shape, panels, rows, level);
        return run.max(resident::load_scratch(form, layer));
    }
    let runs = weights::runs(layer, form.is_none() && joins(Some(algorithm), level));
    let scratch = runs.map(|run| {
        let own = weights::run_panels(layer, run);
        match cost::transform(algorithm) {
            Some(size) => winograd::tile_cut(size, shape, own, rows, level).scratch,
            // Kept tiles are there together.
            None if form.is_some() && dcz_kernels::joins(algorithm) => {
                let joined = panels.min(dcz_kernels::JOINED).max(own);
                dcz_kernels::workspace(algorithm, shape, joined, rows)
            }
            None => dcz_kernels::workspace(algorithm, shape, own, rows),
        }
    });
    scratch.max().unwrap_or(0)
}

/// The largest share of `rows` rows that are dealt out in whole units.
fn share_of_rows(rows: usize, unit: usize, threads: usize) -> usize {
    let units = rows.div_ceil(unit);
    units.div_ceil(threads.max(1)).saturating_mul(unit)
}

fn linear_scratch(form: Option<ResidentForm>, layer: &Layer) -> usize {
    if form == Some(ResidentForm::LinearLists) {
        return resident::load_scratch(ResidentForm::LinearLists, layer);
    }
    let tiles = layer.tiles.iter();
    let scratch = tiles.map(|t| dcz_kernels::linear_workspace(t.panels as usize, t.k_len as usize));
    scratch.max().unwrap_or(0)
}

/// The scratch of every step when steps run on at most `threads` threads, and how much of it is for decoded tiles.
fn scratch(program: &Program, network: &Network, threads: usize) -> Vec<(Span, usize)> {
    let rooms = program.rooms();
    let places = rooms.iter().zip(program.steps.iter().enumerate());
    let places = places.map(|(room, (index, step))| {
        let parts = step.threads.min(threads).max(1);
        let strips = Strips::of(program, index);
        let layer = |index: usize| network.layers.get(index);
        let resident = step.source.resident.and_then(|r| program.residents.get(r));
        let form = resident.map(|r| r.form);
        let need = match &step.work {
            Work::Conv(work) => layer(work.layer).map_or(0, |layer| {
                let with = (work.algorithm, form, work.level);
                conv_scratch(work, with, layer, parts, strips)
            }),
            Work::Linear(work) => layer(work.layer).map_or(0, |layer| linear_scratch(form, layer)),
            _ => 0,
        };
        let layer = layer_of(&step.work).and_then(layer);
        let (algorithm, level) = match &step.work {
            Work::Conv(work) => (Some(work.algorithm), work.level),
            _ => (None, 0),
        };
        let of_layer = |layer| decoded(algorithm, (form, level), strips, layer);
        let tiles = layer.map_or(0, of_layer);
        let tiles = of_threads(tiles, parts);
        (room.place(of_threads(need, parts) + tiles), tiles)
    });
    places.collect()
}

/// f32 elements that scratch needs behind the arena when steps run on at most `threads` threads.
pub(crate) fn tail(program: &Program, network: &Network, threads: usize) -> usize {
    let places = scratch(program, network, threads);
    beyond(program, &places)
}

fn beyond(program: &Program, places: &[(Span, usize)]) -> usize {
    let beyond = places.iter().map(|(place, _)| program.beyond(*place));
    beyond.max().unwrap_or(0)
}

/// Gives every step its scratch.
pub(crate) fn assign_scratch(program: &mut Program, network: &Network, threads: usize) {
    let places = scratch(program, network, threads);
    program.tail = beyond(program, &places);
    for (step, place) in program.steps.iter_mut().zip(places) {
        (step.scratch, step.tiles) = place;
    }
}

/// The parts of a session's memory that do not depend on the number of threads, and those of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed {
    /// Constants, look-up tables and layer records kept by the session.
    pub constants: u64,
    pub tables: u64,
    /// Programs and plans in the cache.
    pub plans: u64,
    /// One decoder.
    pub decoder: u64,
}

impl Fixed {
    /// Memory with `threads` threads, `resident` bytes of weights, and `tail` elements of scratch behind the arena.
    pub(crate) fn memory(
        &self,
        arena: usize,
        tail: usize,
        resident: u64,
        threads: usize,
    ) -> Memory {
        let n = threads as u64;
        Memory {
            arena: f32s(arena),
            decode: self.decoder * n,
            workspace: f32s(tail),
            resident,
            constants: self.constants,
            tables: self.tables + self.plans + arena::EXTRA,
            total: 0,
        }
        .summed()
    }
}

/// The largest number of threads whose memory fits.
pub(crate) fn fit(threads: usize, budget: Option<u64>, memory: &dyn Fn(usize) -> Memory) -> usize {
    let fits = |n: &usize| budget.is_none_or(|budget| memory(*n).total <= budget);
    (1..=threads).rev().find(fits).unwrap_or(1)
}

/// The error for a budget below the least one.
pub(crate) fn too_small(budget: u64, smallest_feasible: u64) -> Error {
    ErrorKind::BudgetTooSmall {
        budget,
        smallest_feasible,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rng(u64);

    impl Rng {
        fn next(&mut self, n: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    fn random(rng: &mut Rng) -> Vec<Unit> {
        let count = 1 + rng.next(4);
        let unit = |layer| {
            let candidates = (0..1 + rng.next(4)).map(|_| Candidate {
                algorithm: None,
                form: None,
                level: 0,
                resident: rng.next(3) * rng.next(50),
                scratch: rng.next(60),
                ms: rng.next(1000) as f64,
            });
            Unit {
                layer,
                steps: Vec::new(),
                candidates: candidates.collect(),
            }
        };
        (0..count as usize).map(unit).collect()
    }

    /// Bytes and time of every choice there is.
    fn all(units: &[Unit]) -> Vec<(u64, f64)> {
        let mut choices = vec![(0, 0, 0.0)];
        for unit in units {
            let extended = choices.iter().flat_map(|&(resident, scratch, ms)| {
                unit.candidates
                    .iter()
                    .map(move |c| (resident + c.resident, c.scratch.max(scratch), ms + c.ms))
            });
            choices = extended.collect();
        }
        choices.into_iter().map(|(r, s, ms)| (r + s, ms)).collect()
    }

    fn cost(units: &[Unit], choice: &[usize]) -> (u64, f64) {
        let chosen = || units.iter().zip(choice).map(|(u, &c)| u.candidates[c]);
        let resident: u64 = chosen().map(|c| c.resident).sum();
        let scratch = chosen().map(|c| c.scratch).max().unwrap();
        (resident + scratch, chosen().map(|c| c.ms).sum())
    }

    #[test]
    fn least_budget_is_exact_and_every_choice_fits() {
        let mut rng = Rng(1);
        let (mut optimal, mut choices) = (0, 0);
        for _ in 0..400 {
            let units = random(&mut rng);
            let all = all(&units);
            let smallest = all.iter().map(|c| c.0).min().unwrap();
            assert_eq!(least(&units), smallest);
            assert!(smallest == 0 || select(&units, Some(smallest - 1)).is_none());
            let (_, fastest) = cost(&units, &select(&units, None).unwrap());
            let best = all.iter().map(|c| c.1).fold(f64::MAX, f64::min);
            assert!(fastest <= best * (1.0 + NOISE));
            for room in smallest..smallest + 100 {
                let (bytes, ms) = cost(&units, &select(&units, Some(room)).unwrap());
                assert!(bytes <= room);
                let fitting = all.iter().filter(|c| c.0 <= room);
                let best = fitting.map(|c| c.1).fold(f64::MAX, f64::min);
                assert!(ms >= best);
                optimal += usize::from(ms == best);
                choices += 1;
            }
        }
        // Greedy in the knapsack of resident bytes only.
        assert!(optimal * 10 >= choices * 9, "{optimal} of {choices}");
    }

    #[test]
    fn errors_of_layers_add_up_by_their_squares() {
        assert!(legal(ConvAlgo::Gemm, 1000, 0.0));
        assert!(legal(ConvAlgo::Winograd4, 13, 2e-5));
        assert!(!legal(ConvAlgo::Winograd6, 13, 2e-5));
        assert!(!legal(ConvAlgo::Winograd2, 1, 1e-7));
    }
}
