//! Fully connected layers.

use crate::activation::Epilogue;
use crate::conv::Start;
use crate::simd::Isa;
use crate::weights::{PANEL, WeightTile};

/// f32 elements of scratch [`linear_tile`] needs for tiles of at most `tile_panels` panels and
/// `tile_k` inputs and any number of rows.
pub fn linear_workspace(tile_panels: usize, tile_k: usize) -> usize {
    let _ = (tile_panels, tile_k);
    0
}

/// Adds one tile's products to `n` rows of outputs.
///
/// `out_channels` is the layer's (it says how many lanes of the last panel are real). Row `i` of
/// the input is `x[i * in_stride..]` and holds all inputs of the layer; row `i` of the output is
/// `y[i * out_stride..]` and holds the tile's own outputs only: `y[0]` is lane 0 of the first
/// panel. The slices of `epilogue` are the tile's channels too; it comes with the last k-range.
///
/// # Panics
/// When a slice or the scratch is too short: a mistake of the caller.
#[expect(clippy::too_many_arguments)]
pub fn linear_tile(
    isa: Isa,
    tile: &WeightTile<'_>,
    out_channels: usize,
    x: &[f32],
    n: usize,
    in_stride: usize,
    y: &mut [f32],
    out_stride: usize,
    start: Start,
    epilogue: Option<&Epilogue<'_>>,
    scratch: &mut [f32],
) {
    let _ = (isa, scratch);
    let channels = (out_channels - tile.first_panel * PANEL).min(tile.panels * PANEL);
    for i in 0..n {
        for c in 0..channels {
            let mut sum = 0f32;
            for j in 0..tile.k_len {
                sum += tile.weight(c / PANEL, j, c % PANEL) * x[i * in_stride + tile.k0 + j];
            }
            let v = &mut y[i * out_stride + c..][..1];
            v[0] = if start == Start::Zero {
                sum
            } else {
                v[0] + sum
            };
            if let Some(e) = epilogue {
                e.apply(c, v);
            }
        }
    }
}
