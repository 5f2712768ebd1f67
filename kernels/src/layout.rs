//! Moving elements without arithmetic: layouts, transposition, slices, concatenation, padding.
//!
//! Everything is a strided copy over at most [`MAX_RANK`] dimensions. Dimensions that lie
//! behind each other in all operands are joined first, so that the innermost loop is as long as
//! the data allow; it is a `memcpy` when both sides are contiguous.

use crate::shape::{View, ViewMut};

/// Most dimensions of an operand.
pub const MAX_RANK: usize = 6;
/// Sizes or strides, right-aligned: unused leading dimensions have size 1.
pub type Dims = [usize; MAX_RANK];

/// Sizes right-aligned, with leading ones; none when there are more than [`MAX_RANK`].
pub fn dims(sizes: &[usize]) -> Option<Dims> {
    let mut out = [1; MAX_RANK];
    let first = MAX_RANK.checked_sub(sizes.len())?;
    out[first..].copy_from_slice(sizes);
    Some(out)
}

/// Strides of a dense row-major operand.
pub fn dense_strides(dims: Dims) -> Dims {
    let mut strides = [1; MAX_RANK];
    for i in (0..MAX_RANK - 1).rev() {
        strides[i] = strides[i + 1] * dims[i + 1];
    }
    strides
}

/// Strides for reading a dense row-major operand of size `from` as if it had size `to`: 0 where it
/// is repeated. None when a size is neither equal nor 1.
pub fn broadcast_strides(from: Dims, to: Dims) -> Option<Dims> {
    let mut strides = dense_strides(from);
    for i in 0..MAX_RANK {
        if from[i] != to[i] {
            if from[i] != 1 {
                return None;
            }
            strides[i] = 0;
        }
    }
    Some(strides)
}

/// A loop nest over `N` operands: sizes and, per dimension, one stride per operand.
pub(crate) struct Nest<const N: usize> {
    sizes: Dims,
    strides: [[usize; N]; MAX_RANK],
}

impl<const N: usize> Nest<N> {
    /// Joins dimensions where every operand allows it.
    pub(crate) fn new(dims: Dims, strides: [Dims; N]) -> Nest<N> {
        let mut nest = Nest {
            sizes: [1; MAX_RANK],
            strides: [[0; N]; MAX_RANK],
        };
        let mut to = MAX_RANK - 1;
        let mut used = false;
        for i in (0..MAX_RANK).rev() {
            if dims[i] == 1 {
                continue;
            }
            let here: [usize; N] = std::array::from_fn(|o| strides[o][i]);
            let joins = used && (0..N).all(|o| here[o] == nest.strides[to][o] * nest.sizes[to]);
            if joins {
                nest.sizes[to] *= dims[i];
                continue;
            }
            if used {
                to -= 1;
            }
            used = true;
            nest.sizes[to] = dims[i];
            nest.strides[to] = here;
        }
        nest
    }

    /// Length and strides of the innermost loop.
    pub(crate) fn inner(&self) -> (usize, [usize; N]) {
        (self.sizes[MAX_RANK - 1], self.strides[MAX_RANK - 1])
    }

    /// Calls `body` with the operands' offsets for every round of the innermost loop.
    pub(crate) fn outer(&self, mut body: impl FnMut([usize; N])) {
        let rounds: usize = self.sizes[..MAX_RANK - 1].iter().product();
        if self.sizes[MAX_RANK - 1] == 0 {
            return;
        }
        let mut index = [0usize; MAX_RANK - 1];
        let mut offsets = [0usize; N];
        for _ in 0..rounds {
            body(offsets);
            for d in (0..MAX_RANK - 1).rev() {
                index[d] += 1;
                for o in 0..N {
                    offsets[o] += self.strides[d][o];
                }
                if index[d] < self.sizes[d] {
                    break;
                }
                for o in 0..N {
                    offsets[o] -= self.strides[d][o] * self.sizes[d];
                }
                index[d] = 0;
            }
        }
    }
}

/// Copies `dims` elements between any strides. A transposition permutes `src_strides`, a slice
/// starts `src` at its first element and multiplies a stride by the step, a concatenation starts
/// `dst` at the part's place.
pub fn copy_strided(
    dims: Dims,
    src: &[f32],
    src_strides: Dims,
    dst: &mut [f32],
    dst_strides: Dims,
) {
    let nest = Nest::new(dims, [src_strides, dst_strides]);
    let (len, [from_step, to_step]) = nest.inner();
    nest.outer(|[from, to]| {
        if from_step == 1 && to_step == 1 || len == 1 {
            dst[to..to + len].copy_from_slice(&src[from..from + len]);
        } else {
            for i in 0..len {
                dst[to + i * to_step] = src[from + i * from_step];
            }
        }
    });
}

/// Writes one value to `dims` elements.
pub fn fill_strided(dims: Dims, value: f32, dst: &mut [f32], strides: Dims) {
    let nest = Nest::new(dims, [strides]);
    let (len, [step]) = nest.inner();
    nest.outer(|[to]| {
        if step == 1 {
            dst[to..to + len].fill(value);
        } else {
            (0..len).for_each(|i| dst[to + i * step] = value);
        }
    });
}

/// Constant padding: the input goes to position `before` of the output, the rest is `value`.
#[expect(clippy::too_many_arguments)]
pub fn pad(
    value: f32,
    src: &[f32],
    src_dims: Dims,
    src_strides: Dims,
    before: Dims,
    dst: &mut [f32],
    dst_dims: Dims,
    dst_strides: Dims,
) {
    fill_strided(dst_dims, value, dst, dst_strides);
    let first: usize = before.iter().zip(&dst_strides).map(|(b, s)| b * s).sum();
    if src_dims.contains(&0) {
        return;
    }
    copy_strided(src_dims, src, src_strides, &mut dst[first..], dst_strides);
}

/// Copies a map to a map of the same dimensions and any layout.
pub fn copy_view(src: View<'_>, dst: &mut ViewMut<'_>) {
    let (from, to) = (src.map, dst.map);
    assert!(
        (from.n, from.c, from.h, from.w) == (to.n, to.c, to.h, to.w),
        "maps of different dimensions"
    );
    copy_strided(
        from.dims(),
        src.data,
        from.strides(),
        dst.data,
        to.strides(),
    );
}
