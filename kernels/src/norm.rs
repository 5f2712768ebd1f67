//! Normalisation along one axis, in place. The operand is `[outer][len][inner]`, dense; `len` is
//! the axis (or several adjacent ones).

use crate::math;

/// `[outer][len][inner]` with the normalised axis in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Product of the sizes before the axis.
    pub outer: usize,
    /// Size of the axis.
    pub len: usize,
    /// Product of the sizes behind the axis.
    pub inner: usize,
}

impl Axis {
    /// Calls `body` with the offset of every line along the axis.
    fn lines(&self, mut body: impl FnMut(usize)) {
        for o in 0..self.outer {
            for i in 0..self.inner {
                body(o * self.len * self.inner + i);
            }
        }
    }
    /// The positions of a line.
    fn line(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        let inner = self.inner;
        (0..self.len).map(move |k| first + k * inner)
    }
}

/// `exp(x - max) / sum(exp(x - max))` along the axis.
pub fn softmax(axis: Axis, data: &mut [f32]) {
    axis.lines(|first| {
        let max = axis
            .line(first)
            .map(|i| data[i])
            .fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0f32;
        for i in axis.line(first) {
            let e = math::exp(data[i] - max);
            data[i] = e;
            sum += e;
        }
        for i in axis.line(first) {
            data[i] /= sum;
        }
    });
}

/// The norm of [`lp_normalize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Sum of magnitudes.
    L1,
    /// Square root of the sum of squares.
    L2,
}

/// `x / max(norm(x), epsilon)` along the axis; a zero vector stays zero.
pub fn lp_normalize(norm: Norm, epsilon: f32, axis: Axis, data: &mut [f32]) {
    axis.lines(|first| {
        // f64: a long line of squares must neither overflow nor lose its small terms.
        let sum = axis
            .line(first)
            .map(|i| f64::from(data[i]))
            .fold(0f64, |sum, x| match norm {
                Norm::L1 => sum + x.abs(),
                Norm::L2 => sum + x * x,
            });
        let size = match norm {
            Norm::L1 => sum,
            Norm::L2 => sum.sqrt(),
        };
        let size = (size as f32).max(epsilon);
        if size > 0.0 {
            for i in axis.line(first) {
                data[i] /= size;
            }
        }
    });
}
