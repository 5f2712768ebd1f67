//! The committed sample files: the good ones stay readable for good, each bad one breaks the rule it is named after.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod common;
#[path = "slow/container.rs"]
mod slow;

use common::*;
use dcz_format::{ErrorKind, Fault};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(folder);
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dcz"))
        .map(|path| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                fs::read(&path).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn good() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/good/digests.txt");
    let digests = fs::read_to_string(path).unwrap();
    let files = files("good");
    assert_eq!(digests.lines().count(), files.len());
    for (name, bytes) in files {
        let line = format!("{name} {}", digest(&bytes));
        assert!(digests.lines().any(|known| known == line), "{line}");
        let container = open(&bytes).unwrap();
        container.check(&mut |_, _| {}).unwrap();
        let slow = slow::read(&bytes).unwrap_or_else(|rule| panic!("{name}: slow reader: {rule}"));
        assert_eq!(slow.pipeline.as_ref(), container.pipeline(), "{name}");
        for net in 0..slow.networks.len() {
            let shares = slow.blocks.iter().find(|(n, _)| *n == net);
            let shares = shares.map_or(&[][..], |(_, shares)| shares);
            let fast = container.blocks(net).iter().map(|one| [one.of2, one.of4]);
            assert!(shares.iter().copied().eq(fast), "{name}");
        }
        for (net, decoded) in slow.networks.iter().enumerate() {
            assert_eq!(decoded.network, container.networks()[net], "{name}");
            for (id, weights) in decoded.weights.iter().enumerate() {
                let fast = container
                    .dense_weights(net, dcz_format::graph::LayerId(id as u32))
                    .unwrap();
                assert_eq!(*weights, fast, "{name}");
            }
            for (id, values) in decoded.constants.iter().enumerate() {
                let mut fast = vec![0.0; values.len()];
                container
                    .constant(net, dcz_format::graph::ConstId(id as u32), &mut fast)
                    .unwrap();
                assert_eq!(*values, fast, "{name}");
            }
        }
    }
}

#[test]
fn bad() {
    let mut seen = BTreeSet::new();
    for (name, bytes) in files("bad") {
        let result = open(&bytes).and_then(|container| container.check(&mut |_, _| {}));
        let error = result.err().unwrap_or_else(|| panic!("{name} passed"));
        assert_eq!(error.kind().name(), name, "{error}");
        assert!(
            matches!(error.fault(), Fault::File | Fault::Reader),
            "{name}"
        );
        assert!(bytes.len() < 3000, "{name} is not small");
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        let slow = slow::read(&bytes)
            .err()
            .unwrap_or_else(|| panic!("{name}: the slow reader accepts it"));
        let of_stream =
            name.starts_with("stream_") || matches!(&*name, "mask_count" | "gap_overrun");
        assert_eq!(slow, if of_stream { "stream" } else { &*name });
        seen.insert(name);
    }
    // Every rule about files has its sample.
    for kind in ErrorKind::ALL
        .iter()
        .filter(|kind| matches!(kind.fault(), Fault::File | Fault::Reader))
    {
        assert!(seen.contains(kind.name()), "no sample for {}", kind.name());
    }
}
