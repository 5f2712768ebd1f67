//! Which steps run as bands: less memory for the maps between them.
//!
//! A program of single steps needs, at its fullest step, all maps that are alive there. [`Variants`] is the same
//! program with smaller arenas: for a limit on the bytes alive at once, steps that exceed it are joined with neighbours
//! into bands ([`crate::band`]) of the tallest strips that stay within it. Cutting the program into single steps and
//! bands is a shortest path over step positions (dynamic programming): an edge is a step or a band that respects the
//! limit, its length the extra time that strips cost. The smallest limit is the one below which no path exists, exact
//! for the strip heights in [`STRIPS`].
//!
//! With unlimited memory there are variants only where a map is too large for caches ([`is_far`]), so that planning costs nothing
//! elsewhere. Which variant is used, the planner decides by predicted time ([`crate::planner`]); all give the same bits for the
//! same algorithms.

use crate::band::{self, Band, MAX_STEPS, Overlap, Window};
use crate::cost_table::FAR_BYTES;
use crate::liveness::{self, Life};
use crate::planner::layer_of;
use crate::program::{Place, Program, Step, Value, Work};
use crate::weights::bank_len;
use dcz_format::graph::Network;

/// Rows of a strip that are tried, tallest first.
const STRIPS: [usize; 6] = [32, 16, 8, 4, 2, 1];
/// Limits on the work of planning: strips of an image, and steps of a program (a larger one runs without bands).
const MOST_STRIPS: usize = 1024;
const MOST_PROGRAM: usize = 400;
/// Most variants; each next one may use at least this much more memory, those after the first few more.
const MOST: usize = 14;
const RATIOS: (usize, [f64; 2]) = (5, [1.015, 1.1]);
/// Extra time of a strip: a call of each kernel, and expanding its weights once more.
const CALL_NS: f64 = 3000.0;
const WEIGHT_NS: f64 = 0.35;

/// A possible band.
#[derive(Clone, Copy)]
struct Candidate {
    first: usize,
    count: usize,
    strip: usize,
    /// Elements alive while it runs.
    need: usize,
    /// Predicted extra time.
    extra: f64,
}

/// A program and its variants with bands.
pub(crate) struct Variants<'a> {
    program: &'a Program,
    network: &'a Network,
    /// Bands of each variant; none: the program itself.
    bands: Vec<Vec<Candidate>>,
}

impl<'a> Variants<'a> {
    /// Finds them: the program itself, and programs with smaller arenas; with bands for maps too large for caches only, where
    /// memory does not count.
    pub(crate) fn new(program: &'a Program, network: &'a Network, only_far: bool) -> Variants<'a> {
        let count = program.steps.len();
        let considered = if count <= MOST_PROGRAM { count } else { 0 };
        let groups: Vec<Vec<Vec<Candidate>>> = (0..considered)
            .map(|first| candidates(program, network, first, only_far))
            .collect();
        let all = || groups.iter().flatten().flatten();
        let mut limits: Vec<usize> = all().map(|c| c.need).collect();
        limits.extend(&program.live);
        limits.sort_unstable();
        limits.dedup();
        // Larger limits allow more paths.
        let least = limits.partition_point(|&limit| path(program, &groups, limit, limit).is_none());
        let most = program.live.iter().copied().max().unwrap_or(0);
        let mut bands = vec![Vec::new()];
        // Buffers do not always fit together without holes: the same limit, nearly reached only where it must be.
        let tightest = limits.get(least).filter(|&&limit| limit < most);
        bands.extend(tightest.and_then(|&l| path(program, &groups, l, l - l / 32)));
        let mut last = 0.0;
        for &limit in limits.get(least..).unwrap_or_default() {
            let (few, ratios) = RATIOS;
            let ratio = ratios[usize::from(bands.len() > few)];
            if (limit as f64) < last * ratio || limit >= most || bands.len() > MOST {
                continue;
            }
            if let Some(found) = path(program, &groups, limit, limit) {
                last = limit as f64;
                bands.push(found);
            }
        }
        Variants {
            program,
            network,
            bands,
        }
    }

    /// All of them, made one at a time.
    pub(crate) fn programs(&self) -> impl Iterator<Item = Program> {
        self.bands.iter().map(|bands| {
            let made = bands.iter().filter_map(|c| {
                let made = band(self.program, self.network, (c.first, c.count), c.strip);
                made.map(|(band, _)| band)
            });
            with_bands(self.program, made.collect())
        })
    }
}

/// Whether bands may pay without a limit on memory: a map is too large for caches.
pub(crate) fn is_far(program: &Program) -> bool {
    program.lives.iter().any(|life| far(life.len))
}

fn far(len: usize) -> bool {
    len * size_of::<f32>() > FAR_BYTES
}

