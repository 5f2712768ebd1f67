//! How a layer is cut into tiles.
//!
//! A tile wants to be large (each costs some 30 bytes of stream lengths, checksum and record) but not so large that a
//! layer has only one or two, which would leave threads idle and buffers big. So: at most `target` weights, at least
//! four tiles when they still have 16 Ki weights each (that costs below half a percent), all of about one size.
//! Panels that are longer than the target are cut into ranges of whole input channels (or taps).

use crate::error::{Error, ErrorKind, Result};
use crate::layer::*;

/// Smallest tile that is made only for the sake of having four.
const SMALL_TILE: usize = 16_384;
const WANTED_TILES: usize = 4;

/// The tiles of a layer without offsets and contents.
pub(super) fn tiles(shape: &LayerShape, order: KOrder, target: usize) -> Result<Vec<Tile>> {
    let target = target.clamp(PANEL, MAX_TILE_WEIGHTS);
    let (k, panels) = (shape.k(), shape.panels());
    let panel_weights = k * PANEL;
    let (panel_step, k_step) = if panel_weights <= target {
        let weights = panel_weights * panels;
        let wanted = weights
            .div_ceil(target)
            .max((weights / SMALL_TILE).min(WANTED_TILES))
            .max(1);
        (
            panels.div_ceil(wanted).min(target / panel_weights).max(1),
            k,
        )
    } else {
        let unit = match order {
            KOrder::ChannelMajor => shape.kernel[0] as usize * shape.kernel[1] as usize,
            KOrder::TapMajor => shape.in_per_group as usize,
        };
        // A single unit may exceed the caller's target but never the format's bound.
        let most = (target.max(unit * PANEL) / PANEL / unit).max(1);
        if unit * PANEL > MAX_TILE_WEIGHTS {
            let detail =
                format!("{unit} k cannot be divided and exceed a tile; use the other k order");
            return Err(Error::new(ErrorKind::Input, detail));
        }
        let units = k / unit;
        (1, units.div_ceil(units.div_ceil(most)) * unit)
    };
    let mut tiles = Vec::new();
    for panel in (0..panels).step_by(panel_step) {
        for start in (0..k).step_by(k_step) {
            tiles.push(Tile {
                panel: panel as u32,
                panels: panel_step.min(panels - panel) as u32,
                k: start as u32,
                k_len: k_step.min(k - start) as u32,
                offset: 0,
                len: 0,
                crc: 0,
                present: 0,
                max_abs_q: 0,
            });
        }
    }
    Ok(tiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(
        out: u32,
        input: u32,
        kernel: u32,
        order: KOrder,
        target: usize,
    ) -> Vec<(u32, u32, u32, u32)> {
        let shape = LayerShape {
            out_channels: out,
            in_per_group: input,
            kernel: [kernel, kernel],
            groups: 1,
        };
        let tiles = tiles(&shape, order, target).unwrap();
        let total: usize = tiles.iter().map(Tile::weights).sum();
        assert_eq!(total, shape.panels() * shape.k() * PANEL);
        tiles
            .iter()
            .map(|t| (t.panel, t.panels, t.k, t.k_len))
            .collect()
    }

    #[test]
    fn shapes() {
        use KOrder::{ChannelMajor, TapMajor};
        assert_eq!(cut(3, 1, 1, ChannelMajor, 65_536), [(0, 1, 0, 1)]);
        // 64x64x3x3 = 36,864 weights: two tiles of at least 16 Ki
        assert_eq!(
            cut(64, 64, 3, ChannelMajor, 65_536),
            [(0, 4, 0, 576), (4, 4, 0, 576)]
        );
        assert_eq!(cut(512, 512, 3, ChannelMajor, 65_536).len(), 64);
        // fully connected, long k
        let fc = cut(16, 32_768, 1, ChannelMajor, 65_536);
        assert_eq!(fc.len(), 8);
        assert_eq!(fc[1], (0, 1, 8192, 8192));
        // k-ranges of whole channels and of whole taps
        assert!(
            cut(8, 100, 3, ChannelMajor, 1000)
                .iter()
                .all(|t| t.2 % 9 == 0 && t.3 % 9 == 0)
        );
        assert!(
            cut(8, 100, 3, TapMajor, 1000)
                .iter()
                .all(|t| t.2 % 100 == 0 && t.3 == 100)
        );
    }

    #[test]
    fn indivisible() {
        let shape = LayerShape {
            out_channels: 8,
            in_per_group: 10_000,
            kernel: [3, 3],
            groups: 1,
        };
        assert_eq!(
            tiles(&shape, KOrder::TapMajor, 65_536).unwrap_err().kind(),
            ErrorKind::Input
        );
        assert!(tiles(&shape, KOrder::ChannelMajor, 65_536).is_ok());
    }
}
