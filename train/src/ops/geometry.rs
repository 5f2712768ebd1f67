//! Where a window meets a plane: sizes, padding and the range of outputs whose tap lies inside.

use dcz_format::graph::Pads;

/// One axis of a windowed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Input size.
    pub input: usize,
    /// Output size.
    pub output: usize,
    /// Window size.
    pub kernel: usize,
    /// Distance of windows.
    pub stride: usize,
    /// Distance of taps.
    pub dilation: usize,
    /// Padding before the first element.
    pub before: usize,
}

impl Axis {
    /// Outputs `from..to` whose tap `k` reads inside the input, and the input index that `from` reads.
    #[inline]
    pub fn range(&self, k: usize) -> (usize, usize, usize) {
        let offset = k * self.dilation;
        let from = self.before.saturating_sub(offset).div_ceil(self.stride);
        let limit = self.input + self.before;
        let to = if limit > offset {
            (limit - offset).div_ceil(self.stride).min(self.output)
        } else {
            0
        };
        if from >= to {
            return (0, 0, 0);
        }
        (from, to, from * self.stride + offset - self.before)
    }

    /// Input index of tap `k` of output `o`, when inside.
    #[inline]
    pub fn source(&self, o: usize, k: usize) -> Option<usize> {
        (o * self.stride + k * self.dilation)
            .checked_sub(self.before)
            .filter(|&i| i < self.input)
    }
}

/// Both axes of a windowed operation: vertical, horizontal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Vertical.
    pub y: Axis,
    /// Horizontal.
    pub x: Axis,
}

impl Window {
    /// Sizes of a window with ONNX's rules; none when the window does not fit.
    pub fn new(
        input: [usize; 2],
        kernel: [u32; 2],
        strides: [u32; 2],
        dilations: [u32; 2],
        pads: Pads,
        ceil_mode: bool,
    ) -> Option<Window> {
        let axis = |i: usize| {
            let (kernel, stride) = (kernel[i] as usize, strides[i] as usize);
            let dilation = dilations[i] as usize;
            let span = (kernel.checked_sub(1)?) * dilation + 1;
            if stride == 0 || dilation == 0 {
                return None;
            }
            let (before, after) = match pads {
                Pads::Explicit(p) => (p[i] as usize, p[i + 2] as usize),
                Pads::SameUpper | Pads::SameLower => {
                    let total = ((input[i].div_ceil(stride).max(1) - 1) * stride + span)
                        .saturating_sub(input[i]);
                    match pads {
                        Pads::SameLower => (total - total / 2, total / 2),
                        _ => (total / 2, total - total / 2),
                    }
                }
            };
            let room = (input[i] + before + after).checked_sub(span)?;
            let mut output = room / stride + 1;
            if ceil_mode && room % stride != 0 && output * stride < input[i] + before {
                output += 1;
            }
            Some(Axis {
                input: input[i],
                output,
                kernel,
                stride,
                dilation,
                before,
            })
        };
        Some(Window {
            y: axis(0)?,
            x: axis(1)?,
        })
    }

    /// Elements of an input plane.
    pub fn plane(&self) -> usize {
        self.y.input * self.x.input
    }

    /// Elements of an output plane.
    pub fn out_plane(&self) -> usize {
        self.y.output * self.x.output
    }

    /// Taps.
    pub fn taps(&self) -> usize {
        self.y.kernel * self.x.kernel
    }

    /// One tap, stride 1, no padding: a pointwise convolution needs no window at all.
    pub fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.plane() == self.out_plane() && self.y.before + self.x.before == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_single_taps() {
        for (input, kernel, stride, dilation, pad) in [
            (7, 3, 1, 1, 1),
            (8, 3, 2, 1, 1),
            (5, 5, 2, 1, 2),
            (9, 3, 1, 2, 2),
            (3, 7, 1, 1, 3),
            (4, 1, 2, 1, 0),
        ] {
            let w = Window::new(
                [input, input],
                [kernel; 2],
                [stride; 2],
                [dilation; 2],
                Pads::Explicit([pad; 4]),
                false,
            )
            .unwrap();
            for k in 0..w.x.kernel {
                let inside: Vec<usize> = (0..w.x.output)
                    .filter(|&o| w.x.source(o, k).is_some())
                    .collect();
                let (from, to, first) = w.x.range(k);
                assert_eq!((from..to).collect::<Vec<_>>(), inside);
                if from < to {
                    assert_eq!(w.x.source(from, k), Some(first));
                }
            }
        }
    }

    #[test]
    fn same_padding_puts_the_odd_row_where_it_belongs() {
        let upper = Window::new([8, 8], [3, 3], [2, 2], [1, 1], Pads::SameUpper, false).unwrap();
        let lower = Window::new([8, 8], [3, 3], [2, 2], [1, 1], Pads::SameLower, false).unwrap();
        assert_eq!((upper.x.output, upper.x.before, lower.x.before), (4, 0, 1));
    }
}
