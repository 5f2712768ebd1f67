//! One page about a compressed network: the contest's table per layer, accuracy against size, sensitivity, ROC.
//!
//! The page is a single file: styles and charts are within it, nothing is loaded from elsewhere and no script runs. What is
//! not measured in the run comes from JSON lines of `dcz evaluate`, `sensitivity` and `score`, told apart by their content.

use std::fmt::Write;

use dcz_format::graph::Network;
use serde_json::Value;

use crate::chart::{Chart, Series, escape};
use crate::report::{self, Row};
use crate::sensitivity;

/// What a page tells.
#[derive(Debug)]
pub struct Page<'a> {
    /// The compressed network.
    pub network: &'a Network,
    /// Name of the file.
    pub file: &'a str,
    /// Its size in bytes.
    pub bytes: u64,
    /// Size of the network in float32.
    pub float_bytes: u64,
    /// Remarks of the importer.
    pub notes: &'a [String],
    /// The run's own line of JSON; of it only what calibration walked is shown.
    pub run: &'a Value,
    /// Measurements, with the names of the files they come from.
    pub measured: &'a [(String, Value)],
}

const STYLE: &str = "body{font:15px/1.45 sans-serif;max-width:72em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}\
th,td{padding:.15em .7em;text-align:right;border-bottom:1px solid #ddd}th{border-bottom:2px solid #888;vertical-align:bottom}\
td{white-space:nowrap}th:first-child,td:first-child{text-align:left}tr.total td{border-top:2px solid #888;font-weight:bold}\
svg{max-width:46em;width:100%;height:auto}.from{color:#666;font-size:13px}";

/// The page as HTML.
pub fn page(page: &Page<'_>) -> String {
    let title = escape(&format!("{} - dcz", page.file));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    );
    head(&mut out, page);
    layers(&mut out, page.network);
    scores(&mut out, page.measured);
    frontier(&mut out, page.run);
    accuracy(&mut out, page);
    curves(&mut out, page.measured);
    roc(&mut out, page.measured);
    out.push_str("</body>\n</html>\n");
    out
}

fn head(out: &mut String, page: &Page<'_>) {
    let ratio = page.float_bytes as f64 / page.bytes.max(1) as f64;
    let _ = writeln!(
        out,
        "<h1>{}</h1>\n<p>Network {}: {} bytes, {ratio:.2} times smaller than {} bytes of float32 (rate {:.2} %). Made by {}{}.</p>",
        escape(page.file),
        escape(&page.network.name),
        grouped(page.bytes as f64),
        grouped(page.float_bytes as f64),
        100.0 * (1.0 - 1.0 / ratio),
        escape(&page.network.provenance.producer),
        match page.network.provenance.source.as_str() {
            "" => String::new(),
            source => format!(" from {}", escape(source)),
        }
    );
    if !page.notes.is_empty() {
        out.push_str("<ul>\n");
        for note in page.notes {
            let _ = writeln!(out, "<li>{}</li>", escape(note));
        }
        out.push_str("</ul>\n");
    }
}

fn layers(out: &mut String, network: &Network) {
    out.push_str(
        "<h2>Layers</h2>\n<p>(H): Huffman payload and code table in bits, per weight that is not zero. Rates are 1 - size / float32 \
         size: pruned and quantised with fixed widths (P+Q, filler zeros of the relative index not counted, then counted), and as \
         coded in the file (P+Q+H).</p>\n",
    );
    table(
        out,
        &[
            "layer",
            "weights",
            "values",
            "index",
            "sparsity %",
            "weight bits",
            "weight (H)",
            "index bits",
            "index (H)",
            "rate P+Q %",
            "with fillers %",
            "rate P+Q+H %",
            "cosine",
        ],
    );
    let rows = report::rows(network);
    rows.iter().for_each(|row| layer(out, row, ""));
    let compressed: Vec<Row> = rows.iter().filter(|r| r.compressed).cloned().collect();
    if !compressed.is_empty() && compressed.len() < rows.len() {
        let total = report::total("total of compressed", &compressed);
        layer(out, &total, " class=\"total\"");
    }
    layer(out, &report::total("total", &rows), " class=\"total\"");
    out.push_str("</table>\n");
}

