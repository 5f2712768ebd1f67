//! Writes the sample files of `format/vectors/`: `cargo run -p dcz-format --example make_vectors`.
//!
//! `bad/` is rewritten whole: one small file per rule, named after the error. Files of `good/` are golden: they stay readable
//! for good, so existing ones are never touched (delete one first to replace it, and say why in the change log of the
//! specification); `good/digests.txt` lists what they decode to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod assemble;
mod bad;
#[path = "../../tests/common/mod.rs"]
mod common;

use assemble::{Entry, File, Layer, Network};
use dcz_format::writer::{IndexChoice, NetworkInput};
use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let bad = root.join("bad");
    if bad.exists() {
        fs::remove_dir_all(&bad)?;
    }
    fs::create_dir_all(&bad)?;
    for (name, bytes) in bad::all() {
        fs::write(bad.join(format!("{name}.dcz")), bytes)?;
    }
    let good = root.join("good");
    fs::create_dir_all(&good)?;
    let mut digests = String::new();
    for (name, bytes) in good_files() {
        let path = good.join(format!("{name}.dcz"));
        if !path.exists() {
            fs::write(&path, &bytes)?;
        }
        let bytes = fs::read(&path)?;
        digests += &format!("{name} {}\n", common::digest(&bytes));
    }
    fs::write(good.join("digests.txt"), digests)
}

/// Every layer that can be is in classes.
fn classes() -> NetworkInput {
    let mut input = common::network("classes", 16);
    for layer in &mut input.layers {
        if layer.values.zero_symbol().is_some() {
            layer.index = IndexChoice::Classes;
        }
    }
    input
}

fn good_files() -> Vec<(&'static str, Vec<u8>)> {
    let assembled = |layer: Layer| File::of(Network::new(layer)).bytes();
    let mut ancillary = File::of(Network::new(Layer::mask()));
    ancillary.entries.push(Entry::new(
        b"note",
        0,
        None,
        b"Readers skip this section.".to_vec(),
    ));
    let mut large = common::options();
    large.tile_weights = 65_536;
    let mut bundle = common::encoded(
        vec![
            common::network("detector", 14),
            common::network("embedder", 15),
        ],
        &large,
    );
    bundle.set_pipeline(common::pipeline()).unwrap();
    vec![
        ("pipeline", bundle.to_bytes().unwrap()),
        ("blocks", common::write(vec![common::blocks()], &large)),
        ("assembled_raw32", assembled(Layer::raw32())),
        ("assembled_dense", assembled(Layer::dense())),
        ("assembled_mask", assembled(Layer::mask())),
        ("assembled_gaps", assembled(Layer::gaps())),
        ("assembled_classes", assemble::in_classes(Layer::classes())),
        ("classes", common::write(vec![classes()], &large)),
        ("unknown_ancillary_section", ancillary.bytes()),
        (
            "everything",
            common::write(vec![common::network("everything", 11)], &common::options()),
        ),
        (
            "two_networks",
            common::write(
                vec![common::network("one", 12), common::network("two", 13)],
                &large,
            ),
        ),
    ]
}
