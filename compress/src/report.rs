//! The per-layer report with the columns of the contest entry, from the records of a container.
//!
//! `weight (H)` and `index (H)` are payload plus code table over the weights that are not zero, so a small layer may
//! exceed its fixed width. `rate P+Q` is `1 - size / float32 size` with fixed widths, once as the contest counted it
//! (fillers of the relative index left out) and once with them; `rate P+Q+H` is with what is really in the file.

use dcz_format::graph::Network;
use dcz_format::layer::{Index, Layer, Values};
use serde_json::{Value, json};

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name of the layer, or `total`.
    pub name: String,
    /// Weights.
    pub weights: u64,
    /// Weights that are not zero.
    pub present: u64,
    /// Kind of values, or empty.
    pub values: String,
    /// Kind of index, or empty.
    pub index: String,
    /// Fixed width of a value; none in the total.
    pub weight_bits: Option<u8>,
    /// Fixed width of a gap; none for other kinds of index and in the total.
    pub index_bits: Option<u8>,
    /// Bits with fixed widths, fillers not counted.
    pub fixed_bits: u64,
    /// The same with fillers.
    pub fixed_bits_fillers: u64,
    /// Bits of coded values, with their tables.
    pub value_bits_coded: u64,
    /// Bits of the coded index, with its table.
    pub index_bits_coded: u64,
    /// Bytes of the layer's tiles.
    pub tile_bytes: u64,
    /// Cosine to the float weights; none in the total.
    pub cosine: Option<f32>,
    /// Largest error of a weight.
    pub max_error: f32,
    /// The layer is compressed (not raw).
    pub compressed: bool,
}

impl Row {
    /// Share of zeros, in percent.
    pub fn sparsity(&self) -> f64 {
        percent(1.0 - self.present as f64 / self.weights.max(1) as f64)
    }
    /// Coded bits of a value per weight that is not zero.
    pub fn weight_h(&self) -> f64 {
        self.value_bits_coded as f64 / self.present.max(1) as f64
    }
    /// Coded bits of the index per weight that is not zero.
    pub fn index_h(&self) -> f64 {
        self.index_bits_coded as f64 / self.present.max(1) as f64
    }
    /// Rate with fixed widths, fillers not counted, in percent.
    pub fn rate_pq(&self) -> f64 {
        self.rate(self.fixed_bits)
    }
    /// Rate with fixed widths, fillers counted, in percent.
    pub fn rate_pq_fillers(&self) -> f64 {
        self.rate(self.fixed_bits_fillers)
    }
    /// Rate with the coded sizes, in percent.
    pub fn rate_pqh(&self) -> f64 {
        self.rate(self.value_bits_coded + self.index_bits_coded)
    }

    fn rate(&self, bits: u64) -> f64 {
        percent(1.0 - bits as f64 / (32.0 * self.weights.max(1) as f64))
    }
}

fn percent(share: f64) -> f64 {
    share * 100.0
}

/// The row of one layer.
pub fn row(layer: &Layer) -> Row {
    let record = &layer.record;
    let weights = layer.shape.weights();
    let present = weights.saturating_sub(record.zeros);
    let (value_bits, index_bits) = (u64::from(record.value_bits), u64::from(record.index_bits));
    // A raw layer stores every weight; a mask spends one bit on each, a dense index none.
    let fixed = |entries: u64| match layer.index {
        Index::Raw | Index::Dense { .. } => weights * value_bits,
        Index::Mask { .. } | Index::Classes(_) => present * value_bits + weights,
        Index::Gaps { .. } => entries * (value_bits + index_bits),
    };
    Row {
        name: layer.name.clone(),
        weights,
        present,
        values: values_name(&layer.values).into(),
        index: index_name(&layer.index),
        weight_bits: Some(record.value_bits),
        index_bits: matches!(layer.index, Index::Gaps { .. }).then_some(record.index_bits),
        fixed_bits: fixed(present),
        fixed_bits_fillers: fixed(present + record.fillers),
        value_bits_coded: record.value_payload_bits + record.value_table_bits,
        index_bits_coded: record.index_payload_bits + record.index_table_bits,
        tile_bytes: layer.tiles.iter().map(|t| u64::from(t.len)).sum(),
        cosine: Some(record.cosine),
        max_error: record.max_error,
        compressed: !matches!(layer.index, Index::Raw),
    }
}

/// The rows of a network's layers.
pub fn rows(network: &Network) -> Vec<Row> {
    network.layers.iter().map(row).collect()
}