fn layer(out: &mut String, row: &Row, class: &str) {
    let dash = || "-".to_string();
    let bits = |bits: Option<u8>| bits.map_or_else(String::new, |b| b.to_string());
    let (name, values, index) = (escape(&row.name), escape(&row.values), escape(&row.index));
    let mut cells = vec![name, grouped(row.weights as f64), values, index];
    if row.compressed {
        cells.push(format!("{:.2}", row.sparsity()));
        cells.push(bits(row.weight_bits));
        cells.push(format!("{:.2}", row.weight_h()));
        cells.push(bits(row.index_bits));
        cells.push(format!("{:.2}", row.index_h()));
        cells.push(format!("{:.2}", row.rate_pq()));
        cells.push(format!("{:.2}", row.rate_pq_fillers()));
        cells.push(format!("{:.2}", row.rate_pqh()));
    } else {
        // As the contest prints a layer that is left alone.
        cells.extend(std::iter::repeat_with(dash).take(8));
    }
    cells.push(row.cosine.map_or_else(String::new, |c| format!("{c:.6}")));
    cell_row(out, &cells, class);
}

/// `12 345 678`, with spaces that do not break; a question mark for what is not a number.
fn grouped(number: f64) -> String {
    if !number.is_finite() {
        return "?".into();
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && digit.is_ascii_digit() && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{a0}');
        }
        text.push(digit);
    }
    text
}

fn table(out: &mut String, heads: &[&str]) {
    out.push_str("<table>\n<tr>");
    for head in heads {
        let _ = write!(out, "<th>{}</th>", escape(head));
    }
    out.push_str("</tr>\n");
}

/// Cells are escaped already.
fn cell_row(out: &mut String, cells: &[String], class: &str) {
    let _ = write!(out, "<tr{class}>");
    for cell in cells {
        let _ = write!(out, "<td>{cell}</td>");
    }
    out.push_str("</tr>\n");
}

fn from(out: &mut String, name: &str) {
    let _ = writeln!(out, "<p class=\"from\">From {}.</p>", escape(name));
}

/// Contest scores.
fn scores(out: &mut String, measured: &[(String, Value)]) {
    let list: Vec<_> = measured
        .iter()
        .filter(|(_, v)| v["kind"] == "score")
        .collect();
    if list.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Contest score</h2>\n<p>((M - m)/M * 20 + (S - s)/S * 80) * A(z) * B(s), bytes.</p>\n",
    );
    table(out, &["file", "M", "m", "S", "s", "z", "A", "B", "score"]);
    for (name, value) in list {
        let number = |key: &str| value[key].as_f64().unwrap_or(f64::NAN);
        let mut cells = vec![escape(value["compressed"].as_str().unwrap_or(name))];
        cells.extend(["M", "m", "S", "s"].map(|key| grouped(number(key))));
        cells.push(format!("{:.4}", number("z")));
        cells.extend(["A", "B"].map(|key| format!("{}", number(key))));
        cells.push(format!("{:.2}", number("score")));
        cell_row(out, &cells, "");
    }
    out.push_str("</table>\n");
}

