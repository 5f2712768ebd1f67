//! The reader against the slow one of the specification, on random containers.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod common;
#[path = "slow/container.rs"]
mod slow;

use common::*;
use dcz_format::graph::*;
use dcz_format::layer::*;
use dcz_format::writer::*;
use proptest::prelude::*;

/// Both readers accept, and say the same.
fn compare(bytes: &[u8], inputs: &[NetworkInput]) {
    let container = open(bytes).unwrap();
    container.check(&mut |_, _| {}).unwrap();
    let slow = slow::read(bytes).unwrap();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for (net, decoded) in slow.networks.iter().enumerate() {
        assert_eq!(decoded.network, container.networks()[net]);
        for (id, weights) in decoded.weights.iter().enumerate() {
            let fast = container.dense_weights(net, LayerId(id as u32)).unwrap();
            assert_eq!(bits(weights), bits(&fast));
            assert_eq!(fast, expected(&inputs[net].layers[id]));
        }
        for (id, values) in decoded.constants.iter().enumerate() {
            let mut fast = vec![0.0; values.len()];
            container
                .constant(net, ConstId(id as u32), &mut fast)
                .unwrap();
            assert_eq!(bits(values), bits(&fast));
        }
    }
    let texts: Vec<_> = container
        .texts()
        .unwrap()
        .into_iter()
        .map(|t| (t.name, t.text))
        .collect();
    assert_eq!(slow.texts, texts);
}

#[test]
fn crc_is_castagnoli() {
    assert_eq!(slow::crc(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn everything() {
    let inputs = vec![network("first", 1), network("second", 2)];
    compare(&write(inputs.clone(), &options()), &inputs);
    let mut single = options();
    single.share_tables = false;
    single.texts.clear();
    compare(&write(inputs.clone(), &single), &inputs);
}

/// A layer of random geometry, values, zeros and index.
fn random_layer(number: usize, random: &mut Random) -> LayerInput {
    let groups = [1, 1, 2, 5][random.below(4)];
    let (shape, order) = match random.below(4) {
        0 => {
            let channels = 1 + random.below(20) as u32;
            (shape(channels * 2, 1, [3, 3], channels), KOrder::TapMajor)
        }
        1 => (
            shape(
                1 + random.below(30) as u32,
                1 + random.below(200) as u32,
                [1, 1],
                1,
            ),
            KOrder::ChannelMajor,
        ),
        _ => {
            let kernel = [1 + random.below(3) as u32, 1 + random.below(4) as u32];
            let order = [KOrder::ChannelMajor, KOrder::TapMajor][random.below(2)];
            (
                shape(
                    groups * (1 + random.below(12) as u32),
                    1 + random.below(9) as u32,
                    kernel,
                    groups,
                ),
                order,
            )
        }
    };
    let k = shape.k();
    let values = match random.below(8) {
        0 => Values::Raw32,
        1 => Values::Raw16,
        2 => {
            let len = 1 + random.below(256);
            codebook(len, (random.below(2) == 0).then(|| random.below(len) as u8))
        }
        3 => {
            let bits = 1 + random.below(8) as u8;
            minmax(
                bits,
                (random.below(2) == 0).then(|| random.below(1 << bits) as u8),
            )
        }
        4 => Values::Grid {
            steps: Steps::Channel(steps(shape.out_channels as usize)),
        },
        5 => {
            let len = 1 + random.below(k) as u32;
            let count = k.div_ceil(len as usize) * shape.out_channels as usize;
            Values::Grid {
                steps: Steps::Block {
                    len,
                    steps: steps(count),
                },
            }
        }
        _ => Values::Grid {
            steps: Steps::Layer(0.03),
        },
    };
    let zeros = [0.0, 0.3, 0.8, 0.99, 1.0][random.below(5)];
    let bits = [None, Some(2), Some(5), Some(8)][random.below(4)];
    // Modes that need a code for zero only where there is one.
    let index = match random.below(5) {
        0 => IndexChoice::Auto,
        4 if values.zero_symbol().is_some() => IndexChoice::Classes,
        1 if values.zero_symbol().is_some() => IndexChoice::Dense,
        2 if values.zero_symbol().is_some() => IndexChoice::Gaps { bits },
        _ => IndexChoice::Mask,
    };
    layer(
        &format!("layer {number}"),
        shape,
        order,
        values,
        index,
        zeros,
        random,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn random_containers(seed in any::<u64>()) {
        let mut random = Random(seed);
        let mut input = network("random", seed);
        // Keep the graph; layers 0..=8 are referred to, and two of them by Linear.
        for number in 0..input.layers.len() {
            let mut layer = random_layer(number, &mut random);
            while matches!(number, 4 | 8) && (layer.shape.kernel != [1, 1] || layer.shape.groups != 1) {
                layer = random_layer(number, &mut random);
            }
            input.layers[number] = layer;
        }
        for (constant, layer) in [(0, 0), (1, 8)] {
            let channels = input.layers[layer].shape.out_channels;
            input.constants[constant].dims = vec![channels];
            input.constants[constant].values = vec![0.5; channels as usize];
        }
        let mut options = options();
        options.tile_weights = [1, 100, 1000, 65_536][random.below(4)];
        options.share_tables = random.below(2) == 0;
        let inputs = [input];
        compare(&write(inputs.to_vec(), &options), &inputs);
    }

    /// Hostile bytes, with all checksums made right again: never a panic; both readers agree on accepting.
    #[test]
    fn hostile_records(seed in any::<u64>()) {
        let mut random = Random(seed);
        let mut input = network("n", 5);
        if random.below(2) == 0 {
            for layer in &mut input.layers {
                if layer.values.zero_symbol().is_some() {
                    layer.index = IndexChoice::Classes;
                }
            }
        }
        let mut bytes = write(vec![input], &options());
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = match random.below(3) {
                0 => random.next() as u8,
                1 => bytes[at].wrapping_add(1),
                _ => bytes[at] ^ 1 << random.below(8),
            };
        }
        repair(&mut bytes);
        let fast = open(&bytes).and_then(|container| {
            let _ = read_lazily(&container);
            container.check(&mut |_, _| {}).map(|_| ())
        });
        let slow = slow::read(&bytes);
        match (&fast, &slow) {
            (Err(error), Ok(_)) => prop_assert!(error.kind() == dcz_format::ErrorKind::LimitExceeded, "{error:?}"),
            (Ok(_), Err(rule)) => prop_assert!(false, "only the slow reader refuses: {rule}"),
            _ => {}
        }
    }
}

/// Makes the checksums of header, directory and sections right.
fn repair(bytes: &mut [u8]) {
    let number = |bytes: &[u8], at: usize, len: usize| {
        bytes[at..at + len]
            .iter()
            .rev()
            .fold(0usize, |n, byte| n << 8 | usize::from(*byte))
    };
    let count = number(bytes, 12, 4).min((bytes.len() - 32) / 32);
    for entry in (32..32 + 32 * count).step_by(32) {
        let (offset, len) = (number(bytes, entry + 8, 8), number(bytes, entry + 16, 8));
        if let Some(section) = bytes.get(offset..offset.saturating_add(len)) {
            let crc = crc32c::crc32c(section);
            bytes[entry + 28..entry + 32].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), &bytes[32..32 + 32 * count]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
}
