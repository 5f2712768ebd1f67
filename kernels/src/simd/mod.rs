//! Instruction sets. Kernels are written once over [`Simd`], a handful of operations on vectors of
//! 8 f32, and run through [`Isa::run`], which enters a function compiled for the instruction set.
//! A new instruction set is one file that implements [`Simd`] and one arm in [`Isa`].
//!
//! The value of an instruction set type is the proof that the processor has it: the only way to
//! get one is its `detect`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2Fma;
pub use portable::Portable;
use std::ops::Range;

/// The instruction set a kernel runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust: no fused multiply-add, the same bits on every processor and for every compile
    /// flag.
    Portable,
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2Fma(Avx2Fma),
}

impl Isa {
    /// The fastest instruction set of this processor.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = Avx2Fma::detect_avx512().or_else(Avx2Fma::detect) {
            return Isa::Avx2Fma(token);
        }
        Isa::Portable
    }

    /// `"portable"`, `"avx2"` or `"avx512"`; none when the name is unknown or this processor lacks it.
    pub fn from_name(name: &str) -> Option<Isa> {
        match name {
            "portable" => Some(Isa::Portable),
            #[cfg(target_arch = "x86_64")]
            "avx2" => Avx2Fma::detect().map(Isa::Avx2Fma),
            #[cfg(target_arch = "x86_64")]
            "avx512" => Avx2Fma::detect_avx512().map(Isa::Avx2Fma),
            _ => None,
        }
    }

    /// The name [`Isa::from_name`] takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Fma(token) if token.has_long() => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Fma(_) => "avx2",
        }
    }

    /// Whether loops made for one case are worth their code ([`Simd::FAST`]).
    pub(crate) fn is_fast(self) -> bool {
        self != Isa::Portable
    }

    /// Every instruction set this processor can run, for tests and benches.
    pub fn available() -> impl Iterator<Item = Isa> {
        ["portable", "avx2", "avx512"]
            .into_iter()
            .filter_map(Isa::from_name)
    }

    /// Executes `rounds * 96` multiply-adds that touch no memory, for benches: what a kernel's rate
    /// is compared with. The result only keeps the work alive.
    pub fn peak_probe(self, rounds: usize) -> f32 {
        if let Some(sum) = self.run_long(PeakProbe(rounds / 2)) {
            return sum;
        }
        self.run(PeakProbe(rounds))
    }

    /// Whether there are registers of 16 f32 ([`Isa::run_long`]).
    pub(crate) fn has_long(self) -> bool {
        match self {
            Isa::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Fma(token) => token.has_long(),
        }
    }

    /// Runs `work` compiled for registers of 16 f32; none where there are none.
    #[inline(always)]
    pub(crate) fn run_long<W: LongWork>(self, work: W) -> Option<W::Output> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Fma(token) => token.run_long(work),
            Isa::Portable => None,
        }
    }

    /// Runs `work` compiled for this instruction set.
    #[inline(always)]
    pub(crate) fn run<W: Work>(self, work: W) -> W::Output {
        match self {
            Isa::Portable => portable(work),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Fma(token) => token.run(work),
        }
    }
}

/// One copy of the code, however many callers a kernel has.
#[inline(never)]
fn portable<W: Work>(work: W) -> W::Output {
    work.run(Portable)
}

struct PeakProbe(usize);

impl Work for PeakProbe {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut acc = [simd.splat(0.0); 12];
        let (a, b) = (simd.splat(1.5), simd.splat(std::hint::black_box(0.25)));
        for _ in 0..self.0 {
            for v in &mut acc {
                *v = simd.mul_add(a, b, *v);
            }
        }
        let mut sum = [0.0; 8];
        for v in acc {
            let so_far = simd.load(&sum);
            simd.store(simd.add(v, so_far), &mut sum);
        }
        sum.iter().sum()
    }
}

/// Twice the lanes, so half the rounds.
impl LongWork for PeakProbe {
    type Output = f32;

    #[inline(always)]
    fn run<S: Long>(self, simd: S) -> f32 {
        let mut acc = [simd.splat16(0.0); 12];
        let (a, b) = (simd.splat16(1.5), simd.splat16(std::hint::black_box(0.25)));
        for _ in 0..self.0 {
            for v in &mut acc {
                *v = simd.mul_add16(a, b, *v);
            }
        }
        let mut sum = [0.0; 16];
        for v in acc {
            let so_far = simd.load16(&sum);
            simd.store16(simd.add16(v, so_far), &mut sum);
        }
        sum.iter().sum()
    }
}

/// A piece of work that can be compiled for any instruction set. `run` and all it calls that is
/// generic over [`Simd`] must be `#[inline(always)]`, or it falls out of the instruction set.
pub(crate) trait Work {
    /// What it returns.
    type Output;
    /// Does it.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The first lanes of a vector, with a mask to choose them by.
#[derive(Clone, Copy)]
pub(crate) struct First<V> {
    lanes: usize,
    mask: V,
}

impl<V> First<V> {
    /// How many they are.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.lanes
    }
}

