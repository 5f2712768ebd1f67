//! Runs of convolutions and functions that become one operation each.

use std::sync::Mutex;

use dcz_format::graph::{Conv as ConvRecord, Node, Op};

use super::{Graph, Parameters, Result, Value, recorded, refuse};
use crate::ops::chain::{Chain, Product, Stage};
use crate::ops::conv::Conv;
use crate::ops::depthwise::Depthwise;
use crate::ops::entry::{Entry, Function};
use crate::ops::geometry::Window;

/// Stages so far, and what has not been done to their last output yet.
struct Building {
    stages: Vec<Stage>,
    entry: Entry,
    channels: usize,
    size: [usize; 2],
    images: usize,
}

impl Building {
    fn columns(&self) -> usize {
        self.images * self.size[0] * self.size[1]
    }

    fn push(&mut self, product: Product) {
        self.stages.push(Stage {
            entry: std::mem::replace(&mut self.entry, Entry::NONE),
            product,
            channels: self.channels,
            columns: self.columns(),
        });
    }

    fn function(&mut self, function: Function) {
        if !matches!(self.entry.function, Function::Identity) {
            self.push(Product::None);
        }
        self.entry.function = function;
    }
}

impl Graph<'_> {
    /// Nodes that read each tensor; the caller reads graph outputs.
    pub(super) fn uses(&self) -> Vec<Vec<usize>> {
        let mut uses = vec![Vec::new(); self.network.tensors.len()];
        for (i, node) in self.network.nodes.iter().enumerate() {
            for id in &node.inputs {
                uses[id.0 as usize].push(i);
            }
        }
        for output in &self.network.outputs {
            uses[output.tensor.0 as usize].push(usize::MAX);
        }
        uses
    }

    /// Nodes from `first` on that make a chain on a value; empty when `first` does not begin one.
    pub(super) fn run_from(
        &self,
        first: usize,
        x: Option<&Value>,
        uses: &[Vec<usize>],
    ) -> Vec<usize> {
        let nodes = &self.network.nodes;
        let fits = |op: &Op| matches!(op, Op::Conv(_) | Op::Prelu { .. } | Op::Activation(_));
        let begins = match (&nodes[first].op, x) {
            (Op::Conv(_), _) => true,
            (op, Some(Value::Map { .. })) => fits(op),
            _ => false,
        };
        let mut run = Vec::new();
        let mut next = begins.then_some(first);
        while let Some(i) = next {
            run.push(i);
            next = match uses[nodes[i].output.0 as usize][..] {
                [user] if user != usize::MAX && fits(&nodes[user].op) => Some(user),
                _ => None,
            };
        }
        run
    }

    /// A run as one operation.
    pub(super) fn chain(&self, run: &[usize], x: &Value, p: &Parameters) -> Result<Value> {
        let nodes = &self.network.nodes;
        let (t, size) = x.map(&nodes[run[0]])?;
        let t = t.contiguous()?;
        let (channels, columns) = t.dims2()?;
        let mut building = Building {
            stages: Vec::new(),
            entry: Entry::NONE,
            channels,
            size,
            images: columns / (size[0] * size[1]).max(1),
        };
        for &i in run {
            let node = &nodes[i];
            match &node.op {
                Op::Conv(conv) => self.convolution(&mut building, node, conv, p)?,
                Op::Prelu { slope } => {
                    let slopes = p.constants[slope.0 as usize].param.clone();
                    building.function(Function::Slopes(slopes));
                }
                Op::Activation(kind) => building.function(Function::Fixed(*kind)),
                _ => return Err(refuse(node, "it is not part of a chain")),
            }
        }
        if building.stages.is_empty() || !building.entry.is_none() {
            building.push(Product::None);
        }
        let op = Chain {
            stages: building.stages,
            recorded: p.trained,
            input_gradient: t.track_op(),
            pool: self.pool.clone(),
            saved: Mutex::default(),
        };
        Ok(Value::Map {
            t: recorded(&t, p)?.apply_op1(op)?,
            size: building.size,
        })
    }

    fn convolution(
        &self,
        building: &mut Building,
        node: &Node,
        conv: &ConvRecord,
        p: &Parameters,
    ) -> Result<()> {
        let layer = conv.layer.0 as usize;
        let shape = self.shapes[layer];
        let window = Window::new(
            building.size,
            shape.kernel,
            conv.strides,
            conv.dilations,
            conv.pads,
            false,
        )
        .ok_or_else(|| refuse(node, "the window does not fit"))?;
        let (channels, groups) = (building.channels, shape.groups as usize);
        if channels != shape.in_per_group as usize * groups {
            return Err(refuse(node, format!("{channels} input channels")));
        }
        let outputs = shape.out_channels as usize;
        let weights = p.layers[layer].clone();
        let product = if groups > 1 && shape.is_depthwise() {
            Product::Depthwise(Depthwise {
                window,
                channels,
                multiplier: outputs / groups,
                images: building.images,
                weights,
            })
        } else {
            Product::Conv(Conv {
                window,
                channels,
                outputs,
                groups,
                images: building.images,
                weights,
            })
        };
        building.channels = outputs;
        building.size = [window.y.output, window.x.output];
        building.push(product);
        building.entry.bias = conv.bias.map(|id| p.constants[id.0 as usize].param.clone());
        Ok(())
    }
}
