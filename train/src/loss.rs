//! Losses between a student's and a teacher's outputs `[N, D]`, chosen and weighted by the user.
//!
//! | name | value, mean over the batch |
//! |---|---|
//! | `ce` | cross entropy with labels |
//! | `l2` | squared distance over the teacher's mean squared norm, so that its size does not depend on the network |
//! | `cosine` | 1 - cosine |
//! | `kl` | `KL(S, T) = sum T log(T / S)` of the softmaxes at a temperature, times its square (Hinton et al. 2015) |
//! | `features` | `l2` of what the last layer reads instead of the outputs: so many values per image that the layers before it cannot learn a few images by heart |
//! | `relational` | the same of the rows of the batch's matrix of cosines, the diagonal left out: what matters to an embedding is how images compare with each other (Park et al. 2019) |

use std::str::FromStr;

use candle_core::{D, Tensor};

use crate::error::Error;
use crate::graph::log_softmax;

/// A loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// Cross entropy with labels.
    Ce,
    /// Relative squared distance.
    L2,
    /// One minus the cosine.
    Cosine,
    /// Kullback-Leibler divergence of the outputs.
    Kl,
    /// Kullback-Leibler divergence of similarities within the batch.
    Relational,
    /// Relative squared distance of what the last layer reads.
    Features,
}

impl LossKind {
    /// All, in the order of reports.
    pub const ALL: [LossKind; 6] = [
        LossKind::Ce,
        LossKind::L2,
        LossKind::Cosine,
        LossKind::Kl,
        LossKind::Relational,
        LossKind::Features,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            LossKind::Ce => "ce",
            LossKind::L2 => "l2",
            LossKind::Cosine => "cosine",
            LossKind::Kl => "kl",
            LossKind::Relational => "relational",
            LossKind::Features => "features",
        }
    }
}

/// Losses and their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// At least one; weights positive.
    pub terms: Vec<(LossKind, f64)>,
    /// Temperature of `kl`.
    pub temperature: f64,
    /// Temperature of `relational`, whose logits are cosines.
    pub relational_temperature: f64,
}

impl Default for Losses {
    fn default() -> Losses {
        Losses {
            terms: vec![(LossKind::Cosine, 1.0)],
            temperature: 1.0,
            relational_temperature: 0.1,
        }
    }
}

impl FromStr for Losses {
    type Err = String;

    fn from_str(text: &str) -> Result<Losses, String> {
        let mut terms: Vec<(LossKind, f64)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let kind = LossKind::ALL
                .into_iter()
                .find(|k| k.name() == name.trim())
                .ok_or_else(|| {
                    format!(
                        "'{name}': expected ce, l2, cosine, kl, relational or features, each with =WEIGHT"
                    )
                })?;
            let weight: f64 = weight
                .trim()
                .parse()
                .ok()
                .filter(|w: &f64| w.is_finite() && *w > 0.0)
                .ok_or_else(|| format!("'{part}': the weight must be a positive number"))?;
            if terms.iter().any(|t| t.0 == kind) {
                return Err(format!("'{name}' is named twice"));
            }
            terms.push((kind, weight));
        }
        Ok(Losses {
            terms,
            ..Losses::default()
        })
    }
}

impl Losses {
    /// Whether labels are needed.
    pub fn needs_labels(&self) -> bool {
        self.terms.iter().any(|t| t.0 == LossKind::Ce)
    }

    /// Weight of what the last layer reads.
    pub fn features(&self) -> Option<f64> {
        let term = self.terms.iter().find(|t| t.0 == LossKind::Features);
        term.map(|t| t.1)
    }

