//! What a layer reads at one output position: the patch of its input under the kernel.

use dcz::shape::{self, Window};
use dcz_format::graph::{Node, Op};
use dcz_format::layer::LayerShape;

use crate::error::Error;

/// Geometry of a layer applied to an input of fixed size (batch 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// Output channels, inputs per group, kernel, groups.
    pub shape: LayerShape,
    /// Rows of a linear layer; else 0.
    rows: usize,
    size: [usize; 2],
    out: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pad: [usize; 2],
}

impl Patches {
    /// Of a node with weights that reads a tensor of these dimensions.
    ///
    /// Errors: [`Error::Usage`] for a batch other than 1.
    pub fn of(node: &Node, shape: LayerShape, dims: &[usize]) -> Result<Patches, Error> {
        let wrong = |why: String| Error::Usage(format!("node '{}': {why}", node.name));
        let Op::Conv(conv) = &node.op else {
            let elements: usize = dims.iter().product();
            return Ok(Patches {
                shape,
                rows: elements / shape.k().max(1),
                size: [1, 1],
                out: [1, 1],
                stride: [1, 1],
                dilation: [1, 1],
                pad: [0, 0],
            });
        };
        let [batch, _, h, w] = shape::nchw(dims).map_err(|e| wrong(e.to_string()))?;
        if batch != 1 {
            return Err(wrong("calibration runs one image at a time".into()));
        }
        let [v, u]: [Window; 2] =
            shape::conv_windows(conv, shape.kernel, h, w).map_err(|e| wrong(e.to_string()))?;
        Ok(Patches {
            shape,
            rows: 0,
            size: [h, w],
            out: [v.out, u.out],
            stride: conv.strides.map(|s| s as usize),
            dilation: conv.dilations.map(|s| s as usize),
            pad: [v.pad, u.pad],
        })
    }

    /// Output positions.
    pub fn positions(&self) -> usize {
        if self.rows > 0 {
            self.rows
        } else {
            self.out[0] * self.out[1]
        }
    }

    /// Inputs of all groups together: the length of a patch.
    pub fn width(&self) -> usize {
        self.shape.k() * self.shape.groups as usize
    }

    /// Inputs of one output channel.
    pub fn k(&self) -> usize {
        self.shape.k()
    }

    /// Output channels of a group.
    pub fn rows_per_group(&self) -> usize {
        self.shape.out_channels as usize / (self.shape.groups as usize).max(1)
    }

    /// Calls `visit(index in the patch, index in the input)` for every element that is not padding.
    fn visit(&self, position: usize, mut visit: impl FnMut(usize, usize)) {
        if self.rows > 0 {
            let k = self.shape.k();
            (0..k).for_each(|i| visit(i, position * k + i));
            return;
        }
        let [kh, kw] = self.shape.kernel.map(|v| v as usize);
        let (y, x) = (position / self.out[1], position % self.out[1]);
        let channels = self.shape.in_per_group as usize * self.shape.groups as usize;
        for ky in 0..kh {
            let row = (y * self.stride[0] + ky * self.dilation[0]).wrapping_sub(self.pad[0]);
            if row >= self.size[0] {
                continue;
            }
            for kx in 0..kw {
                let column = (x * self.stride[1] + kx * self.dilation[1]).wrapping_sub(self.pad[1]);
                if column >= self.size[1] {
                    continue;
                }
                let (tap, at) = (ky * kw + kx, row * self.size[1] + column);
                for c in 0..channels {
                    visit(c * kh * kw + tap, c * self.size[0] * self.size[1] + at);
                }
            }
        }
    }

    /// Copies the patch at a position into `patch` (`[channel][tap]`, as weights are ordered); padding is zero.
    pub fn gather(&self, input: &[f32], position: usize, patch: &mut [f32]) {
        patch.fill(0.0);
        self.visit(position, |to, from| patch[to] = input[from]);
    }

    /// Adds a patch back to where it was taken from.
    pub fn scatter(&self, patch: &[f32], position: usize, input: &mut [f32]) {
        self.visit(position, |from, to| input[to] += patch[from]);
    }
}
