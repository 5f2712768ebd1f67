//! The loop as a whole, on a network of a few hundred weights.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::Path;

use dcz_format::graph::{
    ConstId, Conv, Dim, LayerId, Meaning, Network, Node, Op, Output, Pads, PoolKind, ReshapeDim,
    Resize, ResizeCoordinates, ResizeMode, ResizeSize, Tensor, TensorId,
};
use dcz_format::layer::LayerShape;
use dcz_train::augment::{Picture, Random};
use dcz_train::checkpoint::{self, Progress};
use dcz_train::student::Student;
use dcz_train::{
    Budget, Control, Error, Grid, Losses, Options, Outcome, Retrained, Source, Task, TrainConstant,
    TrainLayer, retrain,
};

/// Pictures of 8 x 8 pixels from a generator; the class is the number modulo 3.
struct Pictures {
    count: usize,
    labelled: bool,
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.count
    }
    fn picture(&self, index: usize) -> Result<Picture, Error> {
        let mut random = Random::new(&[77, index as u64]);
        Ok(Picture {
            width: 8,
            height: 8,
            rgb: (0..192).map(|_| random.number() as u8).collect(),
            margin: 0,
        })
    }
    fn input(&self, picture: &Picture) -> Result<Vec<f32>, Error> {
        let value = |c: usize, i: usize| f32::from(picture.rgb[3 * i + c]) / 128.0 - 1.0;
        Ok((0..3)
            .flat_map(|c| (0..64).map(move |i| value(c, i)))
            .collect())
    }
    fn label(&self, index: usize) -> Option<u32> {
        self.labelled.then_some(index as u32 % 3)
    }
}

const PICTURES: Pictures = Pictures {
    count: 40,
    labelled: true,
};

fn layer(name: &str, out: u32, per_group: u32, kernel: u32, groups: u32, step: f32) -> TrainLayer {
    let shape = LayerShape {
        out_channels: out,
        in_per_group: per_group,
        kernel: [kernel; 2],
        groups,
    };
    let mut random = Random::new(&[u64::from(out), u64::from(kernel)]);
    let weights: Vec<f32> = (0..shape.weights())
        .map(|_| random.signed() * 0.4)
        .collect();
    let grid = Grid {
        steps: if shape.is_depthwise() {
            vec![step; out as usize]
        } else {
            vec![step]
        },
        dead_zone: 0.0,
        limit: 127,
    };
    TrainLayer {
        name: name.into(),
        shape,
        weights,
        start: None,
        sparsity: 0.0,
        block: 1,
        grid: Some(grid),
    }
}

/// Convolution, depthwise, pointwise with a shortcut, mean, linear: 3 x 8 x 8 to 12.
fn task(step: f32, sparsity: f64) -> Task {
    let conv = |layer, stride, bias: Option<u32>, pad| {
        Op::Conv(Conv {
            layer: LayerId(layer),
            bias: bias.map(ConstId),
            strides: [stride; 2],
            dilations: [1; 2],
            pads: Pads::Explicit([pad; 4]),
        })
    };
    let ops = [
        (conv(0, 2, Some(0), 1), vec![0]),
        (Op::Prelu { slope: ConstId(1) }, vec![1]),
        (conv(1, 1, None, 1), vec![2]),
        (Op::Activation(dcz_format::graph::Activation::Silu), vec![3]),
        (conv(2, 1, Some(2), 0), vec![4]),
        (Op::Binary(dcz_format::graph::BinaryKind::Add), vec![5, 2]),
        (Op::GlobalPool(PoolKind::Average), vec![6]),
        (
            Op::Reshape {
                dims: vec![ReshapeDim::Fixed(1), ReshapeDim::Rest],
            },
            vec![7],
        ),
        (
            Op::Linear {
                layer: LayerId(3),
                bias: Some(ConstId(3)),
            },
            vec![8],
        ),
    ];
    let tensor = |i: usize| Tensor {
        name: format!("t{i}"),
        dims: if i == 0 {
            vec![Dim::Fixed(1), Dim::Fixed(3), Dim::Fixed(8), Dim::Fixed(8)]
        } else {
            Vec::new()
        },
        quant: None,
    };
    let network = Network {
        name: "tiny".into(),
        tensors: (0..=ops.len()).map(tensor).collect(),
        nodes: ops
            .into_iter()
            .enumerate()
            .map(|(i, (op, inputs))| Node {
                name: format!("node{i}"),
                op,
                inputs: inputs.into_iter().map(TensorId).collect(),
                output: TensorId(i as u32 + 1),
            })
            .collect(),
        inputs: vec![TensorId(0)],
        outputs: vec![Output {
            tensor: TensorId(9),
            meaning: Meaning::Unknown,
        }],
        ..Network::default()
    };
    let constant = |name: &str, values: Vec<f32>| TrainConstant {
        name: name.into(),
        dims: vec![values.len()],
        values,
        start: None,
    };
    let mut layers = vec![
        layer("first", 8, 3, 3, 1, step),
        layer("depthwise", 8, 1, 3, 8, step),
        layer("pointwise", 8, 8, 1, 1, step),
        layer("linear", 12, 8, 1, 1, step),
    ];
    for layer in &mut layers {
        layer.sparsity = sparsity;
    }
    Task {
        network,
        layers,
        constants: vec![
            constant("bias", vec![0.1; 8]),
            constant("slope", vec![0.25; 8]),
            constant("bias2", vec![-0.05; 8]),
            constant("bias3", vec![0.0; 12]),
        ],
    }
}

