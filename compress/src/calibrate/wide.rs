//! Layers with more inputs than there are images: a fully connected layer over a whole map.
//!
//! The second moments S = X X^T / n of n images say nothing in most directions; they are shrunk towards their diagonal,
//! H = S + rho I for inputs of unit variance, with rho from the images themselves (Ledoit & Wolf 2004). H is never made:
//! blocks of columns are rounded one after the other, and all that a block must know of later ones is the n x n matrix
//! G of their inner products (Woodbury):
//!
//! * with E the outputs' errors so far, the joint correction of all later weights is E (G + rho I)^-1 X^T;
//! * with G_after of the columns behind a block, an error within it costs rho (I + X_b^T (G_after + rho I)^-1 X_b), what
//!   is left once they make up for it. That is a small matrix, and the block is rounded like a layer (see `solve`).
//!
//! This is the second-order rounding of `solve` carried out exactly; memory is n half-precision inputs.

use half::f16;
use ndarray::Array2;
use rayon::prelude::*;

use dcz_format::layer::Steps;

use super::frontier::Frontier;
use super::gram::Inputs;
use super::linalg;
use super::patches::Patches;
use super::rate::{Rate, coded_bits};
use super::solve::{Factor, Rounding, round};
use super::walk::{
    Asked, Knowledge, Rounded, WalkOptions, correct_bias, nearest, own_bias, rows_of, step_for,
};
use crate::error::Error;
use crate::import::FloatNetwork;

/// Columns of a block.
const BLOCK: usize = 1024;
/// Steps tried, relative to that of a fine grid.
const TRIED: [f64; 7] = [0.6, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5];

/// Inputs of all images, centred, of unit variance and over the root of their number; `[image][input]`.
struct Samples {
    values: Vec<Vec<f16>>,
    width: usize,
    mean: Vec<f64>,
    mean_difference: Vec<f64>,
    deviation: Vec<f64>,
    /// Errors of the outputs that earlier layers made, `[output][image]`, over the root of the number.
    error: Array2<f64>,
}

impl Samples {
    /// Columns of a block, `[column][image]`.
    fn block(&self, first: usize, last: usize) -> Array2<f32> {
        Array2::from_shape_fn((last - first, self.values.len()), |(column, image)| {
            self.values[image][first + column].to_f32()
        })
    }

    fn gather(
        frontier: &mut Frontier,
        float: &FloatNetwork,
        coded: &FloatNetwork,
        node: usize,
        patches: &Patches,
        centre: bool,
    ) -> Result<Samples, Error> {
        let op = &float.network.nodes[node];
        let live = super::segment::live(&float.network, node);
        let slot = live
            .iter()
            .position(|t| op.inputs.first() == Some(t))
            .unwrap_or(0);
        let layer = op.op.layer().map_or(0, |l| l.0 as usize);
        let weights = &float.layers[layer].weights;
        let (width, k, m) = (
            patches.width(),
            patches.k(),
            patches.shape.out_channels as usize,
        );
        let mut values: Vec<Vec<f16>> = Vec::new();
        let mut errors: Vec<Vec<f64>> = Vec::new();
        let mut sums = [vec![0.0f64; width], vec![0.0; width], vec![0.0; width]];
        let (mut x, mut y) = (vec![0.0f32; width], vec![0.0f32; width]);
        frontier.advance(float, Some(coded), node, &mut |_, a, b| {
            for position in 0..patches.positions() {
                patches.gather(&a[slot], position, &mut x);
                patches.gather(&b[slot], position, &mut y);
                x.iter_mut().zip(&y).for_each(|(x, y)| *x -= y);
                for i in 0..width {
                    sums[0][i] += f64::from(y[i]);
                    sums[1][i] += f64::from(y[i]).powi(2);
                    sums[2][i] += f64::from(x[i]);
                }
                let error = weights.par_chunks_exact(k.max(1));
                let error = error.map(|w| w.iter().zip(&x).map(|(w, x)| f64::from(w * x)).sum());
                errors.push(error.collect());
                values.push(y.iter().map(|&v| f16::from_f32(v)).collect());
            }
            Ok(())
        })?;
        let n = values.len().max(1) as f64;
        let [sum, squares, differences] = sums;
        let mean: Vec<f64> = sum.iter().map(|s| s / n).collect();
        let deviation: Vec<f64> = squares
            .iter()
            .zip(&mean)
            .map(|(s, m)| (s / n - if centre { m * m } else { 0.0 }).max(0.0).sqrt())
            .collect();
        // Inputs that hardly vary get a floor: an error of theirs is never free.
        let floor = 0.02 * deviation.iter().sum::<f64>() / width.max(1) as f64;
        let deviation: Vec<f64> = deviation.iter().map(|d| d.max(floor).max(1e-12)).collect();
        values.par_iter_mut().for_each(|row| {
            for (i, v) in row.iter_mut().enumerate() {
                let centred = v.to_f64() - if centre { mean[i] } else { 0.0 };
                *v = f16::from_f64(centred / deviation[i] / n.sqrt());
            }
        });
        let mut error = Array2::from_shape_fn((m, values.len()), |(o, i)| errors[i][o] / n.sqrt());
        if centre {
            for mut row in error.rows_mut() {
                let mean = row.sum() / n;
                row.iter_mut().for_each(|v| *v -= mean);
            }
        }
        Ok(Samples {
            values,
            width,
            mean,
            mean_difference: differences.iter().map(|s| s / n).collect(),
            deviation,
            error,
        })
    }
}

