//! Choices of the writer, its record of what it did, and how files are replaced.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod common;

use common::*;
use dcz_format::graph::*;
use dcz_format::layer::*;
use dcz_format::writer::*;
use dcz_format::{Container, ErrorKind, Limits, MappedFile, PositionedFile, Source};
use std::fs;
use std::sync::Arc;

const LARGE: LayerShape = LayerShape {
    out_channels: 64,
    in_per_group: 64,
    kernel: [3, 3],
    groups: 1,
};

/// Codes of a grid, normally distributed with `spread`, `zeros` of them dropped.
fn grid_layer(
    shape: LayerShape,
    zeros: f32,
    spread: f32,
    index: IndexChoice,
    seed: u64,
) -> LayerInput {
    let mut random = Random(seed);
    let mut input = layer(
        "layer",
        shape,
        KOrder::ChannelMajor,
        Values::Grid {
            steps: Steps::Layer(0.01),
        },
        index,
        0.0,
        &mut random,
    );
    let code = |random: &mut Random| match (random.bell() * spread).round() as i8 as u8 {
        _ if random.unit() < zeros => 0,
        code => code,
    };
    let codes = (0..shape.weights()).map(|_| code(&mut random)).collect();
    input.weights = Weights::Codes {
        codes,
        absent: Vec::new(),
    };
    input
}

fn conv(layer: LayerInput) -> NetworkInput {
    let mut input = small("net", layer);
    input.network.nodes[0].op = Op::Conv(Conv {
        layer: LayerId(0),
        bias: None,
        strides: [1, 1],
        dilations: [1, 1],
        pads: Pads::SameUpper,
    });
    input
}

fn coded(layer: LayerInput) -> (usize, Layer) {
    let encoded = encode(vec![conv(layer)], &WriteOptions::default(), &mut |_, _| {}).unwrap();
    let layer = encoded.networks()[0].layers[0].clone();
    (encoded.to_bytes().unwrap().len(), layer)
}

#[test]
fn auto_is_never_larger_than_gaps() {
    for (seed, zeros) in [0.0, 0.2, 0.5, 0.6, 0.75, 0.9, 0.97, 0.995, 1.0]
        .into_iter()
        .enumerate()
    {
        for spread in [1.0, 4.0, 30.0, 120.0] {
            for shape in [LARGE, shape(8, 3, [3, 3], 1), shape(16, 32, [1, 1], 1)] {
                let size = |index| coded(grid_layer(shape, zeros, spread, index, seed as u64)).0;
                let (auto, gaps) = (
                    size(IndexChoice::Auto),
                    size(IndexChoice::Gaps { bits: None }),
                );
                assert!(auto <= gaps, "{zeros} {spread} {shape:?}: {auto} > {gaps}");
            }
        }
    }
}

/// At half zeros a raw mask is as small as anything and the fastest; elsewhere auto stays within a percent of the best.
#[test]
fn auto_follows_sparsity() {
    let half = coded(grid_layer(LARGE, 0.5, 60.0, IndexChoice::Auto, 9))
        .1
        .index;
    assert!(matches!(half, Index::Mask { mask: None, .. }), "{half:?}");
    for zeros in [0.0, 0.3, 0.8, 0.95] {
        let size = |index| coded(grid_layer(LARGE, zeros, 60.0, index, 9)).0;
        let auto = size(IndexChoice::Auto);
        for index in [
            IndexChoice::Dense,
            IndexChoice::Mask,
            IndexChoice::Gaps { bits: None },
        ] {
            assert!(
                auto as f64 <= size(index) as f64 * 1.011,
                "{zeros} {index:?}"
            );
        }
    }
}