fn options(steps: u64) -> Options {
    Options {
        budget: Budget::Steps(steps),
        batch: 8,
        prune_every: 2,
        ..Options::default()
    }
}

/// A file that takes nine tenths of the entropy of the values of every layer, and 80 bytes.
fn coded(layers: &[Retrained], _: &[Vec<f32>]) -> Result<f64, Error> {
    let mut bits = 0.0;
    for layer in layers {
        let mut counts = std::collections::BTreeMap::new();
        for w in &layer.weights {
            *counts.entry(w.to_bits()).or_insert(0.0f64) += 1.0;
        }
        let all = layer.weights.len() as f64;
        bits += counts.values().map(|n| n * (all / n).log2()).sum::<f64>();
    }
    Ok(80.0 + 0.9 * bits / 8.0)
}

fn run(task: &Task, options: &Options) -> Outcome {
    retrain(task, &PICTURES, options, &mut coded, &mut |_| {
        Control::Continue
    })
    .unwrap()
}

fn held_out(outcome: &Outcome) -> (f64, f64) {
    let first = outcome.curve.first().unwrap().held_out;
    (first, outcome.curve.last().unwrap().held_out)
}

#[test]
fn a_coarsely_rounded_network_comes_nearer_to_its_teacher() {
    for losses in [
        "cosine",
        "l2=1",
        "cosine=1,l2=0.1,relational=0.1,features=0.1",
    ] {
        let mut options = options(300);
        options.losses = losses.parse().unwrap();
        let outcome = run(&task(0.3, 0.0), &options);
        let (before, after) = held_out(&outcome);
        assert!(
            1.0 - after < 0.75 * (1.0 - before),
            "{losses}: {before} {after}"
        );
        assert_eq!(outcome.steps, 300);
    }
}

/// Nothing corrects the last layer then, so less is gained.
#[test]
fn features_are_a_loss_by_themselves() {
    let mut options = options(300);
    options.losses = "features".parse().unwrap();
    let outcome = run(&task(0.3, 0.0), &options);
    let (before, after) = held_out(&outcome);
    assert!(after > before, "{before} {after}");
    assert!(outcome.curve.last().unwrap().loss.is_finite());
}

#[test]
fn every_weight_lies_on_the_grid_and_pruned_ones_are_zero() {
    let outcome = run(&task(0.1, 0.5), &options(60));
    for (layer, of) in outcome.layers.iter().zip(&task(0.1, 0.5).layers) {
        let steps = layer.steps.as_ref().unwrap();
        let k = of.shape.k();
        for (i, w) in layer.weights.iter().enumerate() {
            let step = steps[i / k % steps.len()];
            let q = (w / step).round();
            assert_eq!((q * step).to_bits(), (w + 0.0).to_bits(), "{} {i}", of.name);
        }
        let zeros = layer.weights.iter().filter(|w| w.to_bits() == 0).count();
        assert!(2 * zeros >= layer.weights.len(), "{}: {zeros}", of.name);
    }
}