/// How far second moments are to be shrunk towards their diagonal, from the inner products of the samples: rho of
/// S + rho I.
fn shrinkage(products: &Array2<f64>, width: usize) -> f64 {
    let n = products.nrows() as f64;
    // |S|^2, and the mean of |x x^T - S|^2 over samples, by their inner products.
    let square: f64 = products.iter().map(|v| v * v).sum();
    let fourth: f64 = products.diag().iter().map(|v| (v * n).powi(2)).sum::<f64>() / n;
    let noise = ((fourth - square) / n).max(0.0);
    let distance = (square - products.diag().sum().powi(2) / width as f64).max(f64::MIN_POSITIVE);
    let share = (noise / distance).clamp(0.01, 0.95);
    share / (1.0 - share)
}

/// Rounds a wide layer and writes it into `coded`.
#[expect(clippy::too_many_arguments, reason = "as the walk hands them over")]
pub fn round_wide(
    frontier: &mut Frontier,
    float: &FloatNetwork,
    coded: &mut FloatNetwork,
    n: usize,
    patches: &Patches,
    known: &Knowledge,
    treatment: Asked,
    options: &WalkOptions,
) -> Result<Rounded, Error> {
    let node = &float.network.nodes[n];
    let id = node.op.layer().map_or(0, |l| l.0 as usize);
    let bias = own_bias(float, node);
    let samples = Samples::gather(frontier, float, coded, n, patches, bias.is_some())?;
    let rows = rows_of(known, &patches.shape);
    let result = round_samples(
        &float.layers[id].weights,
        &samples,
        &rows,
        treatment,
        options,
    )?;
    coded.layers[id].weights.clone_from(&result.decoded);
    if let Some(bias) = bias {
        let inputs = Inputs {
            moments: Vec::new(),
            mean: samples.mean,
            mean_difference: samples.mean_difference,
        };
        correct_bias(float, coded, id, bias, patches, &inputs);
    }
    Ok(result)
}