/// The cheapest way through the program on which at most `limit` elements are alive, and at most `wanted` where shorter
/// strips achieve that.
fn path(
    program: &Program,
    groups: &[Vec<Vec<Candidate>>],
    limit: usize,
    wanted: usize,
) -> Option<Vec<Candidate>> {
    let count = program.steps.len();
    // Length of the way to each position, and the last band on it.
    let mut best: Vec<Option<(f64, Option<Candidate>)>> = vec![None; count + 1];
    best[0] = Some((0.0, None));
    for i in 0..count {
        let Some((length, _)) = best[i] else {
            continue;
        };
        let mut reach = |to: usize, length: f64, band: Option<Candidate>| {
            if best[to].is_none_or(|(l, _)| length < l) {
                best[to] = Some((length, band));
            }
        };
        if program.live.get(i).is_some_and(|&live| live <= limit) {
            reach(i + 1, length, None);
        }
        for strips in groups.get(i).into_iter().flatten() {
            let within = |most: usize| strips.iter().find(|c| c.need <= most);
            if let Some(band) = within(wanted).or_else(|| within(limit)) {
                reach(i + band.count, length + band.extra, Some(*band));
            }
        }
    }
    let (mut bands, mut at) = (Vec::new(), count);
    while at > 0 {
        let (_, band) = best[at]?;
        match band {
            Some(candidate) => {
                at = candidate.first;
                bands.push(candidate);
            }
            None => at -= 1,
        }
    }
    bands.reverse();
    Some(bands)
}

/// The bands that begin at a step: for each end, one candidate per strip height, tallest first.
fn candidates(
    program: &Program,
    network: &Network,
    first: usize,
    only_far: bool,
) -> Vec<Vec<Candidate>> {
    let mut list = Vec::new();
    let longest = (program.steps.len() - first).min(MAX_STEPS);
    for count in 1..=longest {
        let steps = &program.steps[first..first + count];
        let Some(last) = steps.last() else {
            break;
        };
        if !by_rows(last) || last.output.map().n != steps[0].output.map().n {
            break;
        }
        if only_far && !steps.iter().any(|step| far(step.output.len())) {
            continue;
        }
        let most = program.live[first..first + count].iter().max();
        let Some(&most) = most else {
            break;
        };
        let rows = band::height(&last.output);
        let tall = |s: usize| s == 1 || s < rows;
        let tried = (STRIPS.iter()).filter(|&&s| tall(s) && rows.div_ceil(s) <= MOST_STRIPS);
        let made = tried.filter_map(|&strip| {
            let (band, need) = band(program, network, (first, count), strip)?;
            let calls = (band.strips * last.output.map().n) as f64;
            let weights = |s: &Step| layer_of(&s.work).and_then(|l| network.layers.get(l));
            let weights = |s: &Step| weights(s).map_or(0.0, |l| l.shape.weights() as f64);
            let extra = steps.iter().map(|s| CALL_NS + WEIGHT_NS * weights(s));
            Some(Candidate {
                first,
                count,
                strip,
                need,
                extra: calls * extra.sum::<f64>(),
            })
        });
        // Only what needs less than single steps is of use.
        let made: Vec<Candidate> = made.filter(|c| c.need < most).collect();
        if !made.is_empty() {
            list.push(made);
        }
    }
    list
}

/// Whether a step can compute some rows of its output from some rows of its inputs.
fn by_rows(step: &Step) -> bool {
    let whole = step.output.dims();
    let same = |v: &Value| v.is_rows() && v.dims() == whole;
    if !step.output.is_rows() || step.output.len() == 0 {
        return false;
    }
    let window = |kernel: usize, dilation: usize, stride: usize, pad: usize, input: &Value| {
        let (from, to) = (band::height(input), band::height(&step.output));
        // Every window meets the input.
        input.rank == 4 && (kernel - 1) * dilation + 1 > pad && (to - 1) * stride < from + pad
    };
    match (&step.work, step.inputs.first()) {
        (Work::Conv(w), Some(x)) => {
            let s = &w.shape;
            window(s.kernel[0], s.dilation[0], s.stride[0], s.pad_top, x)
        }
        (Work::Pool(s), Some(x)) => window(s.kernel[0], s.dilation[0], s.stride[0], s.pads[0], x),
        (Work::Resize(_), Some(x)) => x.is_rows(),
        (Work::Rows(_), None) => true,
        (Work::Function(_), _) => step.inputs.iter().all(same),
        (Work::Binary(_), _) => {
            let twice = step.inputs.windows(2).any(|w| w[0].place == w[1].place);
            step.inputs.iter().all(same) && !twice
        }
        _ => false,
    }
}

