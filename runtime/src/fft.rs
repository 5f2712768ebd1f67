//! Convolutions by FFT: what the planner needs to know, and weights that stay transformed. Only with the feature `fft`; a library
//! without it has no such candidates.

use crate::error::{Error, Result};
use crate::resident::{FftNeeds, zeros};
use dcz_kernels::fft::{self, FftPlan};
use dcz_kernels::{ConvShape, Epilogue, Isa, Start, View, ViewMut, WeightTile};
use std::ops::Range;

/// Kernels with fewer taps are left to others.
const LEAST_TAPS: usize = 16;

/// Whether FFT is a candidate: a large kernel, stride 1.
pub(crate) fn supports(shape: &ConvShape) -> bool {
    shape.taps() >= LEAST_TAPS && fft::supports(shape)
}

/// See [`FftPlan::work`].
pub(crate) fn work(shape: &ConvShape) -> Option<[f64; 2]> {
    FftPlan::work(shape)
}

/// What a layer needs, the same on every instruction set.
pub(crate) fn needs(shape: &ConvShape) -> Option<FftNeeds> {
    let plans = Isa::available().filter_map(|isa| FftPlan::new(isa, shape));
    let each = plans.map(|plan| FftNeeds {
        resident: plan.bytes()
            + size_of::<Box<[f32]>>()
            + plan.panel_len() * shape.panels() * size_of::<f32>(),
        run: plan.workspace(),
        load: plan.transform_workspace(),
    });
    each.reduce(|a, b| FftNeeds {
        resident: a.resident.max(b.resident),
        run: a.run.max(b.run),
        load: a.load.max(b.load),
    })
}

/// Transformed weights of a layer, for maps of one size.
#[derive(Debug)]
pub(crate) struct Transformed {
    plan: FftPlan,
    weights: Box<[f32]>,
}

impl Transformed {
    /// Room for all panels; [`add`](Self::add) fills it.
    pub(crate) fn new(isa: Isa, shape: &ConvShape) -> Result<Transformed> {
        let plan = FftPlan::new(isa, shape).ok_or_else(wrong)?;
        let len = plan.panel_len().saturating_mul(shape.panels());
        let weights = zeros(len)?;
        Ok(Transformed { plan, weights })
    }

    /// Adds the weights of a tile.
    pub(crate) fn add(&mut self, tile: &WeightTile<'_>, scratch: &mut [f32]) -> Result<()> {
        let len = self.plan.panel_len();
        let panels = tile.first_panel * len..(tile.first_panel + tile.panels) * len;
        let out = self.weights.get_mut(panels).ok_or_else(wrong)?;
        self.plan.transform(tile, out, scratch);
        Ok(())
    }

    /// Output rows that are computed together.
    pub(crate) fn rows(&self) -> usize {
        self.plan.tile_rows()
    }

    /// Computes rows of one image.
    #[expect(clippy::too_many_arguments, reason = "the kernel's arguments")]
    pub(crate) fn run(
        &self,
        panels: Range<usize>,
        input: View<'_>,
        rows: Range<usize>,
        out: &mut ViewMut<'_>,
        start: Start,
        epilogue: &Epilogue<'_>,
        scratch: &mut [f32],
    ) {
        let epilogue = Some(epilogue);
        self.plan.run(
            &self.weights,
            panels,
            input,
            rows,
            out,
            start,
            epilogue,
            scratch,
        );
    }
}

#[cold]
fn wrong() -> Error {
    Error::internal("weights for FFT")
}
