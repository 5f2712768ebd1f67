//! What a program needs, how many threads it gets, and which algorithm a convolution uses.
//!
//! The rule of this version: depthwise layers use the depthwise kernel, layers with at most 30 %
//! non-zero weights the sparse one, all others the packed matrix kernel. The budget is met by using
//! fewer threads, since each has a decoder, a tile and scratch of its own; what one thread needs is
//! the smallest feasible budget.

use crate::error::{ErrorKind, Result};
use crate::plan::Memory;
use crate::program::{ConvWork, Program, Work};
use crate::weights::{LayerInfo, TileBuffer};
use dcz_format::graph::Network;
use dcz_format::layer::{Layer, PANEL};
use dcz_kernels::{ConvAlgo, ConvShape};

/// Share of non-zero weights up to which skipping zeros wins over the packed kernel.
const SPARSE_DENSITY: f64 = 0.3;
/// Multiply-adds that are worth waking another thread for.
const MACS_PER_THREAD: usize = 100_000;
/// Elements of simple operations that are worth waking another thread for.
const ELEMENTS_PER_THREAD: usize = 32_768;

/// Largest map, in pixels, on which threads take panels instead of rows.
const SMALL_MAP: usize = 256;
/// Most elements of the output of a tile that a thread keeps to itself.
const PANEL_SCRATCH: usize = 16_384;

/// The algorithm of a convolution.
pub(crate) fn choose(info: Option<&LayerInfo>, shape: &ConvShape) -> ConvAlgo {
    let sparse = info.is_some_and(|info| info.density <= SPARSE_DENSITY);
    let supports = |algo| dcz_kernels::supports(algo, shape);
    if supports(ConvAlgo::Depthwise) {
        ConvAlgo::Depthwise
    } else if sparse && supports(ConvAlgo::DirectSparse) {
        ConvAlgo::DirectSparse
    } else {
        ConvAlgo::Gemm
    }
}

/// Gives every step the number of threads it is worth, at most `threads`.
pub(crate) fn assign_threads(program: &mut Program, network: &Network, threads: usize) {
    for step in &mut program.steps {
        let elements = step.output.len();
        let layer = |index: usize| network.layers.get(index).map_or(1, |l| l.shape.k());
        let worth = match &step.work {
            Work::Conv(work) => elements.saturating_mul(layer(work.layer)) / MACS_PER_THREAD,
            Work::Linear(work) => elements.saturating_mul(layer(work.layer)) / MACS_PER_THREAD,
            Work::Pool(shape) => elements * shape.kernel[0] * shape.kernel[1] / ELEMENTS_PER_THREAD,
            Work::Function(_) | Work::Resize(_) => elements / ELEMENTS_PER_THREAD,
            _ => 1,
        };
        step.threads = worth.clamp(1, threads.max(1));
        if let Work::Conv(work) = &mut step.work {
            let layer = network.layers.get(work.layer);
            work.by_panels = layer.is_some_and(|layer| by_panels(work, layer, step.threads));
        }
    }
}

/// Whether threads take panels of a convolution instead of rows: on small maps a thread's share of
/// the rows fills register tiles badly, and every thread would expand all weights. Each thread
/// then computes whole panels into its scratch. Changes no bit.
fn by_panels(work: &ConvWork, layer: &Layer, threads: usize) -> bool {
    let pixels = work.shape.out_h * work.shape.out_w;
    let panels = layer.tiles.iter().filter(|tile| tile.k == 0).count();
    threads > 1
        && work.shape.groups == 1
        && pixels <= SMALL_MAP
        && panels >= 2 * threads
        && panel_scratch(work, layer) <= PANEL_SCRATCH
}

/// Elements of the output of the largest tile.
fn panel_scratch(work: &ConvWork, layer: &Layer) -> usize {
    let panels = layer
        .tiles
        .iter()
        .map(|t| t.panels as usize)
        .max()
        .unwrap_or(0);
    let pixels = work
        .images
        .saturating_mul(work.shape.out_h * work.shape.out_w);
    pixels.saturating_mul(panels * PANEL)
}

/// f32 elements of kernel scratch of one thread when steps run on at most `threads` threads.
pub(crate) fn scratch(program: &Program, network: &Network, threads: usize) -> usize {
    let mut most = 0;
    for step in &program.steps {
        let layer = match &step.work {
            Work::Conv(work) => work.layer,
            Work::Linear(work) => work.layer,
            _ => continue,
        };
        let Some(layer) = network.layers.get(layer) else {
            continue;
        };
        let parts = step.threads.min(threads).max(1);
        for tile in &layer.tiles {
            let (panels, k) = (tile.panels as usize, tile.k_len as usize);
            most = most.max(match &step.work {
                Work::Conv(work) => {
                    let workspace = |rows: usize| {
                        dcz_kernels::workspace(work.algorithm, &work.shape, panels, k, rows)
                    };
                    if by_panels(work, layer, parts) {
                        workspace(work.shape.out_h) + panel_scratch(work, layer)
                    } else {
                        // A thread's share of all rows, at most the rows of one image per call.
                        let rows = (work.images * work.shape.out_h).div_ceil(parts);
                        workspace(rows.min(work.shape.out_h))
                    }
                }
                _ => dcz_kernels::linear_workspace(panels, k),
            });
        }
    }
    most
}

/// The parts of a session's memory that do not depend on the number of threads, and those of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed {
    /// Constants, look-up tables and layer records kept by the session.
    pub constants: u64,
    pub tables: u64,
    /// Programs and plans in the cache.
    pub plans: u64,
    /// One decoder and one decoded tile.
    pub decoder: u64,
    pub tile: u64,
}

impl Fixed {
    pub(crate) fn tile_bytes(network: &Network) -> u64 {
        TileBuffer::bytes(network) as u64
    }

    /// Memory with `threads` threads.
    pub(crate) fn memory(&self, arena: usize, scratch: usize, threads: usize) -> Memory {
        let n = threads as u64;
        let f32s = |len: usize| len as u64 * size_of::<f32>() as u64;
        Memory::new(
            f32s(arena),
            (self.decoder + self.tile) * n,
            f32s(scratch) * n,
            self.constants,
            self.tables + self.plans,
        )
    }
}

/// The largest number of threads whose memory fits, with that memory.
pub(crate) fn fit(
    threads: usize,
    budget: Option<u64>,
    memory: &mut dyn FnMut(usize) -> Memory,
) -> Result<usize> {
    let Some(budget) = budget else {
        return Ok(threads);
    };
    for n in (1..=threads).rev() {
        if memory(n).total <= budget {
            return Ok(n);
        }
    }
    Err(ErrorKind::BudgetTooSmall {
        budget,
        smallest_feasible: memory(1).total,
    }
    .into())
}