/// Without a grid what is trained is what comes out: masks must hold after the last step of the optimiser.
#[test]
fn masks_hold_without_a_grid_and_blocks_die_together() {
    let mut task = task(0.1, 0.5);
    for layer in &mut task.layers {
        layer.grid = None;
        layer.block = 4;
    }
    let outcome = run(&task, &options(40));
    for (layer, of) in outcome.layers.iter().zip(&task.layers) {
        let zeros = layer.weights.iter().filter(|w| w.to_bits() == 0).count();
        assert_eq!(2 * zeros, layer.weights.len(), "{}", of.name);
        let k = of.shape.k();
        let rows = of.shape.out_channels as usize;
        if rows.is_multiple_of(4) {
            for first in (0..rows).step_by(4) {
                for i in 0..k {
                    let dead = (first..first + 4)
                        .filter(|r| layer.weights[r * k + i] == 0.0)
                        .count();
                    assert!(dead == 0 || dead == 4, "{} {first} {i}", of.name);
                }
            }
        }
    }
    let (_, after) = held_out(&outcome);
    assert!(after > 0.5, "{after}");
    // However short the run.
    for layer in run(&task, &options(2)).layers {
        let zeros = layer.weights.iter().filter(|w| w.to_bits() == 0).count();
        assert_eq!(2 * zeros, layer.weights.len());
    }
}

#[test]
fn the_wanted_size_is_met() {
    let mut options = options(200);
    let full = run(
        &task(0.02, 0.0),
        &Options {
            budget: Budget::Steps(1),
            ..options.clone()
        },
    )
    .bytes;
    options.size = Some((full * 0.6) as u64);
    let outcome = run(&task(0.02, 0.0), &options);
    assert!(outcome.bytes < 0.64 * full, "{} of {full}", outcome.bytes);
    assert!(held_out(&outcome).1 > 0.9);
}

/// Bits of everything that comes out.
fn bits(outcome: &Outcome) -> Vec<u32> {
    let layers = outcome
        .layers
        .iter()
        .flat_map(|l| l.weights.iter().chain(l.steps.iter().flatten()));
    layers
        .chain(outcome.constants.iter().flatten())
        .map(|v| v.to_bits())
        .collect()
}

#[test]
fn seeds_repeat_and_differ() {
    let with = |seed| {
        let outcome = run(
            &task(0.3, 0.3),
            &Options {
                seed,
                ..options(25)
            },
        );
        bits(&outcome)
    };
    assert_eq!(with(5), with(5));
    assert_ne!(with(5), with(6));
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(30);
    options.size = Some(1500);
    options.fixed_bytes = 100;
    let task = task(0.1, 0.4);
    let whole = run(&task, &options);
    options.checkpoint = Some(folder.path().to_path_buf());
    for stop in [7, 19] {
        let result = retrain(
            &task,
            &PICTURES,
            &options,
            &mut coded,
            &mut |event| match event.step >= stop {
                true => Control::Stop,
                false => Control::Continue,
            },
        );
        let text = result.unwrap_err().to_string();
        assert!(text.contains(&format!("step {stop}")), "{text}");
    }
    let resumed = run(&task, &options);
    assert!(bits(&whole) == bits(&resumed), "weights differ");
    assert_eq!(whole.steps, resumed.steps);
    let held = |o: &Outcome| {
        o.curve
            .iter()
            .map(|r| (r.step, r.held_out.to_bits()))
            .collect::<Vec<_>>()
    };
    assert_eq!(held(&whole), held(&resumed));
    // Finished: nothing is left to do, and the result is the same.
    assert_eq!(bits(&run(&task, &options)), bits(&whole));

    other_options_are_refused(&task, &options, folder.path());
}

/// Whether a start is made coarser depends on the steps to come; a run that goes on with fewer keeps what was decided.
#[test]
fn a_checkpoint_holds_what_the_budget_decided() {
    let mut task = task(0.2, 0.0);
    for layer in &mut task.layers {
        layer.start = Some(
            layer
                .weights
                .iter()
                .map(|w| (w / 0.2).round() * 0.2)
                .collect(),
        );
    }
    let mut long = options(6000);
    let bytes = Student::new(&task, &long).bytes();
    long.size = Some((bytes / 1.5) as u64);
    let mut short = long.clone();
    short.budget = Budget::Steps(60);
    let zones =
        |student: &Student| -> Vec<f32> { student.layers.iter().map(|l| l.dead_zone).collect() };
    let (kept, mut coarser) = (Student::new(&task, &long), Student::new(&task, &short));
    assert_ne!(zones(&kept), zones(&coarser));

    let folder = tempfile::tempdir().unwrap();
    let progress = Progress {
        step: 3,
        seconds: 1.0,
        integral: None,
        pending: (0.0, 0),
        curve: Vec::new(),
    };
    checkpoint::save(folder.path(), &kept, &progress, 7).unwrap();
    let known = checkpoint::load(folder.path(), &mut coarser, 7).unwrap();
    assert_eq!(known, Some(progress));
    assert_eq!(zones(&kept), zones(&coarser));
    let weights = |student: &Student| -> Vec<Vec<f32>> {
        student.rounded().into_iter().map(|l| l.weights).collect()
    };
    assert_eq!(weights(&kept), weights(&coarser));
}

