//! Dense convolution as patches times weights: `Y = W * im2col(X)`.
//!
//! Columns (outputs) are divided into strips whose patches stay in the cache: values are read through [`Entry`], copied to
//! patches (a pointwise convolution needs no copying), multiplied, and forgotten; the backward pass makes them again. Gradients:
//! `dW = dY * im2col(X)^T`, `dX = col2im(W^T * dY)`. Sums over columns are made in a fixed number of groups.

use candle_core::Result;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::entry::{Entry, Point, add_sums};
use super::geometry::Window;
use super::matrix::{GROUPS, matrix, matrix_mut, strip};
use super::param::{Param, add};
use super::vectorised;

/// `x [C, N H W]`, `w [O, C/g kh kw]` to `[O, N OH OW]`.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Sizes of the window.
    pub window: Window,
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub outputs: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Images.
    pub images: usize,
    /// The weights.
    pub weights: Param,
}

/// What a group of columns adds to the gradients.
struct Part {
    weights: Vec<f32>,
    sums: Vec<[f32; 2]>,
}

/// One group of channels.
struct Block<'a> {
    conv: &'a Conv,
    points: &'a [Point],
    /// Values are read as they are.
    plain: bool,
    w: ArrayView2<'a, f32>,
    x: ArrayView2<'a, f32>,
}

impl Conv {
    /// Channels of a group, its outputs, and inputs of an output.
    fn sizes(&self) -> (usize, usize, usize) {
        let groups = self.groups.max(1);
        let channels = self.channels / groups;
        (
            channels,
            self.outputs / groups,
            channels * self.window.taps(),
        )
    }

    fn block<'a>(
        &'a self,
        entry: &Entry,
        points: &'a [Point],
        x: &'a [f32],
        g: usize,
    ) -> Result<Block<'a>> {
        let (channels, outputs, k) = self.sizes();
        let columns = self.images * self.window.plane();
        Ok(Block {
            conv: self,
            points: &points[g * channels..(g + 1) * channels],
            plain: entry.is_none(),
            w: matrix(
                &self.weights.values[g * outputs * k..(g + 1) * outputs * k],
                outputs,
                k,
            )?,
            x: matrix(
                &x[g * channels * columns..(g + 1) * channels * columns],
                channels,
                columns,
            )?,
        })
    }

    pub(crate) fn forward(&self, entry: &Entry, x: &[f32], y: &mut [f32]) -> Result<()> {
        let (_, outputs, _) = self.sizes();
        let points = entry.points(self.channels);
        let columns = self.images * self.window.out_plane();
        for (g, y) in y.chunks_exact_mut((outputs * columns).max(1)).enumerate() {
            let block = self.block(entry, &points, x, g)?;
            let mut y = matrix_mut(y, outputs, columns)?;
            if self.window.is_pointwise() {
                block.pointwise(&mut y);
            } else {
                block.windowed(&mut y);
            }
        }
        Ok(())
    }

    /// Gradients from `dy`: of the input into `dx`, of parameters into their sinks.
    pub(crate) fn backward(
        &self,
        entry: &Entry,
        x: &[f32],
        dy: &[f32],
        mut dx: Option<&mut [f32]>,
    ) -> Result<()> {
        let (channels, outputs, k) = self.sizes();
        let points = entry.points(self.channels);
        let columns = self.images * self.window.out_plane();
        let row = self.images * self.window.plane();
        let mut dw = Vec::with_capacity(self.outputs * k);
        let mut sums = Vec::with_capacity(self.channels);
        for g in 0..self.groups.max(1) {
            let block = self.block(entry, &points, x, g)?;
            let dy = &dy[g * outputs * columns..(g + 1) * outputs * columns];
            let dy = matrix(dy, outputs, columns)?;
            let mut dx = match &mut dx {
                Some(dx) => Some(matrix_mut(
                    &mut dx[g * channels * row..(g + 1) * channels * row],
                    channels,
                    row,
                )?),
                None => None,
            };
            let dx = dx.as_mut().map(|dx| dx.view_mut());
            let part = if self.window.is_pointwise() {
                block.pointwise_backward(&dy, dx)
            } else {
                block.windowed_backward(&dy, dx)
            };
            dw.extend_from_slice(&part.weights);
            sums.extend_from_slice(&part.sums);
        }
        self.weights.add(dw);
        entry.learn(&sums);
        Ok(())
    }
}