/// Sums over rows.
pub fn total(name: &str, rows: &[Row]) -> Row {
    let sum = |f: fn(&Row) -> u64| rows.iter().map(f).sum();
    Row {
        name: name.into(),
        weights: sum(|r| r.weights),
        present: sum(|r| r.present),
        values: String::new(),
        index: String::new(),
        weight_bits: None,
        index_bits: None,
        fixed_bits: sum(|r| r.fixed_bits),
        fixed_bits_fillers: sum(|r| r.fixed_bits_fillers),
        value_bits_coded: sum(|r| r.value_bits_coded),
        index_bits_coded: sum(|r| r.index_bits_coded),
        tile_bytes: sum(|r| r.tile_bytes),
        cosine: None,
        max_error: rows.iter().fold(0.0, |m, r| m.max(r.max_error)),
        compressed: true,
    }
}

/// Name of a kind of values.
pub fn values_name(values: &Values) -> &'static str {
    match values {
        Values::Raw32 => "raw32",
        Values::Raw16 => "raw16",
        Values::Codebook { .. } => "codebook",
        Values::Minmax { .. } => "minmax",
        Values::Grid { .. } => "grid",
    }
}

/// Name of a kind of index.
pub fn index_name(index: &Index) -> String {
    match index {
        Index::Raw => "raw".into(),
        Index::Dense { .. } => "dense".into(),
        Index::Mask { mask: None, .. } => "mask raw".into(),
        Index::Mask { mask: Some(_), .. } => "mask".into(),
        Index::Gaps { bits, .. } => format!("gaps {bits}"),
        Index::Classes(classes) => format!("classes {}", classes.classes.len()),
    }
}

/// The table as text: one line per layer, a total over compressed layers as the contest counted, and a total over all.
pub fn table(network: &Network) -> String {
    let rows = rows(network);
    let width = rows
        .iter()
        .map(|r| r.name.chars().count())
        .chain([20])
        .max()
        .unwrap_or(20);
    let mut text = format!(
        "{:<width$}  {:>9}  {:<8}  {:<8}  {:>8}  {:>6}  {:>6}  {:>5}  {:>6}  {:>6}  {:>7}  {:>6}  {:>8}\n",
        "layer",
        "weights",
        "values",
        "index",
        "sparse %",
        "w bits",
        "w (H)",
        "i bits",
        "i (H)",
        "P+Q %",
        "fillers",
        "P+Q+H",
        "cosine"
    );
    let mut line = |row: &Row| {
        let bits = |b: Option<u8>| b.map_or(String::new(), |b| b.to_string());
        let cosine = row.cosine.map_or(String::new(), |c| format!("{c:.6}"));
        text.push_str(&format!(
            "{:<width$}  {:>9}  {:<8}  {:<8}  {:>8.2}  {:>6}  {:>6.2}  {:>5}  {:>6.2}  {:>6.2}  {:>7.2}  {:>6.2}  {:>8}\n",
            row.name,
            row.weights,
            row.values,
            row.index,
            row.sparsity(),
            bits(row.weight_bits),
            row.weight_h(),
            bits(row.index_bits),
            row.index_h(),
            row.rate_pq(),
            row.rate_pq_fillers(),
            row.rate_pqh(),
            cosine,
        ));
    };
    rows.iter().for_each(&mut line);
    let compressed: Vec<Row> = rows.iter().filter(|r| r.compressed).cloned().collect();
    if !compressed.is_empty() && compressed.len() < rows.len() {
        line(&total("total of compressed", &compressed));
    }
    line(&total("total", &rows));
    text
}

/// A row as JSON.
pub fn json(row: &Row) -> Value {
    json!({
        "name": row.name,
        "weights": row.weights,
        "present": row.present,
        "values": row.values,
        "index": row.index,
        "sparsity_percent": row.sparsity(),
        "weight_bits": row.weight_bits,
        "weight_bits_huffman": row.weight_h(),
        "index_bits": row.index_bits,
        "index_bits_huffman": row.index_h(),
        "rate_pq_percent": row.rate_pq(),
        "rate_pq_fillers_percent": row.rate_pq_fillers(),
        "rate_pqh_percent": row.rate_pqh(),
        "tile_bytes": row.tile_bytes,
        "cosine": row.cosine,
        "max_error": row.max_error,
    })
}

/// Float32 bytes of a network's weights and constants.
pub fn float_bytes(network: &Network) -> u64 {
    let weights: u64 = network.layers.iter().map(|l| l.shape.weights()).sum();
    let constants: u64 = network
        .constants
        .iter()
        .map(|c| c.dims.iter().map(|&d| u64::from(d)).product::<u64>())
        .sum();
    4 * (weights + constants)
}
