//! A layer's weights as one OIHW array: for oracles, tools and tests, never for running.

use crate::container::Container;
use crate::decode::{TileDecoder, TileOut};
use crate::error::Result;
use crate::graph::LayerId;
use crate::layer::{KOrder, LayerShape, PANEL, Tile};

/// Calls `visit(position in the tile, position in OIHW)` for every weight of a tile in tile order; the second is `None`
/// for padding lanes.
pub(crate) fn for_each_weight(
    shape: &LayerShape,
    order: KOrder,
    tile: &Tile,
    mut visit: impl FnMut(usize, Option<usize>),
) {
    let taps = shape.kernel[0] as usize * shape.kernel[1] as usize;
    let (layer_k, channels) = (shape.k(), shape.in_per_group as usize);
    let mut position = 0;
    for panel in tile.panel..tile.panel + tile.panels {
        let (first, lanes) = shape.panel_channels(panel as usize);
        for k in tile.k as usize..(tile.k + tile.k_len) as usize {
            let inner = match order {
                KOrder::ChannelMajor => k,
                KOrder::TapMajor => (k % channels) * taps + k / channels,
            };
            for lane in 0..PANEL {
                visit(
                    position,
                    (lane < lanes).then(|| (first + lane) * layer_k + inner),
                );
                position += 1;
            }
        }
    }
}

impl Container {
    /// All weights of a layer, OIHW.
    pub fn dense_weights(&self, net: usize, id: LayerId) -> Result<Vec<f32>> {
        let layer = self.layer(net, id)?;
        let mut decoder = TileDecoder::keeping_tables(self, net)?;
        let mut dense = vec![0.0; layer.shape.weights() as usize];
        let mut buffer = Vec::new();
        for (index, tile) in layer.tiles.iter().enumerate() {
            buffer.clear();
            buffer.resize(tile.weights(), 0.0);
            decoder.decode(self, net, id, index, TileOut::F32(&mut buffer))?;
            for_each_weight(&layer.shape, layer.k_order, tile, |from, to| {
                if let Some(to) = to {
                    dense[to] = buffer[from];
                }
            });
        }
        Ok(dense)
    }
}