/// Coded size is close to the order-0 entropy that the record allows.
#[test]
fn records_add_up() {
    for index in [
        IndexChoice::Auto,
        IndexChoice::Dense,
        IndexChoice::Mask,
        IndexChoice::Gaps { bits: Some(5) },
    ] {
        let (bytes, layer) = coded(grid_layer(LARGE, 0.6, 30.0, index, 4));
        let record = &layer.record;
        let tiles: u64 = layer.tiles.iter().map(|tile| u64::from(tile.len)).sum();
        let payload = (record.value_payload_bits + record.index_payload_bits).div_ceil(8);
        // Per tile: 4 or 8 stream lengths and some padding.
        assert!(
            payload <= tiles && tiles <= payload + 24 * layer.tiles.len() as u64,
            "{payload} {tiles}"
        );
        let tables = (record.value_table_bits + record.index_table_bits) / 8;
        assert!(tables > 0 && (bytes as u64) > payload + tables);
        assert_eq!(record.index_bits, 5);
        let gaps = coded(grid_layer(
            LARGE,
            0.6,
            30.0,
            IndexChoice::Gaps { bits: Some(5) },
            4,
        ))
        .1;
        assert_eq!(
            record.fillers, gaps.record.fillers,
            "fillers of the seed's width are told for every mode"
        );
        let present: u64 = gaps.tiles.iter().map(|tile| u64::from(tile.present)).sum();
        assert_eq!(
            present,
            layer.shape.weights() - record.zeros + gaps.record.fillers
        );
    }
}

#[test]
fn sharing_tables_pays() {
    let network = || {
        let mut input = conv(grid_layer(
            shape(16, 16, [3, 3], 1),
            0.5,
            20.0,
            IndexChoice::Mask,
            0,
        ));
        for seed in 1..12 {
            let mut layer =
                grid_layer(shape(16, 16, [3, 3], 1), 0.5, 20.0, IndexChoice::Mask, seed);
            layer.name = format!("layer {seed}");
            input.layers.push(layer);
        }
        vec![input]
    };
    let write = |share| {
        let mut options = WriteOptions::default();
        options.share_tables = share;
        encode(network(), &options, &mut |_, _| {}).unwrap()
    };
    let (shared, own) = (write(true), write(false));
    assert!(shared.tables().len() <= 3, "{}", shared.tables().len());
    assert!(own.tables().len() >= 12);
    assert!(shared.to_bytes().unwrap().len() < own.to_bytes().unwrap().len());
    // Charged once.
    let layers = &shared.networks()[0].layers;
    let payers = layers
        .iter()
        .filter(|layer| layer.record.value_table_bits > 0)
        .count();
    assert!(payers <= shared.tables().len());
    for (a, b) in layers.iter().zip(&own.networks()[0].layers) {
        assert_eq!(a.q_sums, b.q_sums);
    }
}

#[test]
fn tiles_are_bounded_and_cover() {
    let fc = shape(32, 20_000, [1, 1], 1);
    let layer = coded(grid_layer(fc, 0.9, 10.0, IndexChoice::Auto, 5)).1;
    assert!(
        layer
            .tiles
            .iter()
            .all(|tile| tile.panels == 1 && tile.weights() <= MAX_TILE_WEIGHTS)
    );
    assert_eq!(layer.tiles.len(), 12);
}

#[test]
fn what_cannot_be_written() {
    let bad = |change: &dyn Fn(&mut NetworkInput)| {
        let mut input = small(
            "net",
            grid_layer(shape(8, 16, [1, 1], 1), 0.5, 10.0, IndexChoice::Auto, 1),
        );
        change(&mut input);
        encode(vec![input], &WriteOptions::default(), &mut |_, _| {})
            .unwrap_err()
            .kind()
    };
    assert_eq!(
        bad(&|n| n.layers[0].values = Values::Raw32),
        ErrorKind::Input
    );
    assert_eq!(
        bad(&|n| n.layers[0].shape.in_per_group = 17),
        ErrorKind::Input
    );
    assert_eq!(
        bad(&|n| n.layers[0].shape.groups = 3),
        ErrorKind::LayerShape
    );
    assert_eq!(
        bad(&|n| n.layers[0].index = IndexChoice::Gaps { bits: Some(9) }),
        ErrorKind::Input
    );
    assert_eq!(bad(&|n| n.network.outputs.clear()), ErrorKind::NetworkPorts);
    assert_eq!(
        bad(&|n| n.network.nodes[0].inputs.clear()),
        ErrorKind::Arity
    );
    let constant = ConstantInput {
        name: "c".into(),
        dims: vec![],
        precision: Precision::F16,
        values: vec![1e6],
    };
    assert_eq!(
        bad(&|n| n.constants.push(constant.clone())),
        ErrorKind::Input
    );
    // A full codebook without zero cannot say zero densely.
    let full = |index| {
        let mut random = Random(3);
        let layer = layer(
            "l",
            shape(8, 64, [1, 1], 1),
            KOrder::ChannelMajor,
            codebook(256, None),
            index,
            0.5,
            &mut random,
        );
        encode(
            vec![small("net", layer)],
            &WriteOptions::default(),
            &mut |_, _| {},
        )
        .map(|_| ())
    };
    assert_eq!(
        full(IndexChoice::Dense).unwrap_err().kind(),
        ErrorKind::Input
    );
    assert_eq!(
        full(IndexChoice::Gaps { bits: None }).unwrap_err().kind(),
        ErrorKind::Input
    );
    full(IndexChoice::Auto).unwrap();
}

