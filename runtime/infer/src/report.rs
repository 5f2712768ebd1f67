//! What is printed.

use crate::failure::Failure;
use crate::{Input, Output};
use dcz::graph::{Meaning, Metric};
use dcz::{Session, Verification};
use dcz_face::FacePipeline;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Classes shown of a classification.
const TOP: usize = 5;

/// Standard output for people, or for one line of JSON.
pub struct Console {
    /// Only the result goes to standard output.
    pub json: bool,
}

impl Console {
    /// A line for people.
    pub fn line(&self, text: &str) {
        self.text(&format!("{text}\n"));
    }
    /// Text for people that ends its own lines.
    pub fn text(&self, text: &str) {
        use std::io::Write;
        // A closed pipe is the reader's choice, not an error.
        let _ = if self.json {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            std::io::stdout().write_all(text.as_bytes())
        };
    }
    /// The result as JSON, when asked for.
    pub fn result(&self, value: &Value) {
        if self.json {
            use std::io::Write;
            let _ = writeln!(std::io::stdout(), "{value}");
        }
    }
}

/// The plan of a set of inputs.
pub fn plan(session: &mut Session, set: &[Input]) -> Result<String, Failure> {
    Ok(crate::prepare(session, set)?.to_string())
}

/// An output for people: the embedding, the best classes, or a summary.
pub fn output(output: &Output, meaning: &Meaning, written: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match meaning {
        Meaning::Embedding { .. } if !written => {
            let values: Vec<String> = output.data.iter().map(|v| v.to_string()).collect();
            writeln!(text, "{}", values.join(" "))
        }
        Meaning::Classes { labels } => best(&output.data)
            .into_iter()
            .try_for_each(|(i, score)| writeln!(text, "{score:>10.5}  {}", label(labels, i))),
        _ => {
            let (low, high) = output
                .data
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| {
                    (l.min(v), h.max(v))
                });
            writeln!(
                text,
                "{} {:?}: from {low} to {high}",
                output.name, output.dims
            )
        }
    };
    text
}

/// The same for programs. Values are left out when they were written to a file.
pub fn output_json(output: &Output, meaning: &Meaning, written: bool) -> Value {
    let mut value = json!({ "name": output.name, "dims": output.dims });
    if !written {
        value["values"] = json!(output.data);
    }
    if let Meaning::Classes { labels } = meaning {
        let list = best(&output.data).into_iter();
        value["top"] = list
            .map(|(i, score)| json!({ "class": i, "label": label(labels, i), "score": score }))
            .collect();
    }
    value
}

fn best(scores: &[f32]) -> Vec<(usize, f32)> {
    let mut order: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(TOP);
    order
}

fn label(labels: &[String], index: usize) -> String {
    labels
        .get(index)
        .cloned()
        .unwrap_or_else(|| format!("class {index}"))
}

/// The steps' times of a pipeline's networks, where they were measured.
pub fn profiles(console: &Console, pipeline: &FacePipeline) {
    for (stage, profile) in ["detector", "embedder"]
        .into_iter()
        .zip(pipeline.profiles())
    {
        if let Some(profile) = profile {
            console.text(&format!("{stage}\n{profile}"));
        }
    }
}

/// What there is to say where a decision is asked for and none can be made.
pub fn undecided() -> Failure {
    Failure::usage("no decision: the file has no threshold; say --threshold T")
}

/// Value, threshold and decision for the reader; the same as fields of JSON; the exit code.
pub fn verification(console: &Console, result: &Verification) -> (Map<String, Value>, u8) {
    let (word, name) = match result.metric {
        Metric::Cosine => ("similarity", "cosine"),
        Metric::Euclidean => ("distance", "euclidean"),
    };
    console.line(&format!("{word} {:.6} ({name})", result.value));
    match (result.threshold, result.same) {
        (Some(threshold), Some(same)) => {
            console.line(&format!("threshold {threshold}"));
            console.line(if same {
                "same person"
            } else {
                "different person"
            });
        }
        _ => console.line("the file has no threshold: no decision"),
    }
    let fields = [
        ("metric", json!(name)),
        (word, json!(result.value)),
        ("threshold", json!(result.threshold)),
        ("same", json!(result.same)),
    ];
    let fields = fields.map(|(key, value)| (key.to_string(), value));
    (
        fields.into_iter().collect(),
        u8::from(result.same == Some(false)),
    )
}
