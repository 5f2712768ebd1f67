//! Damaged files: an error, or an output with the same bits; never a panic.

mod common;
use common::*;
use dcz::graph::*;
use dcz::{ErrorKind, Model, Session, SessionOptions, TensorRef};

/// A network of a few operators in a file of a few kilobytes.
fn small() -> Vec<u8> {
    let mut net = Net::new("small");
    let x = net.input(&[1, 2, 6, 6]);
    net.coding = Coding::GridChannel;
    let y = net.conv(x, 2, 9, 3, 1, 1);
    let slope = net.constant(&[9, 1, 1]);
    let y = net.node(Op::Prelu { slope }, &[y]);
    net.coding = Coding::Codebook;
    let z = net.conv(y, 9, 9, 3, 1, 9);
    let y = net.add(z, y);
    net.coding = Coding::Raw16;
    let y = net.conv(y, 9, 4, 1, 2, 1);
    let y = net.flatten(y);
    net.coding = Coding::Minmax;
    let y = net.linear(y, 36, 7);
    net.output(y);
    net.bytes()
}

/// Opens, prepares, runs.
fn output(bytes: Vec<u8>) -> Result<Vec<f32>, dcz::Error> {
    let model = Model::from_bytes(bytes)?;
    let mut session = Session::new(&model, SessionOptions::default())?;
    let (dims, data) = noise(7, &[1, 2, 6, 6]);
    let plan = session.prepare(&[("in0", &dims)])?;
    let mut out = vec![f32::NAN; plan.outputs[0].1.iter().product()];
    let name = plan.outputs[0].0.clone();
    session.run(
        &[(
            "in0",
            TensorRef {
                dims: &dims,
                data: &data,
            },
        )],
        &mut [(&name, &mut out)],
    )?;
    Ok(out)
}

#[test]
fn every_flipped_bit_is_an_error_or_changes_nothing() {
    let bytes = small();
    let wanted = output(bytes.clone()).unwrap();
    let mut harmless = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            match output(damaged) {
                Ok(got) => {
                    assert_eq!(got, wanted, "byte {at}, bit {bit}");
                    harmless += 1;
                }
                Err(error) => assert!(matches!(error.exit_code(), 3 | 4), "{at}.{bit}: {error}"),
            }
        }
    }
    // Padding between sections and tiles is all that a run does not look at.
    assert!(
        harmless < bytes.len() * 8 / 5,
        "{harmless} of {} bits",
        bytes.len() * 8
    );
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = small();
    for len in 0..bytes.len() {
        let error = output(bytes[..len].to_vec()).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{len}: {error}");
    }
}

#[test]
fn shapes_that_no_machine_holds_are_errors() {
    let mut net = Net::new("huge");
    let x = net.input(&[1, 1, 40_000, 40_000]);
    let y = net.conv(x, 1, 64, 3, 1, 1);
    net.output(y);
    let error = session(&net.model(), dcz::Threads::Inline)
        .prepare_default()
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Shape(_)), "{error}");
    // Windows, pads and strides far beyond the map.
    for (kernel, stride, pad) in [(9, 1, 0), (3, u32::MAX, 1), (3, 1, u32::MAX / 2)] {
        let mut net = Net::new("odd");
        let x = net.input(&[1, 1, 8, 8]);
        let pool = Pool {
            kind: PoolKind::Average,
            kernel: [kernel; 2],
            strides: [stride; 2],
            dilations: [1; 2],
            pads: Pads::Explicit([pad; 4]),
            ceil_mode: true,
            count_include_pad: true,
        };
        let y = net.node(Op::Pool(pool), &[x]);
        net.output(y);
        // Either the writer refuses to write it, the shapes are refused, or it runs.
        if let Ok(model) = std::panic::catch_unwind(|| net.model()) {
            let mut session = session(&model, dcz::Threads::Inline);
            if session.prepare_default().is_ok() {
                run(&mut session, &[noise(1, &[1, 1, 8, 8])]);
            }
        }
    }
}