/// The band of `count` steps from `first` on with strips of `strip` rows, and the elements alive while it runs. The entries
/// of `banks` are lengths; [`with_bands`] makes buffers of them.
fn band(
    program: &Program,
    network: &Network,
    (first, count): (usize, usize),
    strip: usize,
) -> Option<(Band, usize)> {
    let steps = program.steps.get(first..first + count)?;
    let range = first..first + count;
    let output = steps.last()?.output;
    let Place::Buffer(out) = output.place else {
        return None;
    };
    let alive = |l: &Life| l.first < range.end && range.start <= l.last;
    let inside = |l: &Life| range.start <= l.first && l.last < range.end;
    let mut windows: Vec<Window> = Vec::new();
    for step in steps {
        let Place::Buffer(buffer) = step.output.place else {
            return None;
        };
        let life = program.lives.get(buffer)?;
        if buffer != out && inside(life) && !windows.iter().any(|w| w.buffer == buffer) {
            let map = step.output.map();
            windows.push(Window {
                buffer,
                rows: 0,
                row_len: map.c * map.w,
            });
        }
    }
    // The largest input that dies here and lies row by row.
    let inputs = steps.iter().flat_map(|s| &s.inputs);
    let dying = inputs.filter(|v| match v.place {
        Place::Buffer(b) => {
            let life = program.lives.get(b).copied().unwrap_or_default();
            b != out && life.first < range.start && life.last < range.end && v.is_rows()
        }
        Place::Input(_) => false,
    });
    let born = program.lives.get(out)?.first >= range.start;
    let input = dying.max_by_key(|v| v.len()).filter(|_| born).copied();
    // A map that something in the band writes over is no place for another one.
    let kept = |v: &Value| steps.iter().all(|s| s.output.place != v.place);
    let input = input.filter(kept);
    let images = output.map().n;
    let pair = input.map(|input| (input, output));
    let found = band::simulate(steps, strip, &windows, pair, images)?;
    for (window, rows) in windows.iter_mut().zip(&found.windows) {
        window.rows = *rows;
    }
    let banks: Vec<usize> = steps
        .iter()
        .map(|s| bank_of(s, network))
        .collect::<Option<_>>()?;
    let mut need: usize = banks.iter().map(|&len| liveness::round(len)).sum();
    for (buffer, life) in program.lives.iter().enumerate() {
        if alive(life) {
            let window = windows.iter().find(|w| w.buffer == buffer);
            let len = window.map_or(life.len, |w| w.rows * w.row_len);
            need += liveness::round(len);
        }
    }
    let overlap = pair.and_then(|(input, _)| {
        let Place::Buffer(buffer) = input.place else {
            return None;
        };
        Some(Overlap {
            output: out,
            input: buffer,
            gap: liveness::round(found.gap),
        })
    });
    if let Some(o) = &overlap {
        need = need.checked_sub(liveness::saved(&program.lives, o))?;
    }
    let band = Band {
        steps: range,
        strip,
        strips: found.strips,
        windows,
        banks: banks
            .into_iter()
            .map(|len| (len > 0).then_some(len))
            .collect(),
        overlap,
        rows: found.rows,
    };
    Some((band, need))
}

/// Elements for the decoded weights of a step; `None` if the records do not fit.
fn bank_of(step: &Step, network: &Network) -> Option<usize> {
    match layer_of(&step.work) {
        Some(layer) => Some(bank_len(network.layers.get(layer)?)),
        None => Some(0),
    }
}

/// The program with these bands, placed.
fn with_bands(program: &Program, bands: Vec<Band>) -> Program {
    let mut program = program.clone();
    for mut band in bands {
        for window in &band.windows {
            if let Some(life) = program.lives.get_mut(window.buffer) {
                life.len = window.rows * window.row_len;
            }
        }
        for bank in band.banks.iter_mut().flatten() {
            program.lives.push(Life {
                len: *bank,
                first: band.steps.start,
                last: band.steps.end - 1,
            });
            *bank = program.lives.len() - 1;
        }
        for step in &program.steps[band.steps.clone()] {
            for value in step.inputs.iter().chain([&step.output]) {
                if let Place::Buffer(buffer) = value.place
                    && let Some(life) = program.lives.get_mut(buffer)
                {
                    life.first = life.first.min(band.steps.start);
                    life.last = life.last.max(band.steps.end - 1);
                }
            }
        }
        program.bands.push(band);
    }
    if !program.bands.is_empty() {
        program.place();
    }
    program
}

/// Takes the banks of layers that turned out resident away. What else is in the arena stays where it is.
pub(crate) fn drop_banks(program: &mut Program) {
    for band in &mut program.bands {
        for (bank, step) in band
            .banks
            .iter_mut()
            .zip(&program.steps[band.steps.clone()])
        {
            if step.source.resident.is_some()
                && let Some(buffer) = bank.take()
                && let Some(life) = program.lives.get_mut(buffer)
            {
                life.len = 0;
            }
        }
    }
}