fn round_samples(
    weights: &[f32],
    samples: &Samples,
    rows: &[f64],
    asked: Asked,
    options: &WalkOptions,
) -> Result<Rounded, Error> {
    let (width, m, n) = (samples.width, rows.len(), samples.values.len());
    let blocks: Vec<(usize, usize)> = (0..width)
        .step_by(BLOCK)
        .map(|first| (first, (first + BLOCK).min(width)))
        .collect();
    let mut products = Array2::<f64>::zeros((n, n));
    for &(first, last) in &blocks {
        products += &inner(&samples.block(first, last));
    }
    let rho = shrinkage(&products, width) * options.shrink;
    let mut error = samples.error.clone() * options.correction;
    let mut factor = damped(&products, rho)?;
    let mut codes = vec![0i8; weights.len()];
    let mut chosen: Option<(f32, Rate)> = None;
    let mut cost = 0.0;
    for &(first, last) in &blocks {
        let x = samples.block(first, last);
        let wide = x.mapv(f64::from);
        // Joint correction of this block and all after it; this block's part.
        let mut shift = error.clone();
        linalg::solve_transposed(factor.view(), shift.view_mut());
        linalg::solve(factor.view(), shift.view_mut());
        let mut change = Array2::<f64>::zeros((m, last - first));
        linalg::multiply(1.0, shift.view(), wide.t(), 0.0, change.view_mut());
        products -= &inner(&x);
        factor = damped(&products, rho)?;
        let Some(left) = left(&wide, &factor, rho, &samples.deviation[first..last]) else {
            return Err(Error::Input(
                "the inputs of a wide layer are not finite".into(),
            ));
        };
        let mut targets = Vec::with_capacity(m * (last - first));
        for row in 0..m {
            let w = &weights[row * width + first..row * width + last];
            let changes = change.row(row);
            let all = w.iter().zip(changes).zip(&samples.deviation[first..last]);
            targets.extend(all.map(|((w, c), d)| w + (c / d) as f32));
        }
        let mut zeros = Vec::new();
        for row in asked.zeros.chunks_exact(width) {
            zeros.extend_from_slice(&row[first..last]);
        }
        let (step, rate) = match &mut chosen {
            Some(found) => found,
            none => none.insert(choose(
                &targets,
                &left,
                rows,
                &zeros,
                asked.limit,
                options.lambda,
            )),
        };
        let steps = vec![*step; m];
        let how = Rounding {
            steps: &steps,
            weights: rows,
            lambda: options.lambda,
            limit: asked.limit,
            zeros: &zeros,
        };
        let block = round(&mut targets, &left, &how, rate);
        rate.fade(0.9);
        rate.add(&block);
        // What the outputs now lack.
        let mut missing = Array2::<f64>::zeros((m, last - first));
        for row in 0..m {
            for j in 0..last - first {
                let code = block[row * (last - first) + j];
                codes[row * width + first + j] = code;
                let lost = weights[row * width + first + j] - f32::from(code) * *step;
                missing[(row, j)] = f64::from(lost) * samples.deviation[first + j];
                cost += rows[row] * rho * missing[(row, j)].powi(2);
            }
        }
        linalg::multiply(1.0, missing.view(), wide.view(), 1.0, error.view_mut());
    }
    for (row, weight) in error.rows().into_iter().zip(rows) {
        cost += weight * row.iter().map(|v| v * v).sum::<f64>();
    }
    let step = chosen.map_or(1.0, |(step, _)| step);
    Ok(Rounded {
        bits: coded_bits(&codes, width),
        decoded: codes.iter().map(|&q| f32::from(q) * step).collect(),
        codes,
        steps: Steps::Layer(step),
        error: cost,
    })
}

/// Inner products of the samples over a block of columns.
fn inner(x: &Array2<f32>) -> Array2<f64> {
    let n = x.ncols();
    let mut part = Array2::<f32>::zeros((n, n));
    linalg::square(x.view(), part.view_mut());
    for i in 0..n {
        for j in 0..i {
            part[(j, i)] = part[(i, j)];
        }
    }
    part.mapv(f64::from)
}

/// The Cholesky factor of products + rho I.
fn damped(products: &Array2<f64>, rho: f64) -> Result<Array2<f64>, Error> {
    let mut factor = products.clone();
    factor.diag_mut().iter_mut().for_each(|v| *v += rho);
    if linalg::cholesky(&mut factor) {
        Ok(factor)
    } else {
        Err(Error::Input(
            "the inputs of a wide layer are not finite".into(),
        ))
    }
}

/// The matrix of a block's own errors after later columns have made up for them, in the units of the weights, factored.
fn left(x: &Array2<f64>, after: &Array2<f64>, rho: f64, deviation: &[f64]) -> Option<Factor> {
    let mut rows = x.clone();
    linalg::solve_transposed(after.view(), rows.view_mut());
    let k = rows.nrows();
    let mut moments = Array2::<f64>::zeros((k, k));
    linalg::multiply(rho, rows.view(), rows.t(), 0.0, moments.view_mut());
    moments.diag_mut().iter_mut().for_each(|v| *v += rho);
    for ((i, j), v) in moments.indexed_iter_mut() {
        *v *= deviation[i] * deviation[j];
    }
    Factor::new(&moments, 0.0)
}

