//! A run of convolutions and functions, each read by the next only, as one operation of the library.
//!
//! What lies between is nobody else's, so it need not be a tensor: maps come from a [`Pool`] and go back, biases and slopes are
//! applied where a map is read ([`Entry`]), and gradients pass from one stage to the next without being added to
//! zeros. The library keeps the graph of chains, sums, poolings and losses, and calls [`Chain::bwd`].

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::conv::Conv;
use super::depthwise::Depthwise;
use super::entry::Entry;
use super::param::Pool;
use super::{floats, tensor, vectorised, with_floats};

/// What a stage does with the values that its entry gives.
#[derive(Clone, Debug)]
pub enum Product {
    /// Nothing.
    None,
    /// A convolution.
    Conv(Conv),
    /// A depthwise convolution.
    Depthwise(Depthwise),
}

/// Bias and function, then a convolution.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What is done to values as they are read.
    pub entry: Entry,
    /// The convolution.
    pub product: Product,
    /// Output channels.
    pub channels: usize,
    /// Elements of a channel of the output, all images.
    pub columns: usize,
}

/// Stages one after the other; `x [C, N H W]`.
#[derive(Debug)]
pub struct Chain {
    /// The stages; not empty.
    pub stages: Vec<Stage>,
    /// Whether a backward pass follows.
    pub recorded: bool,
    /// Whether it gives the gradient of the input.
    pub input_gradient: bool,
    /// Where buffers come from.
    pub pool: Arc<Pool>,
    /// Outputs of all stages but the last, between forward and backward pass.
    pub saved: Mutex<Vec<Vec<f32>>>,
}

impl Stage {
    fn forward(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        match &self.product {
            Product::Conv(conv) => conv.forward(&self.entry, x, y)?,
            Product::Depthwise(depthwise) => depthwise.forward(&self.entry, x, y),
            Product::None => {
                let points = self.entry.points(self.channels);
                let columns = self.columns.max(1);
                y.par_chunks_mut(columns)
                    .zip(x.par_chunks(columns))
                    .zip(&points)
                    .for_each(|((y, x), point)| {
                        vectorised(
                            #[inline(always)]
                            || point.apply(y, x),
                        )
                    });
            }
        }
        Ok(())
    }

    fn backward(&self, x: &[f32], dy: &[f32], dx: Option<&mut [f32]>, pool: &Pool) -> Result<()> {
        if let Product::Conv(conv) = &self.product {
            return conv.backward(&self.entry, x, dy, dx);
        }
        let mut own = Vec::new();
        let dx = match dx {
            Some(dx) => dx,
            None => {
                own = pool.take(x.len());
                &mut own[..]
            }
        };
        match &self.product {
            Product::Depthwise(depthwise) => depthwise.backward(&self.entry, x, dy, dx),
            _ => self.entry_backward(x, dy, dx),
        }
        pool.give(own);
        Ok(())
    }

    fn entry_backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let points = self.entry.points(self.channels);
        let columns = self.columns.max(1);
        let mut sums = vec![[0.0f32; 2]; self.channels];
        dx.par_chunks_mut(columns)
            .zip(x.par_chunks(columns).zip(dy.par_chunks(columns)))
            .zip(points.par_iter().zip(&mut sums))
            .for_each(|((dx, (x, dy)), (point, sums))| {
                dx.copy_from_slice(dy);
                *sums = vectorised(
                    #[inline(always)]
                    || point.backward(dx, x),
                );
            });
        self.entry.learn(&sums);
    }
}

impl Chain {
    fn forward(&self, x: &[f32]) -> Result<Vec<f32>> {
        let mut saved = Vec::new();
        let mut last: Option<Vec<f32>> = None;
        for stage in &self.stages {
            let mut y = self.pool.take(stage.channels * stage.columns);
            stage.forward(last.as_deref().unwrap_or(x), &mut y)?;
            match last.replace(y) {
                Some(map) if self.recorded => saved.push(map),
                Some(map) => self.pool.give(map),
                None => {}
            }
        }
        if let Ok(mut kept) = self.saved.lock() {
            *kept = saved;
        }
        last.ok_or_else(|| candle_core::Error::Msg("a chain without stages".into()))
    }

    /// The gradient of the input, when it is wanted.
    fn backward(&self, x: &[f32], dy: &[f32]) -> Result<Option<Vec<f32>>> {
        let mut saved = match self.saved.lock() {
            Ok(mut kept) => std::mem::take(&mut *kept),
            Err(_) => Vec::new(),
        };
        if saved.len() + 1 != self.stages.len() {
            candle_core::bail!("a chain goes back once, after it went forward");
        }
        let mut gradient: Option<Vec<f32>> = None;
        for stage in self.stages.iter().rev() {
            let input = saved.pop();
            let wanted = input.is_some() || self.input_gradient;
            let x = input.as_deref().unwrap_or(x);
            let mut dx = wanted.then(|| self.pool.take(x.len()));
            let dy = gradient.as_deref().unwrap_or(dy);
            stage.backward(x, dy, dx.as_deref_mut(), &self.pool)?;
            let used = std::mem::replace(&mut gradient, dx);
            used.into_iter()
                .chain(input)
                .for_each(|b| self.pool.give(b));
        }
        Ok(gradient)
    }
}

impl CustomOp1 for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(floats(x, layout)?)?;
        let (channels, columns) = self
            .stages
            .last()
            .map_or((0, 0), |stage| (stage.channels, stage.columns));
        Ok((CpuStorage::F32(y), (channels, columns).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_floats(dy, |dy| with_floats(x, |x| self.backward(x, dy)))?;
        dx.map(|dx| tensor(dx, x.dims())).transpose()
    }
}