/// Adds parts in their order.
fn join(parts: Vec<Part>) -> Part {
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or(Part {
        weights: Vec::new(),
        sums: Vec::new(),
    });
    for part in parts {
        add(&mut total.weights, &part.weights);
        add_sums(&mut total.sums, &part.sums);
    }
    total
}

/// Groups of `per_group` columns of a matrix that may be absent.
fn column_groups(
    dx: Option<ArrayViewMut2<'_, f32>>,
    per_group: usize,
    groups: usize,
) -> Vec<Option<ArrayViewMut2<'_, f32>>> {
    let mut rest = dx;
    (0..groups)
        .map(|_| {
            let view = rest.take()?;
            let at = per_group.min(view.ncols());
            let (head, tail) = view.split_at(Axis(1), at);
            rest = Some(tail);
            Some(head)
        })
        .collect()
}

impl Block<'_> {
    /// Strips of a pointwise convolution: columns of one, and strips in a group.
    fn strips(&self, columns: usize) -> (usize, usize) {
        let width = strip(self.w.ncols().max(self.w.nrows())).min(columns.div_ceil(GROUPS).max(16));
        (width, columns.div_ceil(width).div_ceil(GROUPS).max(1))
    }

    /// Columns `from..` of the input as the layer reads them.
    fn read<'s>(
        &'s self,
        from: usize,
        count: usize,
        scratch: &'s mut Vec<f32>,
    ) -> Option<ArrayView2<'s, f32>> {
        let x = self.x.slice_move(s![.., from..from + count]);
        if self.plain {
            return Some(x);
        }
        scratch.resize(x.len(), 0.0);
        for ((out, x), point) in scratch
            .chunks_exact_mut(count.max(1))
            .zip(x.rows())
            .zip(self.points)
        {
            let x = x.to_slice()?;
            vectorised(
                #[inline(always)]
                || point.apply(out, x),
            );
        }
        ArrayView2::from_shape(x.raw_dim(), scratch).ok()
    }

    fn pointwise(&self, y: &mut ArrayViewMut2<'_, f32>) {
        let (width, _) = self.strips(y.ncols());
        let strips: Vec<_> = y.axis_chunks_iter_mut(Axis(1), width).collect();
        strips
            .into_par_iter()
            .enumerate()
            .for_each_init(Vec::new, |scratch, (i, mut y)| {
                if let Some(a) = self.read(i * width, y.ncols(), scratch) {
                    general_mat_mul(1.0, &self.w, &a, 0.0, &mut y);
                }
            });
    }

    fn pointwise_backward(
        &self,
        dy: &ArrayView2<'_, f32>,
        dx: Option<ArrayViewMut2<'_, f32>>,
    ) -> Part {
        let columns = dy.ncols();
        let (width, per_group) = self.strips(columns);
        let span = width * per_group;
        let groups = columns.div_ceil(span.max(1)).max(1);
        let parts = column_groups(dx, span, groups)
            .into_par_iter()
            .enumerate()
            .map(|(group, mut dx)| {
                let mut part = self.part();
                let mut scratch = Vec::new();
                let (from, to) = (group * span, ((group + 1) * span).min(columns));
                for at in (from..to).step_by(width) {
                    let count = width.min(to - at);
                    let dy = dy.slice(s![.., at..at + count]);
                    self.weight_gradient(&mut part, at, &dy, &mut scratch);
                    let Some(dx) = &mut dx else { continue };
                    let mut dx = dx.slice_mut(s![.., at - from..at - from + count]);
                    general_mat_mul(1.0, &self.w.t(), &dy, 0.0, &mut dx);
                    self.enter(&mut part, at, &mut dx);
                }
                part
            })
            .collect();
        join(parts)
    }

    fn part(&self) -> Part {
        Part {
            weights: vec![0.0; self.w.len()],
            sums: vec![[0.0; 2]; self.points.len()],
        }
    }

    /// Adds `dY * A^T` of columns `at..` to the gradient of the weights.
    fn weight_gradient(
        &self,
        part: &mut Part,
        at: usize,
        dy: &ArrayView2<'_, f32>,
        scratch: &mut Vec<f32>,
    ) {
        if let Some(a) = self.read(at, dy.ncols(), scratch)
            && let Ok(mut dw) = ArrayViewMut2::from_shape(self.w.raw_dim(), &mut part.weights)
        {
            general_mat_mul(1.0, dy, &a.t(), 1.0, &mut dw);
        }
    }

    /// Takes gradients of columns `at..` back through bias and function.
    fn enter(&self, part: &mut Part, at: usize, d: &mut ArrayViewMut2<'_, f32>) {
        if self.plain {
            return;
        }
        let x = self.x.slice(s![.., at..at + d.ncols()]);
        let rows = d.rows_mut().into_iter().zip(x.rows());
        for (((mut d, x), point), sums) in rows.zip(self.points).zip(&mut part.sums) {
            if let (Some(d), Some(x)) = (d.as_slice_mut(), x.to_slice()) {
                let [bias, slope] = vectorised(
                    #[inline(always)]
                    || point.backward(d, x),
                );
                sums[0] += bias;
                sums[1] += slope;
            }
        }
    }

    fn window(&self) -> &Window {
        &self.conv.window
    }

    /// Rows of outputs whose patches are made at a time.
    fn rows_at_once(&self) -> usize {
        let w = self.window();
        (strip(self.w.ncols()) / w.x.output.max(1)).clamp(1, w.y.output.max(1))
    }

    fn windowed(&self, y: &mut ArrayViewMut2<'_, f32>) {
        let w = self.window();
        let (plane, out_plane, step) = (w.plane(), w.out_plane(), self.rows_at_once());
        let images: Vec<_> = y.axis_chunks_iter_mut(Axis(1), out_plane.max(1)).collect();
        images.into_par_iter().enumerate().for_each_init(
            || (Vec::new(), Vec::new()),
            |(scratch, patches), (n, mut y)| {
                let Some(a) = self.read(n * plane, plane, scratch) else {
                    return;
                };
                for from in (0..w.y.output).step_by(step) {
                    let to = (from + step).min(w.y.output);
                    let patches = self.patches(&a, from, to, patches);
                    let mut y = y.slice_mut(s![.., from * w.x.output..to * w.x.output]);
                    if let Ok(patches) = patches {
                        general_mat_mul(1.0, &self.w, &patches, 0.0, &mut y);
                    }
                }
            },
        );
    }

    fn windowed_backward(
        &self,
        dy: &ArrayView2<'_, f32>,
        dx: Option<ArrayViewMut2<'_, f32>>,
    ) -> Part {
        let w = self.window();
        let (plane, out_plane) = (w.plane(), w.out_plane());
        let per_group = self.conv.images.div_ceil(GROUPS).max(1);
        let groups = self.conv.images.div_ceil(per_group).max(1);
        let parts = column_groups(dx, per_group * plane, groups)
            .into_par_iter()
            .enumerate()
            .map(|(group, mut dx)| {
                let mut part = self.part();
                let mut buffers = Buffers::default();
                let first = group * per_group;
                for n in first..(first + per_group).min(self.conv.images) {
                    let dy = dy.slice(s![.., n * out_plane..(n + 1) * out_plane]);
                    let at = (n - first) * plane;
                    let dx = dx.as_mut().map(|dx| dx.slice_mut(s![.., at..at + plane]));
                    self.image_backward(&mut part, n, &dy, dx, &mut buffers);
                }
                part
            })
            .collect();
        join(parts)
    }

    fn image_backward(
        &self,
        part: &mut Part,
        image: usize,
        dy: &ArrayView2<'_, f32>,
        mut dx: Option<ArrayViewMut2<'_, f32>>,
        buffers: &mut Buffers,
    ) {
        let w = self.window();
        let (plane, step, k) = (w.plane(), self.rows_at_once(), self.w.ncols());
        let Some(a) = self.read(image * plane, plane, &mut buffers.input) else {
            return;
        };
        if let Some(dx) = &mut dx {
            dx.fill(0.0);
        }
        for from in (0..w.y.output).step_by(step) {
            let to = (from + step).min(w.y.output);
            let dy = dy.slice(s![.., from * w.x.output..to * w.x.output]);
            if let Ok(patches) = self.patches(&a, from, to, &mut buffers.patches)
                && let Ok(mut dw) = ArrayViewMut2::from_shape(self.w.raw_dim(), &mut part.weights)
            {
                general_mat_mul(1.0, &dy, &patches.t(), 1.0, &mut dw);
            }
            let Some(dx) = &mut dx else { continue };
            buffers.back.resize(k * dy.ncols(), 0.0);
            if let Ok(mut back) = ArrayViewMut2::from_shape((k, dy.ncols()), &mut buffers.back) {
                general_mat_mul(1.0, &self.w.t(), &dy, 0.0, &mut back);
                self.add_patches(dx, &buffers.back, from, to);
            }
        }
        if let Some(mut dx) = dx {
            self.enter(part, image * plane, &mut dx);
        }
    }

    /// Patches of output rows `from..to` of one image: `[C kh kw, rows OW]`.
    fn patches<'s>(
        &self,
        a: &ArrayView2<'_, f32>,
        from: usize,
        to: usize,
        patches: &'s mut Vec<f32>,
    ) -> Result<ArrayView2<'s, f32>> {
        let w = self.window();
        let (taps, columns) = (w.taps(), (to - from) * w.x.output);
        patches.resize(self.w.ncols() * columns, 0.0);
        for (row, out) in patches.chunks_exact_mut(columns.max(1)).enumerate() {
            let (c, ky, kx) = (row / taps, row % taps / w.x.kernel, row % w.x.kernel);
            let Some(source) = a.row(c).to_slice() else {
                continue;
            };
            let (x_from, x_to, x_first) = w.x.range(kx);
            for (oy, out) in (from..to).zip(out.chunks_exact_mut(w.x.output)) {
                let Some(iy) = w.y.source(oy, ky).filter(|_| x_from < x_to) else {
                    out.fill(0.0);
                    continue;
                };
                let line = &source[iy * w.x.input + x_first..(iy + 1) * w.x.input];
                out[..x_from].fill(0.0);
                out[x_to..].fill(0.0);
                let out = &mut out[x_from..x_to];
                if w.x.stride == 1 {
                    let len = out.len();
                    out.copy_from_slice(&line[..len]);
                } else {
                    for (o, i) in out.iter_mut().zip(line.iter().step_by(w.x.stride)) {
                        *o = *i;
                    }
                }
            }
        }
        matrix(patches, self.w.ncols(), columns)
    }

    /// Adds gradients of patches of output rows `from..to` to those of an image.
    fn add_patches(
        &self,
        dx: &mut ArrayViewMut2<'_, f32>,
        patches: &[f32],
        from: usize,
        to: usize,
    ) {
        let w = self.window();
        let (taps, columns) = (w.taps(), (to - from) * w.x.output);
        for (c, mut dx) in dx.rows_mut().into_iter().enumerate() {
            let Some(target) = dx.as_slice_mut() else {
                continue;
            };
            for tap in 0..taps {
                let (ky, kx) = (tap / w.x.kernel, tap % w.x.kernel);
                let (x_from, x_to, x_first) = w.x.range(kx);
                let row = &patches[(c * taps + tap) * columns..][..columns];
                for (oy, row) in (from..to).zip(row.chunks_exact(w.x.output)) {
                    let Some(iy) = w.y.source(oy, ky).filter(|_| x_from < x_to) else {
                        continue;
                    };
                    let line = &mut target[iy * w.x.input + x_first..(iy + 1) * w.x.input];
                    for (i, o) in line.iter_mut().step_by(w.x.stride).zip(&row[x_from..x_to]) {
                        *i += *o;
                    }
                }
            }
        }
    }
}

/// Working memory of a group.
#[derive(Default)]
struct Buffers {
    input: Vec<f32>,
    patches: Vec<f32>,
    back: Vec<f32>,
}
