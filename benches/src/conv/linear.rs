//! Linear layers for `bench fit`: every form of weights, cold, and just decoded.

use super::{Caches, Model, RUNS, Random, Source};
use crate::record::Report;
use crate::stats::Times;
use dcz_kernels::{
    Isa, KOrder, Lut, Start, Steps, TileValues, WeightTile, linear_sparse, linear_tile,
    linear_workspace, weights::PANEL,
};
use serde_json::json;
use std::time::Instant;

/// Inputs, outputs, and rows of a call.
const SHAPES: [[usize; 3]; 5] = [
    [512, 1024, 1],
    [4096, 512, 1],
    [8192, 512, 1],
    [8192, 512, 4],
    [1024, 1024, 8],
];
/// Percentages of zeros of lists.
const ZEROS: [u64; 2] = [80, 95];

/// Measures all forms of all shapes into the report.
pub(super) fn run(isa: Isa, millis: u64, caches: &mut Caches, report: &mut Report) {
    for [inputs, outputs, rows] in SHAPES {
        let mut random = Random(4);
        let codes: Vec<i8> = (0..inputs * outputs)
            .map(|_| (random.next() % 255) as i8)
            .collect();
        let layer = Linear {
            isa,
            inputs,
            outputs,
            rows,
            x: (0..inputs * rows)
                .map(|_| (random.next() % 2048) as f32 / 1024.0 - 1.0)
                .collect(),
            codes,
        };
        let mut row = |source: Source, entries: u64, mut times: Vec<f64>| {
            let model = Model {
                algorithm: String::new(),
                weights: source,
                joined: false,
                present: 1.0,
                entries,
                rows,
            };
            report.row(json!({
                "network": "linear", "channels": [inputs, outputs], "zeros_percent": 0,
                "times": Times::of(&mut times), "model": model,
            }));
        };
        let float: Vec<f32> = layer.codes.iter().map(|&q| f32::from(q) * 0.01).collect();
        let small: Vec<u8> = layer.codes.iter().map(|&q| q as u8 % 16).collect();
        let values: Vec<f32> = (0..16).map(|c| (c - 8) as f32 * 0.01).collect();
        let lut = Lut::new(&values);
        let i8s = TileValues::I8 {
            q: &layer.codes,
            steps: Steps::Layer(0.01),
        };
        let table = TileValues::Lut {
            codes: &small,
            lut: &lut,
        };
        row(Source::I8, 0, layer.measure(i8s, millis, caches));
        row(Source::Lut, 0, layer.measure(table, millis, caches));
        row(
            Source::Float,
            0,
            layer.measure(TileValues::F32(&float), millis, caches),
        );
        row(Source::Decoded, 0, layer.decoded(millis));
        for zeros in ZEROS {
            let (entries, times) = layer.lists(zeros, millis, caches);
            row(Source::Lists, entries, times);
        }
    }
}

struct Linear {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    rows: usize,
    x: Vec<f32>,
    codes: Vec<i8>,
}

impl Linear {
    fn tile<'a>(&self, panels: usize, values: TileValues<'a>) -> WeightTile<'a> {
        WeightTile {
            first_panel: 0,
            panels,
            k0: 0,
            k_len: self.inputs,
            order: KOrder::ChannelMajor,
            values,
        }
    }

    fn compute(&self, tile: &WeightTile<'_>, y: &mut [f32], scratch: &mut [f32]) {
        let (inputs, outputs) = (self.inputs, tile.panels * PANEL);
        linear_tile(
            self.isa,
            tile,
            outputs,
            &self.x,
            self.rows,
            inputs,
            y,
            outputs,
            Start::Zero,
            None,
            scratch,
        );
    }

    /// Weights from memory.
    fn measure(&self, values: TileValues<'_>, millis: u64, caches: &mut Caches) -> Vec<f64> {
        let panels = self.outputs / PANEL;
        let tile = self.tile(panels, values);
        let mut scratch = vec![0.0; linear_workspace(panels, self.inputs)];
        let mut y = vec![0.0; self.rows * self.outputs];
        timed(
            millis,
            || caches.sweep(),
            || self.compute(&tile, &mut y, &mut scratch),
        )
    }

    /// One panel over and over, as if it had been decoded just before; the time of the layer.
    fn decoded(&self, millis: u64) -> Vec<f64> {
        let values = TileValues::I8 {
            q: &self.codes[..self.inputs * PANEL],
            steps: Steps::Layer(0.01),
        };
        let tile = self.tile(1, values);
        let mut scratch = vec![0.0; linear_workspace(1, self.inputs)];
        let mut y = vec![0.0; self.rows * PANEL];
        let compute = || {
            for _ in 0..self.outputs / PANEL {
                self.compute(&tile, &mut y, &mut scratch);
            }
        };
        timed(millis, || (), compute)
    }

    /// Number of entries, and times.
    fn lists(&self, zeros: u64, millis: u64, caches: &mut Caches) -> (u64, Vec<f64>) {
        let (isa, outputs) = (self.isa, self.outputs);
        let mut random = Random(5);
        let codes: Vec<i8> = (self.codes.iter())
            .map(|&q| {
                if random.next() % 100 < zeros {
                    0
                } else {
                    q | 1
                }
            })
            .collect();
        let values = TileValues::I8 {
            q: &codes,
            steps: Steps::Layer(0.01),
        };
        let tile = self.tile(outputs / PANEL, values);
        let mut scratch = vec![0.0; linear_sparse::FILL_WORKSPACE];
        let mut starts = vec![0; linear_sparse::starts_len(self.inputs, outputs)];
        linear_sparse::count(isa, outputs, &tile, &mut starts, &mut scratch);
        // Of layers this small the number of entries fits 32 bits.
        let entries = linear_sparse::finish_count(&mut starts).unwrap_or(0);
        let (mut places, mut values) = (vec![0u16; entries], vec![0.0; entries]);
        let (p, v) = (&mut places, &mut values);
        linear_sparse::fill(isa, outputs, &tile, &mut starts, p, v, &mut scratch);
        linear_sparse::finish_fill(&mut starts);
        let lists = linear_sparse::Lists {
            starts: &starts,
            places: &places,
            values: &values,
        };
        let mut y = vec![0.0; outputs];
        let compute = || {
            for x in self.x.chunks(self.inputs) {
                linear_sparse::run(
                    isa,
                    lists,
                    outputs,
                    0..outputs,
                    x,
                    &mut y,
                    Start::Zero,
                    None,
                );
            }
        };
        (entries as u64, timed(millis, || caches.sweep(), compute))
    }
}

fn timed(millis: u64, mut before: impl FnMut(), mut run: impl FnMut()) -> Vec<f64> {
    run();
    let mut times: Vec<f64> = Vec::new();
    while times.len() < RUNS || times.iter().sum::<f64>() < millis as f64 {
        before();
        let begin = Instant::now();
        run();
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times
}