fn other_options_are_refused(task: &Task, options: &Options, folder: &Path) {
    let other = Options {
        seed: 9,
        ..options.clone()
    };
    let result = retrain(task, &PICTURES, &other, &mut coded, &mut |_| {
        Control::Continue
    });
    assert!(matches!(result, Err(Error::Input(text)) if text.contains("other options")));
    // A cut-off file is an error, not a panic.
    let file = folder.join(dcz_train::checkpoint::FILE);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let result = retrain(task, &PICTURES, options, &mut coded, &mut |_| {
        Control::Continue
    });
    assert!(matches!(result, Err(Error::Io(text)) if text.contains("checkpoint")));
}

#[test]
fn the_estimate_follows_what_is_coded() {
    let mut options = options(60);
    options.size = Some(200);
    let outcome = run(&task(0.1, 0.0), &options);
    let real = coded(&outcome.layers, &[]).unwrap();
    assert!(
        (outcome.bytes / real - 1.0).abs() < 0.02,
        "{}",
        outcome.bytes
    );
    assert!((real / 200.0 - 1.0).abs() < 0.05, "{real}");
}

#[test]
fn images_kept_aside_are_the_last_ones_when_the_source_says_so() {
    struct Aside;
    impl Source for Aside {
        fn len(&self) -> usize {
            PICTURES.len()
        }
        fn picture(&self, index: usize) -> Result<Picture, Error> {
            PICTURES.picture(if index < 38 { 0 } else { index })
        }
        fn input(&self, picture: &Picture) -> Result<Vec<f32>, Error> {
            PICTURES.input(picture)
        }
        fn label(&self, _: usize) -> Option<u32> {
            None
        }
        fn held_out(&self) -> usize {
            2
        }
    }
    let mut options = options(40);
    options.augment = "none".parse().unwrap();
    let go = |source: &dyn Source| {
        retrain(&task(0.3, 0.0), source, &options, &mut coded, &mut |_| {
            Control::Continue
        })
        .unwrap()
    };
    // One picture is learnt by heart; the others are not.
    let outcome = go(&Aside);
    let last = outcome.curve.last().unwrap();
    assert!(last.loss < 0.25 * (1.0 - last.held_out), "{last:?}");
}

#[test]
fn what_cannot_be_trained_is_named() {
    let refuse = |task: &Task, source: &Pictures, options: &Options| {
        retrain(task, source, options, &mut coded, &mut |_| {
            Control::Continue
        })
        .unwrap_err()
        .to_string()
    };
    let mut resized = task(0.1, 0.0);
    resized.network.nodes[6].op = Op::Resize(Resize {
        mode: ResizeMode::Linear,
        coordinates: ResizeCoordinates::HalfPixel,
        size: ResizeSize::Scales([2.0; 2]),
    });
    assert!(refuse(&resized, &PICTURES, &options(1)).contains("'node6' cannot be trained"));

    let few = Pictures {
        count: 1,
        labelled: true,
    };
    assert!(refuse(&task(0.1, 0.0), &few, &options(1)).contains("at least 4 images"));

    let mut ce = options(1);
    ce.losses = "ce".parse::<Losses>().unwrap();
    let unlabelled = Pictures {
        count: 8,
        labelled: false,
    };
    assert!(refuse(&task(0.1, 0.0), &unlabelled, &ce).contains("one folder per class"));
    run(&task(0.1, 0.0), &ce);

    let mut wide = task(0.1, 0.0);
    wide.network.tensors[0].dims[1] = Dim::Fixed(4);
    assert!(refuse(&wide, &PICTURES, &options(1)).contains("192 values, the network takes 256"));
}
