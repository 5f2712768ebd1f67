//! Operations with gradients of their own, on slices.
//!
//! Inside training a map of `N` images is one matrix `[C, N * H * W]` (channel-major): a pointwise convolution of the whole
//! batch is one matrix product, a depthwise convolution works on contiguous planes, a bias or slope belongs to one row. The
//! library's grouped convolutions split the tensor into as many small convolutions as there are groups; ours do not.
//!
//! Loops are written so that the compiler vectorises them, and run under `pulp`'s dispatch (`vectorised`), which compiles them once
//! per instruction set: plain loops over indices, since closures of iterators are often compiled apart, without it. Rows, or a fixed
//! number of groups of columns, are divided among rayon's threads; sums are split the same way whatever their number, so the result
//! does not depend on it.

pub mod activation;
pub mod chain;
pub mod conv;
pub mod depthwise;
pub mod entry;
pub mod geometry;
pub mod linear;
mod matrix;
pub mod param;
pub mod pool;
pub mod quantise;
pub mod rows;
mod taps;

use candle_core::{CpuStorage, Layout, Result, Tensor};

/// The values of a contiguous f32 tensor.
pub(crate) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&values[from..to]),
        None => candle_core::bail!("a tensor is not contiguous"),
    }
}

/// Reads a tensor's values without a copy.
pub(crate) fn with_floats<R>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(cpu) => work(floats(cpu, layout)?),
        _ => candle_core::bail!("a tensor is not in main memory"),
    }
}

/// A tensor of given values on the CPU.
pub(crate) fn tensor(values: Vec<f32>, dims: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, dims, &candle_core::Device::Cpu)
}

/// Runs loops compiled for the widest vectors of the machine. The closure says `#[inline(always)]`, and is called by reference:
/// what is not inlined, or is called through the shim of `FnOnce`, is compiled for the least machine.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnMut() -> R) -> R {
    pulp::Arch::new().dispatch(Loops(work))
}

struct Loops<F>(F);

impl<R, F: FnMut() -> R> pulp::WithSimd for Loops<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// Values side by side in loops that sum.
pub(crate) const LANES: usize = 16;

/// Sum of products, in 16 interleaved partial sums.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a, b) = (&a[..a.len().min(b.len())], &b[..a.len().min(b.len())]);
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_chunks
        .remainder()
        .iter()
        .zip(b_chunks.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// Sum, in 16 interleaved partial sums.
#[inline(always)]
pub(crate) fn sum(a: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let whole = a.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let x = &a[at..at + LANES];
        for lane in 0..LANES {
            sums[lane] += x[lane];
        }
    }
    let mut total = 0.0;
    for x in &a[whole..] {
        total += x;
    }
    for sum in sums {
        total += sum;
    }
    total
}

/// `y += a * x`.
#[inline(always)]
pub(crate) fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
    let n = y.len().min(x.len());
    let (y, x) = (&mut y[..n], &x[..n]);
    for i in 0..n {
        y[i] += a * x[i];
    }
}
