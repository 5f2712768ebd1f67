//! Parameters outside of the library's graph, and the buffers that operations share.
//!
//! The library adds every gradient to a tensor of zeros, and takes each tensor from the system anew (so that the kernel clears
//! its pages first). For weights and for the maps of a network that is more work than many of its operations. So weights are
//! plain vectors here: an operation holds them and adds their gradient to a [`Sink`]. Maps between operations of a chain come
//! from a [`Pool`] and go back to it.

use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::{axpy, vectorised};

const CHUNK: usize = 1 << 14;
/// Buffers that are kept for later at most, in values (2 GB).
const KEPT: usize = 512 << 20;

/// Where the gradient of a parameter arrives.
#[derive(Clone, Debug, Default)]
pub struct Sink(Arc<Mutex<Vec<f32>>>);

impl Sink {
    /// Adds a gradient.
    pub fn add(&self, gradient: Vec<f32>) {
        let mut sum = lock(&self.0);
        if sum.is_empty() {
            *sum = gradient;
        } else {
            add(&mut sum, &gradient);
        }
    }

    /// The sum of what arrived; empty when nothing did.
    pub fn take(&self) -> Vec<f32> {
        std::mem::take(&mut *lock(&self.0))
    }
}

/// Values of a parameter and, when they are trained, where their gradient goes.
#[derive(Clone, Debug)]
pub struct Param {
    /// The values.
    pub values: Arc<Vec<f32>>,
    /// None: not trained.
    pub sink: Option<Sink>,
}

impl Param {
    /// A parameter that is trained.
    pub fn trained(values: Vec<f32>) -> Param {
        Param {
            values: Arc::new(values),
            sink: Some(Sink::default()),
        }
    }

    /// One that is not.
    pub fn fixed(values: Vec<f32>) -> Param {
        Param {
            values: Arc::new(values),
            sink: None,
        }
    }

    /// Adds to its gradient, when it is trained.
    pub(crate) fn add(&self, gradient: Vec<f32>) {
        if let Some(sink) = &self.sink {
            sink.add(gradient);
        }
    }
}

/// Buffers of earlier steps, to be used again.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Vec<Vec<f32>>>);

impl Pool {
    /// A buffer of `len` values; what it holds is left from earlier use.
    pub fn take(&self, len: usize) -> Vec<f32> {
        let mut free = lock(&self.0);
        let found = free.iter().position(|b| b.len() == len);
        match found {
            Some(i) => free.swap_remove(i),
            None => {
                drop(free);
                vec![0.0; len]
            }
        }
    }

    /// Gives a buffer back.
    pub fn give(&self, buffer: Vec<f32>) {
        let mut free = lock(&self.0);
        let kept: usize = free.iter().map(Vec::len).sum();
        if !buffer.is_empty() && kept + buffer.len() <= KEPT {
            free.push(buffer);
        }
    }
}

/// A lock that survives a panic elsewhere: what it guards are plain numbers.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `sum += part`, on all threads.
pub(crate) fn add(sum: &mut [f32], part: &[f32]) {
    sum.par_chunks_mut(CHUNK)
        .zip(part.par_chunks(CHUNK))
        .for_each(|(sum, part)| {
            vectorised(
                #[inline(always)]
                || axpy(sum, 1.0, part),
            )
        });
}
