//! Every flipped bit and every truncation of a small container is refused by `check`; whatever the lazy path accepts, it
//! reads bit-identically.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod common;

use common::*;
use dcz_format::{Container, ErrorKind, Limits, PositionedFile};
use std::sync::Arc;

fn check(bytes: &[u8]) -> Result<(), dcz_format::Error> {
    open(bytes)?.check(&mut |_, _| {}).map(|_| ())
}

/// One network, all modes, every bit.
#[test]
fn every_flipped_bit() {
    let bytes = write(vec![network("only", 3)], &options());
    let good = read_lazily(&open(&bytes).unwrap()).unwrap();
    check(&bytes).unwrap();
    let threads = 4;
    let harmless: usize = std::thread::scope(|scope| {
        let part = |thread: usize| {
            let mut bytes = bytes.clone();
            let good = &good;
            move || {
                let mut harmless = 0;
                for at in (thread..bytes.len()).step_by(threads) {
                    for bit in 0..8 {
                        bytes[at] ^= 1 << bit;
                        let error = check(&bytes).expect_err("a flipped bit passed");
                        assert_ne!(
                            error.fault(),
                            dcz_format::Fault::Caller,
                            "{at}.{bit}: {error}"
                        );
                        if let Ok(read) = open(&bytes).and_then(|container| read_lazily(&container))
                        {
                            // Nothing the flip could have changed was used.
                            assert!(read == *good, "byte {at} bit {bit} changed what was read");
                            harmless += 1;
                        }
                        bytes[at] ^= 1 << bit;
                    }
                }
                harmless
            }
        };
        let handles: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(part(thread)))
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .sum()
    });
    // Padding, texts and the checksums of sections that are read lazily; everything else is seen at once.
    println!(
        "{} bytes, {harmless} flips not seen by the lazy path",
        bytes.len()
    );
    assert!(harmless < bytes.len() * 8 / 4);
}

#[test]
fn every_truncation() {
    let bytes = sample();
    for len in 0..bytes.len() {
        let error = open(&bytes[..len]).expect_err("a truncated file opened");
        let expected = matches!(error.kind(), ErrorKind::Truncated);
        assert!(expected, "{len}: {error:?}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(open(&longer).unwrap_err().kind(), ErrorKind::FileLength);
}

/// A file that is truncated while it is open is an error for the positioned reader.
#[test]
fn truncated_while_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.dcz");
    std::fs::write(&path, sample()).unwrap();
    let container = Container::open(
        Arc::new(PositionedFile::open(&path).unwrap()),
        &Limits::default(),
    )
    .unwrap();
    read_lazily(&container).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100)
        .unwrap();
    assert_eq!(read_lazily(&container).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn foreign_files() {
    for bytes in [
        &b""[..],
        b"hello",
        b"PK\x03\x04 not a container at all, but long enough for a header",
    ] {
        let kind = open(bytes).unwrap_err().kind();
        assert!(
            matches!(kind, ErrorKind::Truncated | ErrorKind::BadMagic),
            "{kind:?}"
        );
    }
}
