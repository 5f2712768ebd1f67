//! Curves for people and programs: table, JSON, SVG.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Curves, Point, Proposal};
use crate::chart::{Chart, Series, stacked};

/// Layers that are drawn in colour.
const NAMED: usize = 6;
/// Errors below this are drawn as this.
const LEAST: f64 = 1e-8;

/// One row per layer, one column per point: mean of `1 - cosine`; in the end what is proposed.
pub fn table(curves: &[Curves], proposal: Option<&Proposal>) -> String {
    let width = curves.iter().map(|c| c.name.chars().count());
    let width = width.chain([5]).max().unwrap_or(5);
    let mut text = format!("{:<width$}  {:>9}", "layer", "weights");
    let Some(first) = curves.first() else {
        return text + "\n";
    };
    let mut heads = |points: &[Point], head: &dyn Fn(f64) -> String| {
        for point in points {
            let _ = write!(text, "  {:>7}", head(point.value));
        }
    };
    heads(&first.sparsity, &|v| format!("{v}%"));
    heads(&first.steps, &|v| format!("{}sd", v as f32));
    heads(&first.bits, &|v| format!("{v}bit"));
    text.push_str(if proposal.is_some() {
        "  proposed\n"
    } else {
        "\n"
    });
    for (index, curve) in curves.iter().enumerate() {
        let _ = write!(text, "{:<width$}  {:>9}", curve.name, curve.weights);
        for point in curve.sparsity.iter().chain(&curve.steps).chain(&curve.bits) {
            let _ = write!(text, "  {:>7}", format!("{:.1e}", point.deviation.mean));
        }
        if let Some(settings) = proposal.and_then(|p| p.settings.get(index)) {
            let _ = match (settings.step, settings.bits) {
                (Some(step), _) => write!(text, "  step {step}"),
                (None, Some(bits)) => write!(text, "  {bits} bits"),
                (None, None) => Ok(()),
            };
        }
        text.push('\n');
    }
    if let Some(p) = proposal {
        let _ = writeln!(
            text,
            "proposed together: mean cosine {:.5}, least {:.5}, layers of {} bytes{}",
            1.0 - p.deviation.mean,
            1.0 - p.deviation.largest,
            p.bytes,
            if p.reached {
                String::new()
            } else {
                format!(
                    "; {} is not reached, these are the finest settings",
                    p.wanted
                )
            }
        );
    }
    text
}

/// Everything as JSON.
pub fn json(curves: &[Curves], proposal: Option<&Proposal>, images: usize) -> Value {
    let points = |points: &[Point]| -> Vec<Value> {
        let one = |p: &Point| json!({ "value": p.value as f32, "mean_error": p.deviation.mean, "largest_error": p.deviation.largest, "bytes": p.bytes });
        points.iter().map(one).collect()
    };
    let layers: Vec<Value> = curves
        .iter()
        .map(|c| {
            json!({
                "name": c.name,
                "role": format!("{:?}", c.role),
                "weights": c.weights,
                "sparsity": points(&c.sparsity),
                "steps": points(&c.steps),
                "bits": points(&c.bits),
            })
        })
        .collect();
    let proposal = proposal.map(|p| {
        let layers = curves.iter().zip(&p.settings);
        let layers = layers.map(|(c, s)| json!({ "name": c.name, "step": s.step, "bits": s.bits }));
        json!({
            "wanted_cosine": p.wanted, "reached": p.reached, "bytes": p.bytes,
            "mean_cosine": 1.0 - p.deviation.mean, "least_cosine": 1.0 - p.deviation.largest,
            "layers": layers.collect::<Vec<_>>(),
        })
    });
    json!({ "kind": "sensitivity", "images": images, "error": "1 - cosine to the float output", "layers": layers, "proposal": proposal })
}

/// A layer's points as they are drawn: by share of zeros, by step.
struct Drawn {
    name: String,
    axes: [Vec<(f64, f64)>; 2],
}

/// Error against sparsity and against step, one line per layer; the most sensitive ones are named.
pub fn svg(curves: &[Curves]) -> String {
    let points = |list: &[Point]| list.iter().map(|p| (p.value, p.deviation.mean)).collect();
    let layers = curves.iter().map(|c| Drawn {
        name: c.name.clone(),
        axes: [points(&c.sparsity), points(&c.steps)],
    });
    draw(&layers.collect::<Vec<_>>())
}

/// The same from what [`json()`] gives; none when it is something else.
pub fn svg_of_json(value: &Value) -> Option<String> {
    if value["kind"] != "sensitivity" {
        return None;
    }
    let point = |p: &Value| Some((p["value"].as_f64()?, p["mean_error"].as_f64()?));
    let points =
        |list: &Value| -> Option<Vec<(f64, f64)>> { list.as_array()?.iter().map(point).collect() };
    let layers = value["layers"].as_array()?.iter().map(|layer| {
        Some(Drawn {
            name: layer["name"].as_str()?.into(),
            axes: [points(&layer["sparsity"])?, points(&layer["steps"])?],
        })
    });
    Some(draw(&layers.collect::<Option<Vec<_>>>()?))
}

fn draw(layers: &[Drawn]) -> String {
    let axes = [
        ("One layer pruned", "zeros in percent"),
        ("One layer quantised", "step in standard deviations"),
    ];
    let mut charts = Vec::new();
    for (axis, (title, x)) in axes.into_iter().enumerate() {
        let log = |error: f64| error.max(LEAST).log10();
        let height = |layer: &Drawn| layer.axes[axis].iter().map(|p| log(p.1)).sum::<f64>();
        let mut sorted: Vec<&Drawn> = layers.iter().collect();
        sorted.sort_by(|a, b| height(b).total_cmp(&height(a)));
        let series = |layer: &&Drawn| Series {
            name: layer.name.clone(),
            points: layer.axes[axis].iter().map(|&(x, e)| (x, log(e))).collect(),
        };
        let chart = Chart {
            title: title.into(),
            x: x.into(),
            y: "log10(1 - cosine of the output)".into(),
            log_x: false,
            series: sorted.iter().map(series).collect(),
        };
        charts.push(chart.svg_naming(NAMED));
    }
    stacked(&charts)
}
