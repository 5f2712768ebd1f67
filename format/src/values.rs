//! From codes to values: which form a layer decodes to, the code of zero, look-up tables and steps.

use crate::layer::{Index, Layer, PANEL, Steps, Values};

/// What [`crate::TileDecoder::decode`] gives without converting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileForm {
    /// Signed codes `q`: the weight is `q * step` ([`Values::Grid`]).
    I8,
    /// Codes of a look-up table, see [`Layer::lut`].
    Lut,
    /// Values; there are no codes, or no code is left that could stand for zero.
    F32,
}

impl Values {
    /// Number of codes that stand for a value; 0 for raw values.
    pub(crate) fn codes(&self) -> usize {
        match self {
            Values::Raw32 | Values::Raw16 => 0,
            Values::Codebook { values, .. } => values.len(),
            Values::Minmax { bits, .. } => 1 << bits,
            Values::Grid { .. } => 256,
        }
    }
    /// The code of exact zero: 0 for a grid, the stated zero code, else the first code that stands for no value, else
    /// none. Padding lanes, weights that the index leaves out and fillers have this code.
    pub fn zero_symbol(&self) -> Option<u8> {
        match self {
            Values::Raw32 | Values::Raw16 => None,
            Values::Grid { .. } => Some(0),
            Values::Codebook { zero_code, .. } | Values::Minmax { zero_code, .. } => {
                zero_code.or_else(|| u8::try_from(self.codes()).ok())
            }
        }
    }
    /// Value of every code when the layer is not raw and not a grid; codes without a value are 0.
    pub fn lut(&self) -> Option<[f32; 256]> {
        let mut lut = [0.0; 256];
        match self {
            Values::Raw32 | Values::Raw16 | Values::Grid { .. } => return None,
            Values::Codebook { values, .. } => lut
                .iter_mut()
                .zip(values)
                .for_each(|(slot, value)| *slot = *value),
            Values::Minmax {
                min,
                delta,
                zero_code,
                ..
            } => {
                for (code, slot) in lut.iter_mut().enumerate().take(self.codes()) {
                    *slot = min + code as f32 * delta;
                }
                if let Some(code) = zero_code {
                    lut[usize::from(*code)] = 0.0;
                }
            }
        }
        Some(lut)
    }
}

impl Layer {
    /// The form this layer decodes to without converting.
    pub fn form(&self) -> TileForm {
        match self.values {
            Values::Raw32 | Values::Raw16 => TileForm::F32,
            Values::Grid { .. } => TileForm::I8,
            Values::Codebook { .. } | Values::Minmax { .. } => {
                if self.fill_code().is_some() {
                    TileForm::Lut
                } else {
                    TileForm::F32
                }
            }
        }
    }
    /// The look-up table of [`TileForm::Lut`].
    pub fn lut(&self) -> Option<[f32; 256]> {
        if self.form() == TileForm::Lut {
            self.values.lut()
        } else {
            None
        }
    }
    /// The code of zero, see [`Values::zero_symbol`].
    pub fn fill_code(&self) -> Option<u8> {
        self.values.zero_symbol()
    }
    /// The steps of the 8 lanes of a panel for the k block that holds `k` (grid only); padding lanes have step 0.
    /// Also gives the first k of the next block.
    pub fn lane_steps(&self, panel: usize, k: usize) -> Option<([f32; PANEL], usize)> {
        let Values::Grid { steps } = &self.values else {
            return None;
        };
        let (first, lanes) = self.shape.panel_channels(panel);
        let mut out = [0.0; PANEL];
        let out_lanes = out.get_mut(..lanes)?;
        let mut next = usize::MAX;
        match steps {
            Steps::Layer(step) => out_lanes.fill(*step),
            Steps::Channel(steps) => out_lanes.copy_from_slice(steps.get(first..first + lanes)?),
            Steps::Block { len, steps } => {
                let len = *len as usize;
                let blocks = self.shape.k().div_ceil(len.max(1));
                let block = k / len.max(1);
                for (lane, slot) in out_lanes.iter_mut().enumerate() {
                    *slot = *steps.get((first + lane) * blocks + block)?;
                }
                next = (block + 1) * len;
            }
        }
        Some((out, next))
    }
    /// Whether the index can leave weights out.
    pub(crate) fn is_sparse(&self) -> bool {
        matches!(
            self.index,
            Index::Mask { .. } | Index::Gaps { .. } | Index::Classes(_)
        )
    }
}