/// What three columns of taps see of a row for 16 outputs.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    skip: usize,
    len: usize,
    mask: u64,
}

impl Seen {
    /// Values `skip..end`, counted from the one that the first column of the first output is at; 0 for those around them.
    #[inline(always)]
    pub fn new(skip: usize, end: usize) -> Seen {
        let (skip, end) = (skip.min(1), end.min(33));
        Seen {
            skip,
            len: end.saturating_sub(skip),
            mask: ((1 << end) - 1) & !(skip as u64),
        }
    }

    /// The values seen of those from the first one on. Panics if there are fewer.
    #[inline(always)]
    pub fn of(self, from: &[f32]) -> &[f32] {
        &from[..self.len]
    }
}

/// Operations on vectors of 8 f32.
pub(crate) trait Simd: Copy {
    /// Whether loops made for one case are worth their code.
    const FAST: bool;
    /// 8 lanes.
    type V: Copy;
    /// Eight times the same value.
    fn splat(self, value: f32) -> Self::V;
    /// 8 consecutive values.
    fn load(self, from: &[f32; 8]) -> Self::V;
    /// Has the cache line so many bytes from a place, which need not exist, brought to the L2 cache.
    #[inline(always)]
    fn prefetch<T>(self, place: *const T, bytes: usize) {
        let _ = (place, bytes);
    }
    /// The first `n` lanes, at most 8.
    fn first(self, n: usize) -> First<Self::V>;
    /// These lanes; 0 in the others. Panics if the slice is shorter.
    fn load_first(self, lanes: First<Self::V>, from: &[f32]) -> Self::V;
    /// These lanes of `a`, the others of `b`.
    fn select_first(self, lanes: First<Self::V>, a: Self::V, b: Self::V) -> Self::V;
    /// 8 consecutive values.
    fn store(self, v: Self::V, to: &mut [f32; 8]);
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`: one rounding where the instruction set has it, two on the portable tier.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Signed bytes to f32.
    fn widen_i8(self, q: &[i8; 8]) -> Self::V;
    /// Signed 16-bit integers to f32.
    fn widen_i16(self, q: &[i16; 8]) -> Self::V;
    /// Bytes to f32.
    fn widen_u8(self, q: &[u8; 8]) -> Self::V;
    /// Every third byte, from byte `first` (0, 1 or 2) on, to f32.
    fn widen_third(self, q: &[u8; 24], first: usize) -> Self::V;
    /// `lut[code]` per lane.
    fn lookup(self, lut: &[f32; 256], codes: &[u8; 8]) -> Self::V;
    /// The same for codes below 16; other codes give some value of the table.
    fn lookup_16(self, lut: &[f32; 16], codes: &[u8; 8]) -> Self::V;
    /// Element `code` of the table per byte; 0 beyond its end.
    fn lookup_bytes(self, table: &[[i8; 16]], codes: &[u8; 32], out: &mut [i8; 32]);
    /// `a < b ? x : y` per lane; false for NaN.
    fn select_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// `v < low ? low : v` per lane.
    #[inline(always)]
    fn at_least(self, v: Self::V, low: Self::V) -> Self::V {
        self.select_less(v, low, low, v)
    }
    /// `high < v ? high : v` per lane.
    #[inline(always)]
    fn at_most(self, v: Self::V, high: Self::V) -> Self::V {
        self.select_less(high, v, high, v)
    }
    /// The larger one per lane; NaN where either is.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The first `n` lanes of `a`, the rest of `b`.
    fn blend(self, n: usize, a: Self::V, b: Self::V) -> Self::V;
    /// Every other value, from the first on, in an order of its own in which the first and the last one have their places.
    fn evens_apart(self, from: &[f32; 16]) -> Self::V;
    /// Undoes that order.
    fn in_order(self, apart: Self::V) -> Self::V;
    /// Every other value, from the first on.
    #[inline(always)]
    fn evens(self, from: &[f32; 16]) -> Self::V {
        self.in_order(self.evens_apart(from))
    }
    /// Rows become columns.
    fn transpose(self, rows: [Self::V; 8]) -> [Self::V; 8];
}

/// A piece of work for registers of 16 f32, [`Isa::run_long`]; as [`Work`] otherwise. Lanes are outputs, so it gives the
/// bits of the same chains in shorter vectors.
pub(crate) trait LongWork {
    /// What it returns.
    type Output;
    /// Does it.
    fn run<S: Long>(self, simd: S) -> Self::Output;
}

/// Operations on vectors of 16 f32, beside those of 8.
pub(crate) trait Long: Simd {
    /// 16 lanes.
    type L: Copy;
    /// A choice of lanes.
    type M: Copy;
    /// Sixteen times the same value.
    fn splat16(self, value: f32) -> Self::L;
    /// 16 consecutive values.
    fn load16(self, from: &[f32; 16]) -> Self::L;
    /// 16 consecutive values.
    fn store16(self, v: Self::L, to: &mut [f32; 16]);
    /// The first `n` lanes, at most 16 and as many as there are values; 0 in the others.
    fn load16_first(self, n: usize, from: &[f32]) -> Self::L;
    /// The first `n` lanes, at most 16 and as many as there is room for.
    fn store16_first(self, n: usize, v: Self::L, to: &mut [f32]);
    /// Two vectors of 8, one behind the other.
    fn join(self, low: Self::V, high: Self::V) -> Self::L;
    /// The two halves.
    fn split(self, v: Self::L) -> [Self::V; 2];
    /// `a + b`
    fn add16(self, a: Self::L, b: Self::L) -> Self::L;
    /// `a - b`
    fn sub16(self, a: Self::L, b: Self::L) -> Self::L;
    /// `a * b`
    fn mul16(self, a: Self::L, b: Self::L) -> Self::L;
    /// `a * b + c`, one rounding.
    fn mul_add16(self, a: Self::L, b: Self::L, c: Self::L) -> Self::L;
    /// Two rows of signed bytes, one behind the other, to f32.
    fn widen_i8_two(self, low: &[i8; 8], high: &[i8; 8]) -> Self::L;
    /// `lut[code]` of two rows, one behind the other, for codes below 128; other codes give some value of the table.
    fn lookup_two(self, lut: &[f32; 256], low: &[u8; 8], high: &[u8; 8]) -> Self::L;
    /// The same for codes below 16; other codes give some value of the table.
    fn lookup_16_two(self, lut: &[f32; 16], low: &[u8; 8], high: &[u8; 8]) -> Self::L;
    /// Eight times the one value, then eight times the other.
    fn splat_two(self, low: f32, high: f32) -> Self::L;
    /// Two rows of signed 16-bit integers, one behind the other, to f32.
    fn widen_i16_two(self, low: &[i16; 8], high: &[i16; 8]) -> Self::L;
    /// Sixteen rows of 8 become eight columns of 16.
    fn columns16(self, rows: [&[f32; 8]; 16]) -> [Self::L; 8];
    /// Rows become columns within each quarter: quarter `i` of result `j` is element `4 i + j` of the four vectors.
    fn quads16(self, v: [Self::L; 4]) -> [Self::L; 4];
    /// Stores a quarter (0 to 3).
    fn store_quarter(self, quarter: usize, v: Self::L, to: &mut [f32; 4]);
    /// A mask of the first `n` lanes, at most 16.
    fn first16(self, n: usize) -> First<Self::M>;
    /// A mask of `n` lanes from lane `from` on, as far as there are lanes.
    fn mask16(self, from: usize, n: usize) -> First<Self::M>;
    /// The first lanes, as many as there are in the mask, moved to those of the mask; 0 in the others.
    fn spread16(self, lanes: First<Self::M>, v: Self::L) -> Self::L;
    /// Eight times both values in turns.
    fn splat_pair(self, pair: &[f32; 2]) -> Self::L;
    /// Every lane of the low half twice, side by side.
    fn twice16(self, v: Self::L) -> Self::L;
    /// The even lanes, then the odd ones.
    fn part16(self, v: Self::L) -> Self::L;
    /// Every other one of the lanes of both.
    fn evens_of16(self, low: Self::L, high: Self::L) -> Self::L;
    /// These first lanes. Panics if the slice is shorter.
    fn store16_masked(self, lanes: First<Self::M>, v: Self::L, to: &mut [f32]);
    /// These first lanes; 0 in the others. Panics if the slice is shorter.
    fn load16_masked(self, lanes: First<Self::M>, from: &[f32]) -> Self::L;
    /// Neighbouring lanes, to the start of the slice. Panics if that is shorter.
    fn store16_at(self, lanes: First<Self::M>, v: Self::L, to: &mut [f32]);
    /// Neighbouring lanes, from the start of the slice; 0 in the others. Panics if that is shorter.
    fn load16_at(self, lanes: First<Self::M>, from: &[f32]) -> Self::L;
    /// `slope * v` where `v < 0`, else `v`.
    fn leaky16(self, v: Self::L, slope: Self::L) -> Self::L;
    /// `v < low ? low : v`, then `high < v ? high : v`.
    fn clip16(self, v: Self::L, low: Self::L, high: Self::L) -> Self::L;
    /// Rows become columns: of 8 vectors, column `i` and column `i + 8` are the halves of vector `i`.
    fn transpose16(self, rows: [Self::L; 8]) -> [Self::L; 8];
    /// The first `n` lanes, at most 8. Panics if the slice is shorter.
    fn store_first(self, n: usize, v: Self::V, to: &mut [f32]);
    /// Those of 16 consecutive values, the first one at `at`, that `lanes` are; 0 in the others, which need not exist.
    fn load16_lanes(self, lanes: Range<usize>, from: &[f32], at: isize) -> Self::L;
    /// The same for every other one of 31 values.
    fn evens16_lanes(self, lanes: Range<usize>, from: &[f32], at: isize) -> Self::L;
    /// The values of three neighbouring columns of taps for 16 outputs `T` (1 or 2) apart, from what is seen of a row. Panics if
    /// that is shorter.
    fn taps16<const T: usize>(self, seen: Seen, from: &[f32]) -> [Self::L; 3];
}