/// The files that a calibrated run tried on its way to a target.
fn frontier(out: &mut String, run: &Value) {
    let calibration = &run["calibration"];
    let point = |p: &Value| Some((p["bytes"].as_f64()? / 1e6, p["cosine"].as_f64()?));
    let points = calibration["frontier"].as_array().into_iter().flatten();
    let mut points: Vec<(f64, f64)> = points.filter_map(point).collect();
    if points.is_empty() {
        return;
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let target = calibration["target"].as_str().unwrap_or("none");
    let _ = writeln!(
        out,
        "<h2>Files tried</h2>\n<p>Target: {}.</p>",
        escape(target)
    );
    let chart = Chart {
        title: "Cosine against size".into(),
        x: "size of the file in MB".into(),
        y: "mean cosine to the float output".into(),
        log_x: false,
        series: vec![Series {
            name: "tried".into(),
            points,
        }],
    };
    out.push_str(&chart.svg());
}

/// The networks of all measurements of `dcz evaluate`.
fn evaluated(measured: &[(String, Value)]) -> Vec<(&str, &Value)> {
    let mut list = Vec::new();
    for (_, value) in measured {
        for network in value["networks"].as_array().into_iter().flatten() {
            let name = network["model"].as_str().unwrap_or_default();
            // The float network is measured beside each of its compressed forms.
            if network["roc"].is_array() && !list.iter().any(|(n, v)| *n == name && *v == network) {
                list.push((name, network));
            }
        }
    }
    list
}

fn tpr(network: &Value, fpr: f64) -> f64 {
    let rates = network["all"]["tpr"].as_array().into_iter().flatten();
    let mut found = rates.filter(|rate| rate["fpr"].as_f64() == Some(fpr));
    found
        .next()
        .and_then(|rate| rate["tpr"].as_f64())
        .unwrap_or(f64::NAN)
}

fn accuracy(out: &mut String, page: &Page<'_>) {
    let list = evaluated(page.measured);
    if list.is_empty() {
        return;
    }
    out.push_str("<h2>Accuracy against size</h2>\n");
    table(
        out,
        &[
            "network",
            "bytes",
            "accuracy %",
            "TPR at FPR 1e-2 %",
            "1e-3 %",
            "1e-4 %",
            "contest z",
        ],
    );
    let of = |network: &Value| {
        network["listed"]["accuracy"]["accuracy"]
            .as_f64()
            .unwrap_or(f64::NAN)
    };
    let mut sorted = list.clone();
    let bytes = |network: &Value| network["bytes"].as_f64().unwrap_or(f64::NAN);
    sorted.sort_by(|a, b| bytes(a.1).total_cmp(&bytes(b.1)));
    for (name, network) in &sorted {
        let mut cells = vec![escape(name), grouped(bytes(network))];
        cells.push(format!("{:.2}", 100.0 * of(network)));
        cells.extend([1e-2, 1e-3, 1e-4].map(|fpr| format!("{:.2}", 100.0 * tpr(network, fpr))));
        let z = network["contest"]["z"].as_f64();
        cells.push(z.map_or_else(|| "refused".into(), |z| format!("{z:.4}")));
        cell_row(out, &cells, "");
    }
    out.push_str("</table>\n");
    let series = |name: &str, value: &dyn Fn(&Value) -> f64| Series {
        name: name.into(),
        points: (sorted.iter())
            .map(|(_, network)| (bytes(network) / 1e6, 100.0 * value(network)))
            .collect(),
    };
    let chart = Chart {
        title: "Accuracy against size".into(),
        x: "size of the file in MB (logarithmic)".into(),
        y: "percent".into(),
        log_x: true,
        series: vec![
            series("accuracy on listed pairs", &of),
            series("TPR at FPR 1e-3, all pairs", &|n| tpr(n, 1e-3)),
            series("TPR at FPR 1e-4, all pairs", &|n| tpr(n, 1e-4)),
        ],
    };
    out.push_str(&chart.svg());
}

fn curves(out: &mut String, measured: &[(String, Value)]) {
    for (name, value) in measured {
        if let Some(svg) = sensitivity::svg_of_json(value) {
            out.push_str("<h2>Sensitivity of layers</h2>\n<p>One layer is pruned or quantised, all others stay float: 1 - cosine of the output, mean over images. The most sensitive layers are named.</p>\n");
            out.push_str(&svg);
            from(out, name);
        }
    }
}

fn roc(out: &mut String, measured: &[(String, Value)]) {
    let point = |p: &Value| Some((p[0].as_f64()?, p[1].as_f64()?));
    let series: Vec<Series> = evaluated(measured)
        .into_iter()
        .map(|(name, network)| Series {
            name: name.into(),
            points: (network["roc"].as_array().into_iter().flatten())
                .filter_map(point)
                .collect(),
        })
        .collect();
    if series.is_empty() {
        return;
    }
    let chart = Chart {
        title: "ROC over all pairs of the images".into(),
        x: "false positive rate".into(),
        y: "true positive rate".into(),
        log_x: true,
        series,
    };
    out.push_str("<h2>ROC</h2>\n");
    out.push_str(&chart.svg());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_that_calibration_tried_are_drawn() {
        let mut out = String::new();
        frontier(&mut out, &json!({ "bytes": 1 }));
        assert!(out.is_empty());
        let tried = json!([{ "bytes": 2e6, "cosine": 0.99 }, { "bytes": 1e6, "cosine": 0.9 }, { "cosine": 1.0 }]);
        let run = json!({ "calibration": { "target": "size < 2MB", "frontier": tried } });
        frontier(&mut out, &run);
        assert!(out.contains("size &lt; 2MB") && out.matches("<circle").count() == 2);
    }

    #[test]
    fn digits_in_threes() {
        let space = '\u{a0}';
        assert_eq!(grouped(1234567.0), format!("1{space}234{space}567"));
        assert_eq!(
            (grouped(12.0), grouped(f64::NAN)),
            ("12".into(), "?".into())
        );
    }
}