    /// The weighted sum over an output; `features` is not about outputs, so by itself it gives none.
    ///
    /// Errors: [`Error::Input`] for `ce` without labels or with more classes than outputs, `relational` with one image.
    pub fn compute(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        labels: Option<&[u32]>,
    ) -> Result<Option<Tensor>, Error> {
        let mut total: Option<Tensor> = None;
        let of_outputs = self.terms.iter().filter(|t| t.0 != LossKind::Features);
        for &(kind, weight) in of_outputs {
            let value = match kind {
                LossKind::Ce => cross_entropy(student, labels)?,
                LossKind::L2 | LossKind::Features => l2(student, teacher)?,
                LossKind::Cosine => (1.0 - cosine(student, teacher)?.mean_all()?)?,
                LossKind::Kl => kl(student, teacher, self.temperature)?,
                LossKind::Relational => relational(student, teacher, self.relational_temperature)?,
            };
            let weighted = (value * weight)?;
            total = Some(match total {
                Some(sum) => (sum + weighted)?,
                None => weighted,
            });
        }
        Ok(total)
    }
}

/// Rows of length 1; a row of zeros stays.
fn normalised(x: &Tensor) -> Result<Tensor, Error> {
    let norm = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?;
    Ok(x.broadcast_div(&norm)?)
}

/// Cosine per row.
pub fn cosine(student: &Tensor, teacher: &Tensor) -> Result<Tensor, Error> {
    Ok((normalised(student)? * normalised(teacher)?)?.sum(D::Minus1)?)
}

/// Squared distance over the teacher's mean square.
pub fn l2(student: &Tensor, teacher: &Tensor) -> Result<Tensor, Error> {
    let power = teacher.sqr()?.mean_all()?.to_scalar::<f32>()?;
    let distance = (student - teacher)?.sqr()?.mean_all()?;
    Ok((distance / f64::from(power.max(f32::MIN_POSITIVE)))?)
}

