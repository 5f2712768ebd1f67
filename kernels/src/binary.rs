//! Element-wise arithmetic of two operands with NumPy broadcasting.

use crate::layout::{Dims, Nest};

/// The operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryKind {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
}

/// An operand: element `i` is at the dot product of `i` and `strides`; a stride of 0 broadcasts.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// One stride per dimension.
    pub strides: Dims,
}

/// Calls `$f(args.., operation)` with the operation as a closure, so that each gets its own loop.
macro_rules! with_operation {
    ($kind:expr, $f:ident($($arg:expr),*)) => {
        match $kind {
            BinaryKind::Add => $f($($arg,)* |a: f32, b: f32| a + b),
            BinaryKind::Sub => $f($($arg,)* |a: f32, b: f32| a - b),
            BinaryKind::Mul => $f($($arg,)* |a: f32, b: f32| a * b),
            BinaryKind::Div => $f($($arg,)* |a: f32, b: f32| a / b),
        }
    };
}

/// `out = a op b` for slices of equal length.
pub fn binary_same(kind: BinaryKind, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(
        a.len() == out.len() && b.len() == out.len(),
        "operands of different lengths"
    );
    fn each(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
        for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *o = f(a, b);
        }
    }
    with_operation!(kind, each(a, b, out));
}

/// `target = target op b` for slices of equal length.
pub fn binary_in_place(kind: BinaryKind, target: &mut [f32], b: &[f32]) {
    assert_eq!(target.len(), b.len(), "operands of different lengths");
    fn each(target: &mut [f32], b: &[f32], f: impl Fn(f32, f32) -> f32) {
        for (t, &b) in target.iter_mut().zip(b) {
            *t = f(*t, b);
        }
    }
    with_operation!(kind, each(target, b));
}

/// `target = a op target` for slices of equal length.
pub fn binary_in_place_reversed(kind: BinaryKind, a: &[f32], target: &mut [f32]) {
    assert_eq!(target.len(), a.len(), "operands of different lengths");
    fn each(target: &mut [f32], a: &[f32], f: impl Fn(f32, f32) -> f32) {
        for (t, &a) in target.iter_mut().zip(a) {
            *t = f(a, *t);
        }
    }
    with_operation!(kind, each(target, a));
}

/// `out = a op b` over `dims` with any strides.
pub fn binary(
    kind: BinaryKind,
    dims: Dims,
    a: Operand<'_>,
    b: Operand<'_>,
    out: &mut [f32],
    out_strides: Dims,
) {
    let nest = Nest::new(dims, [a.strides, b.strides, out_strides]);
    let (len, steps) = nest.inner();
    // One loop over the rows for all operations.
    nest.outer(|at| with_operation!(kind, row(len, steps, at, a.data, b.data, out)));
}

/// `target = target op b` over `dims` with any strides, or `b op target` when `b_first`; `target` has
/// an element of its own for every index.
pub fn binary_update(
    kind: BinaryKind,
    dims: Dims,
    target: &mut [f32],
    target_strides: Dims,
    b: Operand<'_>,
    b_first: bool,
) {
    let nest = Nest::new(dims, [target_strides, b.strides]);
    let (len, steps) = nest.inner();
    nest.outer(|at| {
        if b_first {
            with_operation!(kind, update_reversed(len, steps, at, target, b.data));
        } else {
            with_operation!(kind, update(len, steps, at, target, b.data));
        }
    });
}

fn update_reversed(
    len: usize,
    steps: [usize; 2],
    at: [usize; 2],
    target: &mut [f32],
    b: &[f32],
    f: impl Fn(f32, f32) -> f32,
) {
    update(len, steps, at, target, b, |t, b| f(b, t));
}

/// The innermost loop: `len` elements from offsets `at` on, `steps` apart.
fn update(
    len: usize,
    steps: [usize; 2],
    [at, at_b]: [usize; 2],
    target: &mut [f32],
    b: &[f32],
    f: impl Fn(f32, f32) -> f32,
) {
    match steps {
        [1, 1] => {
            let pairs = target[at..at + len].iter_mut().zip(&b[at_b..at_b + len]);
            pairs.for_each(|(t, &b)| *t = f(*t, b));
        }
        [1, 0] => {
            let b = b[at_b];
            target[at..at + len].iter_mut().for_each(|t| *t = f(*t, b));
        }
        [step, step_b] => {
            for i in 0..len {
                let t = &mut target[at + i * step];
                *t = f(*t, b[at_b + i * step_b]);
            }
        }
    }
}

/// The same into another place.
fn row(
    len: usize,
    steps: [usize; 3],
    [at_a, at_b, at_out]: [usize; 3],
    a: &[f32],
    b: &[f32],
    out: &mut [f32],
    f: impl Fn(f32, f32) -> f32,
) {
    match steps {
        [1, 1, 1] => {
            let (a, b) = (&a[at_a..at_a + len], &b[at_b..at_b + len]);
            for ((o, &a), &b) in out[at_out..at_out + len].iter_mut().zip(a).zip(b) {
                *o = f(a, b);
            }
        }
        [1, 0, 1] => {
            let (a, b) = (&a[at_a..at_a + len], b[at_b]);
            for (o, &a) in out[at_out..at_out + len].iter_mut().zip(a) {
                *o = f(a, b);
            }
        }
        [0, 1, 1] => {
            let (a, b) = (a[at_a], &b[at_b..at_b + len]);
            for (o, &b) in out[at_out..at_out + len].iter_mut().zip(b) {
                *o = f(a, b);
            }
        }
        [step_a, step_b, step_out] => {
            for i in 0..len {
                out[at_out + i * step_out] = f(a[at_a + i * step_a], b[at_b + i * step_b]);
            }
        }
    }
}
