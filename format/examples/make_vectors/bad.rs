//! One file per rule, otherwise correct in everything.

use super::assemble::*;
use dcz_format::codec::{TileEncoding, encode_tile};

type Files = Vec<(&'static str, Vec<u8>)>;

pub fn all() -> Files {
    [files(), records(), layers(), tiles()].concat()
}

fn good() -> File {
    File::of(Network::new(Layer::mask()))
}

/// The file, changed before the header's checksum is made.
fn file(change: impl FnOnce(&mut File)) -> Vec<u8> {
    let mut file = good();
    change(&mut file);
    file.bytes()
}

/// The bytes, changed afterwards.
fn bytes(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = good().bytes();
    change(&mut bytes);
    bytes
}

fn network(layer: Layer, change: impl FnOnce(&mut Network)) -> Vec<u8> {
    let mut network = Network::new(layer);
    change(&mut network);
    File::of(network).bytes()
}

fn record(change: impl FnOnce(&mut Network)) -> Vec<u8> {
    network(Layer::mask(), change)
}

fn layer(mut layer: Layer, change: impl FnOnce(&mut Layer)) -> Vec<u8> {
    change(&mut layer);
    File::of(Network::new(layer)).bytes()
}

fn tile(mut layer: Layer, change: impl FnOnce(&mut Tile)) -> Vec<u8> {
    change(&mut layer.tiles[0]);
    File::of(Network::new(layer)).bytes()
}

/// Changes the index of a layer in classes, then adds to it.
fn classes(change: impl FnOnce(&mut Vec<u8>), more: &[u8]) -> Vec<u8> {
    let mut layer = Layer::classes();
    change(&mut layer.index);
    layer.index.extend(more);
    in_classes(layer)
}

/// Replaces the section.
fn graph(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    file(|file| {
        let mut bytes = file.entries[1].bytes.clone();
        change(&mut bytes);
        file.entries[1] = Entry::new(b"GRPH", 1, Some(0), bytes);
    })
}

/// Replaces the list of code tables.
fn tables(layer: Layer, tables: &[Vec<u8>]) -> Vec<u8> {
    let mut file = File::of(Network::new(layer));
    file.entries[0] = Entry::new(b"CODE", 1, None, list(tables));
    file.bytes()
}

/// A file with a pipeline.
fn pipeline(section: &[u8]) -> Vec<u8> {
    file(|file| {
        (file.version, file.reader) = (2, 2);
        let entry = Entry::new(b"PIPE", 1, None, section.to_vec());
        file.entries.push(entry);
    })
}

fn files() -> Files {
    vec![
        ("truncated", bytes(|b| b.truncate(b.len() - 1))),
        ("bad_magic", bytes(|b| b[1] = b'd')),
        ("version_too_new", file(|f| (f.version, f.reader) = (5, 5))),
        ("bad_version", file(|f| (f.version, f.reader) = (0, 1))),
        ("file_length", bytes(|b| b.extend([0; 64]))),
        ("header_checksum", bytes(|b| b[28] ^= 1)),
        ("reserved_bits", file(|f| f.entries[0].flags = 3)),
        (
            "unknown_critical",
            file(|f| f.entries.push(Entry::new(b"NEW!", 1, None, vec![1]))),
        ),
        ("unknown_stage", pipeline(&[4, 9])),
        ("pipeline", pipeline(&[4, 1])),
        ("section_tiling", file(|f| f.entries[3].shift = 64)),
        ("section_flags", file(|f| f.entries[2].flags = 0)),
        ("section_owner", file(|f| f.entries[3].network = u32::MAX)),
        ("section_order", file(|f| f.entries.swap(2, 3))),
        ("section_missing", file(|f| drop(f.entries.remove(3)))),
        ("section_checksum", file(|f| f.entries[0].crc ^= 1)),
        ("padding", bytes(|b| *b.last_mut().expect("not empty") = 1)),
    ]
}

fn records() -> Files {
    let quant = [text("y"), vec![0, 1, 1, 0, 1], floats(&[-1.0]), vec![0]].concat();
    let symbol = [text("N"), vec![4, 2, 1, 2]].concat();
    let preprocess = |width: u8| {
        [
            vec![1, width, 8, 0],
            floats(&[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
            vec![0, 0],
        ]
        .concat()
    };
    let self_test = |range: [f32; 2], outputs: &[Vec<u8>]| {
        [
            vec![1, 0],
            7u64.to_le_bytes().to_vec(),
            floats(&range),
            list(outputs),
        ]
        .concat()
    };
    let expectation = |samples: usize| {
        [
            uint(100),
            floats(&[1.0, 1.0]),
            uint(samples as u64),
            floats(&vec![0.5; samples]),
        ]
        .concat()
    };
    let extra = |n: &mut Network, op: &[u8], inputs: &[u8]| {
        n.tensors.push(tensor("z", &[]));
        n.nodes.push(node(op, inputs, 2));
    };
    vec![
        ("record_truncated", graph(|b| b.truncate(b.len() - 1))),
        ("record_trailing", graph(|b| b.push(0))),
        (
            "bad_integer",
            record(|n| n.name = [vec![0x83, 0], b"net".to_vec()].concat()),
        ),
        ("bad_tag", record(|n| n.outputs = vec![vec![1, 3]])),
        ("bad_text", record(|n| n.name = vec![2, 0xc3, 0x28])),
        ("empty_name", record(|n| n.name = vec![0])),
        (
            "duplicate_name",
            record(|n| n.tensors[1] = tensor("x", &[])),
        ),
        (
            "id_range",
            record(|n| n.nodes[0] = node(&[1, 1, 0], &[0], 1)),
        ),
        (
            "node_order",
            record(|n| n.nodes[0] = node(&LINEAR, &[1], 1)),
        ),
        (
            "tensor_written_twice",
            record(|n| n.nodes.push(node(&RELU, &[0], 1))),
        ),
        (
            "tensor_unwritten",
            record(|n| n.tensors.push(tensor("z", &[]))),
        ),
        (
            "tensor_dims",
            record(|n| n.tensors[0] = tensor("x", &[1, 0])),
        ),
        ("symbol_range", record(|n| n.symbols = vec![symbol])),
        ("arity", record(|n| n.nodes[0] = node(&LINEAR, &[0, 0], 1))),
        ("network_ports", record(|n| n.outputs.clear())),
        ("attribute", record(|n| extra(n, &[9, 6], &[0, 1]))),
        ("not_finite", record(|n| n.layers[0].cosine = f32::NAN)),
        ("activation_quant", record(|n| n.tensors[1] = quant)),
        (
            "constant_shape",
            record(|n| {
                let values = [0.5; 3];
                n.constants = vec![constant("bias", &[3], &values)];
                n.cnst = floats(&values);
                n.nodes[0] = node(&[1, 0, 1], &[0], 1);
            }),
        ),
        ("preprocess", record(|n| n.preprocess = preprocess(0))),
        (
            "self_test",
            record(|n| n.self_test = self_test([1.0, -1.0], &[expectation(1)])),
        ),
        (
            "self_test_size",
            record(|n| {
                for output in 2..5 {
                    n.tensors.push(tensor(&format!("t{output}"), &[]));
                    n.nodes.push(node(&RELU, &[0], output));
                    n.outputs.push(vec![output, 0]);
                }
                n.self_test = self_test([-1.0, 1.0], &vec![expectation(64); 4]);
            }),
        ),
        (
            "constants_tiling",
            record(|n| {
                n.constants = vec![constant("c", &[2], &[1.0, 2.0])];
                n.cnst = floats(&[1.0, 2.0, 0.0]);
            }),
        ),
        (
            "constant_checksum",
            record(|n| {
                n.constants = vec![constant("c", &[2], &[1.0, 2.0])];
                n.cnst = floats(&[1.0, 2.5]);
            }),
        ),
    ]
}

fn layers() -> Files {
    let minmax = |bits: u8, zero: u8| [vec![3], floats(&[0.0, 0.5]), vec![bits, zero]].concat();
    let codebook = |count: u8, zero: u8| {
        [
            vec![2, count],
            floats(&[0.25, 0.75][..usize::from(count).min(2)]),
            vec![zero],
        ]
        .concat()
    };
    let no_grid = |values: Vec<u8>| Layer {
        values,
        ..Layer::codebook()
    };
    let stored_tables = [
        stored(11, &values_table()),
        stored(11, &gaps_table()),
        stored(11, &filler_table()),
    ];
    let with = |at: usize, table: Vec<u8>| {
        let mut tables = stored_tables.to_vec();
        tables[at] = table;
        tables
    };
    // Form 0, first symbol 1, two symbols of length 2: the sum is 1/2.
    let incomplete = vec![11, 0, 1, 1, 0x22];
    let eight = lengths(&[
        (0, 3),
        (1, 3),
        (2, 3),
        (3, 3),
        (4, 3),
        (5, 3),
        (6, 3),
        (7, 3),
    ]);
    vec![
        ("layer_shape", layer(Layer::mask(), |l| l.groups = 3)),
        (
            "layer_use",
            layer(Layer::raw32(), |l| (l.in_per_group, l.kernel) = (2, [1, 2])),
        ),
        ("codebook", layer(no_grid(codebook(0, 0)), |_| {})),
        ("zero_code", layer(no_grid(codebook(2, 1)), |_| {})),
        ("value_bits", layer(no_grid(minmax(9, 0)), |_| {})),
        (
            "steps",
            layer(Layer::mask(), |l| {
                l.values = [vec![4, 0], floats(&[0.0])].concat()
            }),
        ),
        ("index_mode", layer(Layer::mask(), |l| l.index = vec![0])),
        ("gap_bits", layer(Layer::gaps(), |l| l.index[1] = 9)),
        ("code_table", tables(Layer::mask(), &with(0, incomplete))),
        (
            "table_width",
            tables(Layer::mask(), &with(0, stored(10, &values_table()))),
        ),
        (
            "gap_table",
            tables(Layer::gaps(), &with(1, stored(11, &eight))),
        ),
        ("classes", classes(|index| index.truncate(1), &[0])),
        // The byte that holds the map's only bit has another one.
        (
            "class_map",
            classes(|index| index.truncate(index.len() - 1), &[2]),
        ),
        // At most four values to a symbol.
        ("value_group", classes(|index| index[4] = 9, &[])),
        ("quant_summary", layer(Layer::mask(), |l| l.sums.clear())),
    ]
}

fn tiles() -> Files {
    // One panel of 4 k in two tiles that split an input channel of two taps.
    let split = network(Layer::raw32(), |n| {
        let layer = &mut n.layers[0];
        (layer.in_per_group, layer.kernel) = (2, [1, 2]);
        let whole = layer.tiles.remove(0);
        let (first, second) = whole.bytes.split_at(32);
        layer.tiles = vec![
            Tile {
                k_len: 1,
                present: 8,
                bytes: first.to_vec(),
                ..whole.clone()
            },
            Tile {
                k_len: 3,
                present: 24,
                bytes: second.to_vec(),
                ..whole.clone()
            },
        ];
        n.tensors[0] = tensor("x", &[1, 2, 1, 2]);
        n.nodes[0] = node(&CONV, &[0], 1);
    });
    let empty = Tile {
        panels: 0,
        k_len: 4,
        present: 0,
        max_abs_q: 0,
        bytes: Vec::new(),
        damage: false,
    };
    // A mask tile coded with other tables or patterns than usual.
    let coded = |codes: [u8; 32], mask: [u8; 4], symbols: &[(u8, u8)]| {
        let table = lengths(symbols);
        let mut layer = Layer::mask();
        let tile = &mut layer.tiles[0];
        tile.bytes.clear();
        let encoding = TileEncoding::Mask {
            mask: None,
            values: &table,
        };
        let stats = encode_tile(&encoding, 1, 4, &codes, &mask, 0, &mut tile.bytes)
            .expect("the table has these codes");
        tile.present = u64::from(stats.present);
        let stored = [
            stored(11, &table),
            stored(11, &gaps_table()),
            stored(11, &filler_table()),
        ];
        (layer, stored)
    };
    let (codes, mask) = pattern();
    let mut present_zero = codes;
    present_zero[0] = 0;
    let (zero_layer, zero_tables) = coded(present_zero, mask, &[(0, 1), (1, 1)]);
    let mut no_code = codes;
    no_code[0] = 128;
    let (range_layer, range_tables) = coded(no_code, mask, &[(1, 1), (128, 1)]);
    // One symbol of length 1: its code is `0`.
    let (mut one_layer, one_tables) = coded(codes, mask, &[(1, 1)]);
    let last = one_layer.tiles[0].bytes.len() - 1;
    one_layer.tiles[0].bytes[last] |= 1;
    // Lane 7 is padding when there are 7 output channels.
    let (mut padding_codes, mut padding_mask) = (codes, mask);
    padding_codes[7] = 1;
    padding_mask[0] |= 128;
    let (mut padding_layer, padding_tables) =
        coded(padding_codes, padding_mask, &[(1, 1), (255, 1)]);
    padding_layer.out_channels = 7;
    padding_layer.sums.truncate(7);
    padding_layer.zeros = 28 - 8;
    // In the mask tile: 4 mask bytes, 4 lengths of 2 bytes, then 4 sub-streams of one byte and two symbols.
    const LENGTHS: usize = 4;
    const STREAMS: usize = LENGTHS + 8;
    // Every gap is 3, coded `0`; every value is 1, coded `10`: 16 of them lead past 32.
    let mut overrun = Layer::gaps();
    overrun.tiles[0].present = 16;
    overrun.tiles[0].bytes = [
        &[1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0][..],
        &[1, 0, 1, 0, 1, 0, 1, 0, 0x55, 0x55, 0x55, 0x55],
    ]
    .concat();
    let overrun_tables = [
        stored(11, &values_table()),
        stored(11, &lengths(&[(3, 1)])),
        stored(11, &filler_table()),
    ];
    vec![
        ("gap_overrun", tables(overrun, &overrun_tables)),
        ("tile_split", split),
        (
            "tile_size",
            layer(Layer::mask(), |l| l.tiles.insert(0, empty)),
        ),
        ("tile_coverage", tile(Layer::mask(), |t| t.k_len = 3)),
        (
            "tile_length",
            tile(Layer::raw32(), |t| t.bytes.extend([0; 4])),
        ),
        ("tile_present", tile(Layer::dense(), |t| t.present = 31)),
        ("weights_tiling", record(|n| n.wght_tail = vec![0])),
        ("tile_checksum", tile(Layer::mask(), |t| t.damage = true)),
        (
            "stream_truncated",
            tile(Layer::mask(), |t| t.bytes.truncate(t.bytes.len() - 1)),
        ),
        ("stream_trailing", tile(Layer::mask(), |t| t.bytes.push(0))),
        (
            "stream_overrun",
            tile(Layer::mask(), |t| {
                t.bytes[LENGTHS] = 0;
                t.bytes.remove(STREAMS);
            }),
        ),
        (
            "stream_unused",
            tile(Layer::mask(), |t| {
                t.bytes[LENGTHS] = 2;
                t.bytes.insert(STREAMS + 1, 0);
            }),
        ),
        (
            "stream_padding",
            tile(Layer::mask(), |t| t.bytes[STREAMS] |= 128),
        ),
        ("stream_code", tables(one_layer, &one_tables)),
        ("mask_count", tile(Layer::mask(), |t| t.present = 9)),
        ("code_range", tables(range_layer, &range_tables)),
        ("present_zero", tables(zero_layer, &zero_tables)),
        ("padding_lane", tables(padding_layer, &padding_tables)),
        (
            "weight_not_finite",
            tile(Layer::raw32(), |t| {
                t.bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes())
            }),
        ),
        (
            "max_abs_q",
            layer(Layer::mask(), |l| {
                (l.max_abs_q, l.tiles[0].max_abs_q) = (2, 2)
            }),
        ),
        ("q_sums", layer(Layer::mask(), |l| l.sums[3] += 2)),
        ("zero_count", layer(Layer::mask(), |l| l.zeros += 1)),
    ]
}