fn kl(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor, Error> {
    let s = log_softmax(&(student / temperature)?)?;
    let t = log_softmax(&(teacher / temperature)?)?;
    let sum = (t.exp()? * (t - s)?)?.sum(D::Minus1)?.mean_all()?;
    Ok((sum * (temperature * temperature))?)
}

fn relational(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor, Error> {
    let n = student.dim(0)?;
    if n < 2 {
        return Err(Error::Input(
            "the loss relational compares images of a batch: --batch must be at least 2".into(),
        ));
    }
    // The diagonal is 1 in both; far below the others it has no probability.
    let mut mask = vec![0.0f32; n * n];
    mask.iter_mut().step_by(n + 1).for_each(|m| *m = -1e4);
    let mask = crate::ops::tensor(mask, &[n, n])?;
    let similar = |x: &Tensor| -> Result<Tensor, Error> {
        let x = normalised(x)?;
        Ok((x.matmul(&x.t()?)? + &mask)?)
    };
    kl(&similar(student)?, &similar(teacher)?, temperature)
}

fn cross_entropy(student: &Tensor, labels: Option<&[u32]>) -> Result<Tensor, Error> {
    let labels = labels.ok_or_else(|| {
        Error::Input("the loss ce needs labels: one folder per class within --retrain DIR".into())
    })?;
    let (n, classes) = student.dims2()?;
    if let Some(label) = labels.iter().find(|&&l| l as usize >= classes) {
        return Err(Error::Input(format!(
            "the loss ce: class {} of the folder, but the network has {classes} outputs",
            label + 1
        )));
    }
    let labels = Tensor::from_slice(labels, (n, 1), student.device())?;
    let picked = log_softmax(student)?.gather(&labels, 1)?;
    Ok(picked.mean_all()?.neg()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tensor;

    fn value(kind: LossKind, temperature: f64, s: &[f32], t: &[f32], labels: &[u32]) -> f64 {
        let n = labels.len();
        let losses = Losses {
            terms: vec![(kind, 1.0)],
            temperature,
            relational_temperature: temperature,
        };
        let s = tensor(s.to_vec(), &[n, s.len() / n]).unwrap();
        let t = tensor(t.to_vec(), &[n, t.len() / n]).unwrap();
        let total = losses.compute(&s, &t, Some(labels)).unwrap().unwrap();
        f64::from(total.to_scalar::<f32>().unwrap())
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }

    #[test]
    fn hand_values() {
        // (1 - 0)^2 + (2 - 0)^2 = 5 over 3^2 + 4^2 = 25 ...
        near(
            value(LossKind::L2, 1.0, &[4.0, 6.0], &[3.0, 4.0], &[0]),
            5.0 / 25.0,
        );
        // ... and their cosine.
        let cosine = (4.0 * 3.0 + 6.0 * 4.0) / (52f64.sqrt() * 5.0);
        near(
            value(LossKind::Cosine, 1.0, &[4.0, 6.0], &[3.0, 4.0], &[0]),
            1.0 - cosine,
        );
        // Logits ln 1 and ln 3 are probabilities 1/4 and 3/4.
        let (a, b) = (0.0, 3f32.ln());
        near(value(LossKind::Ce, 1.0, &[a, b], &[a, b], &[0]), 4f64.ln());
        let kl = 0.75 * (0.75f64 / 0.25).ln() + 0.25 * (0.25f64 / 0.75).ln();
        near(value(LossKind::Kl, 1.0, &[b, a], &[a, b], &[0]), kl);
        near(value(LossKind::Kl, 1.0, &[a, b], &[a, b], &[0]), 0.0);
        // Temperature 2 with doubled logits: the same distributions, times 4.
        near(
            value(LossKind::Kl, 2.0, &[2.0 * b, a], &[a, 2.0 * b], &[0]),
            4.0 * kl,
        );
    }

    #[test]
    fn relations_of_three_rows() {
        // Student rows at 0, 0, 90 degrees; teacher at 0, 90, 90. At temperature 1 the rows' probabilities are
        // sigmoid(+-1) or one half.
        let s = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        let t = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        let p = 1.0 / (1.0 + (-1f64).exp());
        // Row 0: teacher (1/2, 1/2), student (p, 1 - p); row 1: teacher (1 - p, p), student (p, 1 - p);
        // row 2: teacher (1 - p, p), student (1/2, 1/2).
        let row0 = 0.5 * (0.5 / p).ln() + 0.5 * (0.5 / (1.0 - p)).ln();
        let row1 = (1.0 - p) * ((1.0 - p) / p).ln() + p * (p / (1.0 - p)).ln();
        let row2 = (1.0 - p) * ((1.0 - p) / 0.5).ln() + p * (p / 0.5).ln();
        near(
            value(LossKind::Relational, 1.0, &s, &t, &[0, 0, 0]),
            (row0 + row1 + row2) / 3.0,
        );
        // Rotating all rows changes nothing.
        let r = [0.0, 1.0, -1.0, 0.0, -1.0, 0.0];
        near(value(LossKind::Relational, 0.1, &r, &t, &[0, 0, 0]), 0.0);
    }

    #[test]
    fn names_and_weights() {
        let losses: Losses = "cosine=1,l2=0.1,relational".parse().unwrap();
        assert_eq!(
            losses.terms,
            [
                (LossKind::Cosine, 1.0),
                (LossKind::L2, 0.1),
                (LossKind::Relational, 1.0)
            ]
        );
        for bad in ["", "mse", "l2=-1", "l2=x", "kl,kl=2"] {
            assert!(bad.parse::<Losses>().is_err(), "{bad}");
        }
        assert!("ce".parse::<Losses>().unwrap().needs_labels());
    }

    #[test]
    fn labels_must_fit() {
        let losses: Losses = "ce".parse().unwrap();
        let x = tensor(vec![0.0; 4], &[2, 2]).unwrap();
        let none = losses.compute(&x, &x, None).unwrap_err().to_string();
        assert!(none.contains("one folder per class"), "{none}");
        let many = losses
            .compute(&x, &x, Some(&[0, 2]))
            .unwrap_err()
            .to_string();
        assert!(many.contains("class 3"), "{many}");
    }
}