/// The step, and the costs of codes that go with it, of least error and bits on a block.
fn choose(
    targets: &[f32],
    factor: &Factor,
    rows: &[f64],
    zeros: &[bool],
    limit: i8,
    lambda: f64,
) -> (f32, Rate) {
    let k = factor.len().max(1);
    let variance = factor.variances().iter().sum::<f64>() / k as f64;
    let weight = rows.iter().sum::<f64>() / rows.len().max(1) as f64;
    let fine = step_for(lambda, weight * variance);
    let mut best: Option<(f64, f32, Rate)> = None;
    for factor_of_step in TRIED {
        let step = (fine * factor_of_step) as f32;
        let largest = targets.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let step = step.max(largest / f32::from(limit)).max(f32::MIN_POSITIVE);
        let steps = vec![step; rows.len()];
        let how = Rounding {
            steps: &steps,
            weights: rows,
            lambda,
            limit,
            zeros,
        };
        let mut rate = Rate::of(&nearest(targets, k, &steps));
        let mut cost = 0.0;
        for _ in 0..4 {
            let mut work = targets.to_vec();
            let codes = round(&mut work, factor, &how, &rate);
            rate = Rate::of(&codes);
            cost = lambda * rate.total();
            for (i, (t, &q)) in work.iter().zip(&codes).enumerate() {
                let error = f64::from(t - f32::from(q) * step);
                cost += rows[i / k] * factor.variances()[i % k] * error * error;
            }
        }
        if best.as_ref().is_none_or(|b| cost < b.0) {
            best = Some((cost, step, rate));
        }
    }
    best.map_or_else(|| (1.0, Rate::of(&[])), |(_, step, rate)| (step, rate))
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    /// Rounding in blocks with inner products of samples is rounding with the whole matrix.
    #[test]
    fn blocks_and_inner_products_are_the_whole_matrix() {
        let (width, n, m) = (2 * BLOCK + 100, 24, 3);
        let values: Vec<Vec<f16>> = (0..n)
            .map(|i| {
                noise(width, i as u64 + 1)
                    .iter()
                    .map(|&v| f16::from_f32(v / 5.0))
                    .collect()
            })
            .collect();
        let samples = Samples {
            values,
            width,
            mean: vec![0.0; width],
            mean_difference: vec![0.0; width],
            deviation: (0..width).map(|i| 1.0 + (i % 5) as f64).collect(),
            error: Array2::zeros((m, n)),
        };
        let weights = noise(m * width, 99);
        let options = WalkOptions {
            lambda: 1e-9,
            damping: 0.0,
            correction: 0.0,
            images: n,
            wide_images: n,
            shrink: 1.0,
            budget: 0,
        };
        let rows = vec![1.0; m];
        let asked = Asked {
            zeros: &[],
            limit: 127,
        };
        let result = round_samples(&weights, &samples, &rows, asked, &options).unwrap();
        let Steps::Layer(step) = result.steps else {
            panic!()
        };
        let mut products = Array2::zeros((n, n));
        products += &inner(&samples.block(0, BLOCK));
        products += &inner(&samples.block(BLOCK, 2 * BLOCK));
        products += &inner(&samples.block(2 * BLOCK, width));
        let rho = shrinkage(&products, width);
        let x = samples.block(0, width).mapv(f64::from);
        let mut whole = x.dot(&x.t());
        whole.diag_mut().iter_mut().for_each(|v| *v += rho);
        for ((i, j), v) in whole.indexed_iter_mut() {
            *v *= samples.deviation[i] * samples.deviation[j];
        }
        let factor = Factor::new(&whole, 0.0).unwrap();
        let how = Rounding {
            steps: &vec![step; m],
            weights: &rows,
            lambda: 0.0,
            limit: 127,
            zeros: &[],
        };
        let codes = round(&mut weights.clone(), &factor, &how, &Rate::of(&[0]));
        let same = codes
            .iter()
            .zip(&result.codes)
            .filter(|(a, b)| a == b)
            .count();
        assert!(
            same as f64 > 0.98 * codes.len() as f64,
            "{same} of {}",
            codes.len()
        );
    }

    #[test]
    fn few_samples_are_shrunk_more() {
        let rho = |n: usize| {
            // One direction that all inputs share, and noise.
            let shared = noise(n, 3);
            let columns: Vec<f32> = (0..n).flat_map(|i| noise(40, i as u64 + 5)).collect();
            let x = Array2::from_shape_fn((40, n), |(c, i)| {
                (columns[i * 40 + c] + shared[i]) / (n as f32).sqrt()
            });
            shrinkage(&inner(&x), 40)
        };
        assert!(rho(10) > rho(100));
    }
}
