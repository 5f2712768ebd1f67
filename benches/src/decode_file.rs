//! `bench decode --file`: how fast the layers of a real file decode.
//!
//! Every tile of the first network is verified and decoded, layer by layer, tables built as they are needed, on one thread:
//! to what the runtime uses (codes where there are codes), and to f32. Times are the best of many sweeps over the file.

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dcz_format::graph::LayerId;
use dcz_format::{Container, TileDecoder, TileForm, TileOut};
use serde_json::json;

use crate::Result;

/// Measures and prints.
pub fn run(path: &Path, millis: u64, as_json: bool) -> Result<ExitCode> {
    let model = dcz::Model::open(path)?;
    let container = model.container();
    let network = container.networks().first().ok_or("no network")?;
    let weights: u64 = network.layers.iter().map(|l| l.shape.weights()).sum();
    let coded: u64 = (network.layers.iter().flat_map(|l| &l.tiles))
        .map(|tile| u64::from(tile.len))
        .sum();
    let native = best(container, false, millis)?;
    let floats = best(container, true, millis)?;
    let rate = |time: Duration| weights as f64 / time.as_secs_f64() / 1e6;
    if as_json {
        let line = json!({
            "subject": "decode file", "network": network.name, "weights": weights, "coded_bytes": coded,
            "mweights_per_s": rate(native), "mweights_per_s_f32": rate(floats),
        });
        println!("{line}");
    } else {
        println!(
            "{}: {weights} weights in {coded} bytes, {:.0} M weights/s to codes, {:.0} to f32 (one thread)",
            network.name,
            rate(native),
            rate(floats)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Least time of a sweep.
fn best(container: &Container, floats: bool, millis: u64) -> Result<Duration> {
    let mut decoder = TileDecoder::keeping_tables(container, 0)?;
    let layers = &container.networks()[0].layers;
    let largest = layers.iter().flat_map(|l| &l.tiles).map(|t| t.weights());
    let largest = largest.max().unwrap_or(0);
    let (mut codes, mut values) = (vec![0u8; largest], vec![0f32; largest]);
    let (begin, mut least) = (Instant::now(), Duration::MAX);
    let mut sweeps = 0;
    while sweeps < 3 || begin.elapsed() < Duration::from_millis(millis) {
        let start = Instant::now();
        for (id, layer) in layers.iter().enumerate() {
            let coded = !floats && layer.form() != TileForm::F32;
            for (index, tile) in layer.tiles.iter().enumerate() {
                let count = tile.weights();
                let out = if coded {
                    TileOut::Codes(&mut codes[..count])
                } else {
                    TileOut::F32(&mut values[..count])
                };
                decoder.decode(container, 0, LayerId(id as u32), index, out)?;
            }
            black_box((&codes, &values));
        }
        least = least.min(start.elapsed());
        sweeps += 1;
    }
    Ok(least)
}