#[test]
fn self_test_is_checked_when_set() {
    let input = small(
        "net",
        grid_layer(shape(8, 16, [1, 1], 1), 0.5, 10.0, IndexChoice::Auto, 1),
    );
    let mut encoded = encode(vec![input], &WriteOptions::default(), &mut |_, _| {}).unwrap();
    let expected = Expected {
        len: 8,
        max_abs: 1.0,
        norm: 1.0,
        samples: vec![0.5; 8],
    };
    let test = |expected: Vec<Expected>| SelfTest {
        generator: Generator::SplitMix64,
        seed: 1,
        range: [0.0, 1.0],
        expected,
    };
    assert_eq!(
        encoded.set_self_test(0, test(vec![])).unwrap_err().kind(),
        ErrorKind::SelfTest
    );
    assert_eq!(
        encoded.set_self_test(1, test(vec![])).unwrap_err().kind(),
        ErrorKind::NoSuchItem
    );
    encoded
        .set_self_test(0, test(vec![expected.clone()]))
        .unwrap();
    let container = open(&encoded.to_bytes().unwrap()).unwrap();
    assert_eq!(
        container.networks()[0].self_test.as_ref().unwrap().expected,
        [expected]
    );
}

#[test]
fn progress_reaches_its_total() {
    let mut last = (0, 0);
    encode(vec![network("n", 1)], &options(), &mut |done, total| {
        last = (done, total)
    })
    .unwrap();
    assert_eq!(last, (24, 24));
}

/// All sources say the same.
#[test]
fn sources() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.dcz");
    let encoded = encode(vec![network("n", 1)], &options(), &mut |_, _| {}).unwrap();
    let len = encoded.write_atomic(&path).unwrap();
    assert_eq!(len, fs::metadata(&path).unwrap().len());
    let in_memory = read_lazily(&open(&fs::read(&path).unwrap()).unwrap()).unwrap();
    let sources: [Arc<dyn Source>; 2] = [
        Arc::new(MappedFile::open(&path).unwrap()),
        Arc::new(PositionedFile::open(&path).unwrap()),
    ];
    for source in sources {
        assert_eq!(source.len(), len);
        let container = Container::open(source.clone(), &Limits::default()).unwrap();
        assert!(read_lazily(&container).unwrap() == in_memory);
        // Dropped pages come back.
        source.release(0, len);
        source.release(100, u64::MAX);
        assert!(read_lazily(&container).unwrap() == in_memory);
        container.check(&mut |_, _| {}).unwrap();
    }
    let empty = directory.path().join("empty");
    fs::write(&empty, b"").unwrap();
    let open = |source: Arc<dyn Source>| {
        Container::open(source, &Limits::default())
            .unwrap_err()
            .kind()
    };
    assert_eq!(
        open(Arc::new(MappedFile::open(&empty).unwrap())),
        ErrorKind::Truncated
    );
    assert_eq!(
        open(Arc::new(PositionedFile::open(&empty).unwrap())),
        ErrorKind::Truncated
    );
}

#[test]
fn files_are_replaced_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let count = || fs::read_dir(directory.path()).unwrap().count();
    let encoded = encode(vec![network("n", 1)], &options(), &mut |_, _| {}).unwrap();
    let path = directory.path().join("model.dcz");
    fs::write(&path, b"old").unwrap();
    encoded.write_atomic(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), encoded.to_bytes().unwrap());
    assert_eq!(count(), 1);
    // Only regular files.
    assert_eq!(
        encoded.write_atomic(directory.path()).unwrap_err().kind(),
        ErrorKind::NotRegularFile
    );
    let missing = directory.path().join("missing/model.dcz");
    assert_eq!(
        encoded.write_atomic(&missing).unwrap_err().kind(),
        ErrorKind::Io
    );
    // The rename fails: nothing is left behind.
    let target = directory.path().join("folder");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("file"), b"").unwrap();
    assert!(encoded.write_atomic(&target).is_err());
    assert_eq!(count(), 2);
    #[cfg(unix)]
    {
        let link = directory.path().join("link.dcz");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(
            encoded.write_atomic(&link).unwrap_err().kind(),
            ErrorKind::NotRegularFile
        );
        assert_eq!(
            encoded
                .write_atomic(std::path::Path::new("/dev/null"))
                .unwrap_err()
                .kind(),
            ErrorKind::NotRegularFile
        );
    }
}

