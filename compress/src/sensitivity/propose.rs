//! Settings per layer from measured curves: the fewest bytes for a given error of the output.
//!
//! Each layer's quantised points are (error, bytes). If errors add up, the best choice for a multiplier is every layer's
//! point with the least `bytes + multiplier * error` (Lagrange; Shoham and Gersho 1988), and bisection finds the multiplier that
//! spends the budget. They only nearly add up, so the choice is measured as a whole and the budget corrected by what was
//! found, a few times. The finest points must fit the budget; otherwise they are proposed, and the caller is told.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Curves, Deviation, Point, Subject};
use crate::error::Error;
use crate::settings::Settings;

/// Most times that a choice is measured and corrected.
const ROUNDS: usize = 5;

/// Settings for every layer, with what they do together.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Per layer in the order of the curves.
    pub settings: Vec<Settings>,
    /// What was asked for: least mean cosine.
    pub wanted: f64,
    /// Measured with all of them.
    pub deviation: Deviation,
    /// Bytes of all layers.
    pub bytes: u64,
    /// The wanted cosine is kept.
    pub reached: bool,
}

/// Proposes settings that keep a mean cosine of `wanted`. `progress(done, all)` counts measurements.
pub fn propose(
    subject: &Subject,
    curves: &[Curves],
    wanted: f64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Proposal, Error> {
    let allowed = 1.0 - wanted;
    let mut budget = allowed;
    let mut best: Option<Proposal> = None;
    for round in 0..ROUNDS {
        progress(round, ROUNDS);
        let choice = choose(curves, budget);
        let list: Vec<(usize, Settings)> = choice.iter().map(|p| p.settings).enumerate().collect();
        let (deviation, bytes) = subject.together(&list)?;
        let found = Proposal {
            settings: list.into_iter().map(|(_, settings)| settings).collect(),
            wanted,
            deviation,
            bytes,
            reached: deviation.mean <= allowed,
        };
        if best.as_ref().is_some_and(|b| b.settings == found.settings) {
            break;
        }
        let better = |old: &Proposal| match (old.reached, found.reached) {
            (false, false) => found.deviation.mean < old.deviation.mean,
            (true, true) => found.bytes < old.bytes,
            (old, _) => !old,
        };
        // A tenth of the budget left is near enough.
        let near = found.reached && found.deviation.mean > 0.9 * allowed;
        let factor = allowed / deviation.mean.max(allowed * 0.1);
        if best.as_ref().is_none_or(better) {
            best = Some(found);
        }
        if near {
            break;
        }
        budget *= if factor < 1.0 { 0.95 * factor } else { factor };
    }
    progress(ROUNDS, ROUNDS);
    best.ok_or_else(|| Error::Usage("nothing was measured".into()))
}

/// One quantised point per layer whose errors add up to at most `budget`; the ones of least error when none do.
fn choose(curves: &[Curves], budget: f64) -> Vec<&Point> {
    let pick = |multiplier: f64| -> Vec<&Point> {
        let cost = |p: &Point| p.bytes as f64 + multiplier * p.deviation.mean;
        let points = curves.iter().filter_map(|curve| {
            let points = curve.steps.iter().chain(&curve.bits);
            points.min_by(|a, b| cost(a).total_cmp(&cost(b)))
        });
        points.collect()
    };
    let error = |choice: &[&Point]| choice.iter().map(|p| p.deviation.mean).sum::<f64>();
    // Powers of ten: bytes per unit of error.
    let (mut low, mut high) = (0.0, 16.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if error(&pick(10f64.powf(middle))) <= budget {
            high = middle;
        } else {
            low = middle;
        }
    }
    pick(10f64.powf(high))
}

#[derive(Serialize)]
struct File {
    quantize: &'static str,
    layers: BTreeMap<String, Keys>,
}

#[derive(Serialize)]
struct Keys {
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bits: Option<u8>,
}

impl Proposal {
    /// As a settings file of `dcz compress`.
    ///
    /// Errors: [`Error::Usage`] for names that TOML cannot hold.
    pub fn to_toml(&self, curves: &[Curves], images: usize) -> Result<String, Error> {
        let keys = |s: &Settings| Keys {
            // The shortest text of the f32, not its digits as f64.
            step: s.step.and_then(|step| step.to_string().parse().ok()),
            bits: s.bits,
        };
        let file = File {
            quantize: "grid",
            layers: (curves.iter().zip(&self.settings))
                .map(|(curve, settings)| (curve.name.clone(), keys(settings)))
                .collect(),
        };
        let text = toml::to_string(&file).map_err(|e| Error::Usage(e.to_string()))?;
        Ok(format!(
            "# Proposed by dcz sensitivity: mean cosine {:.5} (wanted {}), least {:.5}, on {images} images; layers of {} bytes.\n{text}",
            1.0 - self.deviation.mean,
            self.wanted,
            1.0 - self.deviation.largest,
            self.bytes
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::Role;
    use crate::settings::AllSettings;

    fn curve(name: &str, points: &[(f32, f64, u64)]) -> Curves {
        let point = |&(step, mean, bytes): &(f32, f64, u64)| Point {
            value: f64::from(step),
            deviation: Deviation {
                mean,
                largest: mean,
            },
            bytes,
            settings: Settings {
                step: Some(step),
                ..Settings::default()
            },
        };
        Curves {
            name: name.into(),
            role: Role::Convolution,
            weights: 1,
            sparsity: Vec::new(),
            steps: points.iter().map(point).collect(),
            bits: Vec::new(),
        }
    }

    #[test]
    fn bytes_are_spent_where_they_save_most_error() {
        // The first is large and bears much, the second small and sensitive.
        let curves = [
            curve("a", &[(0.1, 0.0001, 1000), (1.0, 0.001, 500)]),
            curve("b", &[(0.1, 0.0001, 100), (1.0, 0.01, 50)]),
        ];
        let steps =
            |budget| -> Vec<f64> { choose(&curves, budget).iter().map(|p| p.value).collect() };
        let (fine, coarse) = (f64::from(0.1f32), 1.0);
        assert_eq!(steps(1.0), [coarse, coarse]);
        assert_eq!(steps(0.0015), [coarse, fine]);
        assert_eq!(steps(0.0002), [fine, fine]);
        assert_eq!(steps(1e-9), [fine, fine]);
    }

    #[test]
    fn the_file_says_what_was_chosen() {
        let curves = [
            curve("a.b", &[(0.35, 0.1, 1)]),
            curve("c \"d\"", &[(2.0, 0.1, 1)]),
        ];
        let proposal = Proposal {
            settings: curves.iter().map(|c| c.steps[0].settings).collect(),
            wanted: 0.99,
            deviation: Deviation::default(),
            bytes: 2,
            reached: true,
        };
        let text = proposal.to_toml(&curves, 3).unwrap();
        let read = AllSettings::from_toml(&text).unwrap();
        assert_eq!(read.of("a.b").step, Some(0.35));
        assert_eq!(read.of("c \"d\"").step, Some(2.0));
    }
}