#[test]
fn limits_are_respected() {
    let bytes = sample();
    let kind = |change: &dyn Fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        let source = Arc::new(dcz_format::MemoryBytes::new(&bytes[..]));
        Container::open(source, &limits)
            .map(|_| ())
            .map_err(|e| e.kind())
    };
    let changes: [&dyn Fn(&mut Limits); 13] = [
        &|l| l.max_file = 1000,
        &|l| l.max_sections = 3,
        &|l| l.max_records = 100,
        &|l| l.max_networks = 1,
        &|l| l.max_symbols = 0,
        &|l| l.max_tensors = 3,
        &|l| l.max_nodes = 3,
        &|l| l.max_layers = 3,
        &|l| l.max_tiles = 3,
        &|l| l.max_weights = 100,
        &|l| l.max_constants = 1,
        &|l| l.max_tables = 2,
        &|l| l.max_text = 3,
    ];
    for (index, change) in changes.iter().enumerate() {
        assert_eq!(kind(change), Err(ErrorKind::LimitExceeded), "{index}");
    }
    assert_eq!(
        kind(&|l| l.max_constant_values = 2),
        Err(ErrorKind::LimitExceeded)
    );
    assert_eq!(kind(&|_| {}), Ok(()));
}

#[test]
fn networks_of_several_files_in_one() {
    let one = open(&write(vec![network("one", 1)], &options())).unwrap();
    let two = open(&write(
        vec![network("two", 2), network("three", 3)],
        &options(),
    ))
    .unwrap();
    let mut joined = Encoded::from_container(&one).unwrap();
    joined
        .append(Encoded::from_container(&two).unwrap())
        .unwrap();
    assert!(
        joined
            .append(Encoded::from_container(&one).unwrap())
            .is_err()
    );
    assert!(joined.rename(0, "two").is_err());
    joined.rename(2, "renamed").unwrap();
    let mut bad = pipeline();
    bad.embed.network = 3;
    assert!(joined.set_pipeline(bad).is_err());
    let mut weighted = pipeline();
    for bad in [
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [1.0, 1.0, -0.5, 1.0, 1.0],
        [f32::NAN; 5],
    ] {
        weighted.align.weights = bad;
        assert!(joined.set_pipeline(weighted.clone()).is_err());
    }
    weighted.align.weights = [1.0, 1.0, 0.5, 0.25, 0.0];
    joined.set_pipeline(weighted.clone()).unwrap();
    let bytes = joined.to_bytes().unwrap();
    assert_eq!(bytes[10], 4, "reader version of weights");
    assert_eq!(open(&bytes).unwrap().pipeline(), Some(&weighted));
    joined.set_pipeline(pipeline()).unwrap();
    assert_eq!(joined.to_bytes().unwrap()[10], 2);
    let file = open(&joined.to_bytes().unwrap()).unwrap();
    file.check(&mut |_, _| {}).unwrap();
    assert_eq!(file.pipeline(), Some(&pipeline()));
    assert_eq!(file.texts().unwrap().len(), 1);
    let names: Vec<_> = file.networks().iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["one", "two", "renamed"]);
    for (net, (from, old)) in [(&one, 0), (&two, 0), (&two, 1)].into_iter().enumerate() {
        for id in 0..file.networks()[net].layers.len() {
            let id = LayerId(id as u32);
            let weights = from.dense_weights(old, id).unwrap();
            assert_eq!(file.dense_weights(net, id).unwrap(), weights);
        }
    }
    // And once more through the file.
    let again = Encoded::from_container(&file).unwrap();
    assert_eq!(again.to_bytes().unwrap(), joined.to_bytes().unwrap());
}
