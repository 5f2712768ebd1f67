//! Files put together by hand, field by field, so that every field can be wrong. Independent of the crate's writer except
//! for the coding of tiles.

use dcz_format::codec::{CodeLengths, TileEncoding, encode_tile};

/// Base 128.
pub fn uint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

pub fn text(text: &str) -> Vec<u8> {
    [uint(text.len() as u64), text.as_bytes().to_vec()].concat()
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Count and items.
pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [uint(items.len() as u64), items.concat()].concat()
}

/// A code table whose listed symbols have the listed lengths.
pub fn lengths(symbols: &[(u8, u8)]) -> CodeLengths {
    let mut lengths = CodeLengths([0; 256]);
    for (symbol, length) in symbols {
        lengths.0[usize::from(*symbol)] = *length;
    }
    lengths
}

pub fn stored(width: u8, lengths: &CodeLengths) -> Vec<u8> {
    let mut bytes = vec![width];
    lengths.serialize(&mut bytes);
    bytes
}

/// Code table 0: values 1 and -1.
pub fn values_table() -> CodeLengths {
    lengths(&[(1, 1), (255, 1)])
}

/// Code table 1: gaps 0 to 3.
pub fn gaps_table() -> CodeLengths {
    lengths(&[(0, 1), (1, 2), (2, 3), (3, 3)])
}

/// A tile record and its bytes.
#[derive(Clone)]
pub struct Tile {
    pub panels: u64,
    pub k_len: u64,
    pub present: u64,
    pub max_abs_q: u8,
    pub bytes: Vec<u8>,
    /// Flips this bit of the bytes after the checksum was made.
    pub damage: bool,
}

/// A layer: 8 outputs, 4 inputs, 1x1, so one panel of 32 weights.
#[derive(Clone)]
pub struct Layer {
    pub name: Vec<u8>,
    pub out_channels: u64,
    pub in_per_group: u64,
    pub kernel: [u64; 2],
    pub groups: u64,
    pub order: u8,
    pub values: Vec<u8>,
    pub index: Vec<u8>,
    pub max_abs_q: u8,
    pub symmetric: u8,
    /// Zigzag.
    pub sums: Vec<u64>,
    pub tiles: Vec<Tile>,
    pub zeros: u64,
    pub cosine: f32,
}

/// Codes of the coded layers: at k, lanes 0 and 1 + k are 1, the others 0.
pub fn pattern() -> ([u8; 32], [u8; 4]) {
    let (mut codes, mut mask) = ([0; 32], [0; 4]);
    for k in 0..4 {
        mask[k] = 1 | 2 << k;
        codes[8 * k] = 1;
        codes[8 * k + 1 + k] = 1;
    }
    (codes, mask)
}

impl Layer {
    pub fn raw32() -> Layer {
        let values: Vec<f32> = (0..32).map(|i| i as f32 - 7.5).collect();
        Layer {
            name: text("layer"),
            out_channels: 8,
            in_per_group: 4,
            kernel: [1, 1],
            groups: 1,
            order: 0,
            values: vec![0],
            index: vec![0],
            max_abs_q: 0,
            symmetric: 0,
            sums: Vec::new(),
            tiles: vec![Tile {
                panels: 1,
                k_len: 4,
                present: 32,
                max_abs_q: 0,
                bytes: floats(&values),
                damage: false,
            }],
            zeros: 0,
            cosine: 1.0,
        }
    }
    fn coded(
        index: Vec<u8>,
        encoding: &TileEncoding<'_>,
        codes: &[u8; 32],
        mask: &[u8; 4],
    ) -> Layer {
        let mut bytes = Vec::new();
        let stats = encode_tile(encoding, 1, 4, codes, mask, 0, &mut bytes)
            .expect("the tables have these codes");
        let mut sums = [0i64; 8];
        for (at, code) in codes.iter().enumerate() {
            sums[at % 8] += i64::from(*code as i8);
        }
        Layer {
            values: [vec![4, 0], floats(&[0.5])].concat(),
            index,
            max_abs_q: 1,
            symmetric: 1,
            sums: sums
                .iter()
                .map(|sum| (sum << 1 ^ sum >> 63) as u64)
                .collect(),
            tiles: vec![Tile {
                present: u64::from(stats.present),
                max_abs_q: 1,
                bytes,
                panels: 1,
                k_len: 4,
                damage: false,
            }],
            zeros: codes.iter().filter(|code| **code == 0).count() as u64,
            ..Layer::raw32()
        }
    }
    /// Raw mask: 4 bytes, then the stream of 8 values.
    pub fn mask() -> Layer {
        let (codes, mask) = pattern();
        let values = values_table();
        Layer::coded(
            vec![2, 0, 0],
            &TileEncoding::Mask {
                mask: None,
                values: &values,
            },
            &codes,
            &mask,
        )
    }
    pub fn gaps() -> Layer {
        let (codes, mask) = pattern();
        // Fillers need a code: table 2.
        let (values, gaps) = (filler_table(), gaps_table());
        let encoding = TileEncoding::Gaps {
            bits: 2,
            gaps: &gaps,
            values: &values,
        };
        Layer::coded(vec![3, 2, 1, 2], &encoding, &codes, &mask)
    }
    pub fn dense() -> Layer {
        let (codes, mask) = pattern();
        let values = filler_table();
        Layer::coded(
            vec![1, 2],
            &TileEncoding::Dense { values: &values },
            &codes,
            &mask,
        )
    }
    /// Two classes in turn, coded by hand (format-coding.md, section 4.4); tables of [`class_tables`].
    pub fn classes() -> Layer {
        let mut layer = Layer::dense();
        // Tag, two classes: dense with table 0, two values per symbol, 0 and 1; mask with tables 1 and 2, single values.
        layer.index = vec![4, 2, 1, 0, 2, 2, 0, 1, 0, 2, 1, 2, 1];
        // Blocks of one k; the only symbol 10 of the map: classes 0, 1, 0, 1.
        layer.index.push(1);
        lengths(&[(10, 1)]).serialize(&mut layer.index);
        layer.index.push(0);
        layer.tiles[0].present = 20;
        layer.tiles[0].bytes = vec![1, 0, 1, 0, 1, 0, 1, 0, 3, 16, 6, 0];
        layer
    }
    /// Values of a codebook of two.
    pub fn codebook() -> Layer {
        Layer {
            values: [vec![2, 2], floats(&[0.25, 0.75]), vec![0]].concat(),
            max_abs_q: 0,
            symmetric: 0,
            sums: Vec::new(),
            tiles: vec![Tile {
                max_abs_q: 0,
                ..Layer::mask().tiles.remove(0)
            }],
            ..Layer::mask()
        }
    }
    fn record(&self) -> Vec<u8> {
        let tiles: Vec<Vec<u8>> = self.tiles.iter().map(tile_record).collect();
        let sums: Vec<Vec<u8>> = self.sums.iter().map(|sum| uint(*sum)).collect();
        let dims = [
            self.out_channels,
            self.in_per_group,
            self.kernel[0],
            self.kernel[1],
            self.groups,
        ];
        let mut bytes = self.name.clone();
        bytes.extend(dims.into_iter().flat_map(uint));
        bytes.push(self.order);
        bytes.extend(&self.values);
        bytes.extend(&self.index);
        bytes.extend([self.max_abs_q, self.symmetric]);
        bytes.extend(list(&sums));
        bytes.extend(list(&tiles));
        bytes.extend(uint(self.zeros));
        bytes.extend([8, 5, 0, 0, 0, 0, 0]);
        bytes.extend(floats(&[self.cosine, 0.0]));
        bytes
    }
}

/// The tables of [`Layer::classes`]: pairs of 0 and 1, the mask bytes 5 and 17, the values 1 and -1.
pub fn class_tables() -> Vec<Vec<u8>> {
    let pairs = lengths(&[(0, 2), (1, 2), (2, 2), (3, 2)]);
    let masks = lengths(&[(5, 1), (17, 1)]);
    [pairs, masks, values_table()]
        .iter()
        .map(|table| stored(11, table))
        .collect()
}

/// The file of a layer in classes.
pub fn in_classes(layer: Layer) -> Vec<u8> {
    let mut file = File::of(Network::new(layer));
    (file.version, file.reader) = (3, 3);
    file.entries[0] = Entry::new(b"CODE", 1, None, list(&class_tables()));
    file.bytes()
}

/// Code table 2: values 0, 1 and -1.
pub fn filler_table() -> CodeLengths {
    lengths(&[(0, 1), (1, 2), (255, 2)])
}

fn tile_record(tile: &Tile) -> Vec<u8> {
    let mut bytes: Vec<u8> = [
        tile.panels,
        tile.k_len,
        tile.bytes.len() as u64,
        tile.present,
    ]
    .into_iter()
    .flat_map(uint)
    .collect();
    bytes.push(tile.max_abs_q);
    bytes.extend(crc32c::crc32c(&tile.bytes).to_le_bytes());
    bytes
}

/// The fields of a `GRPH` section, and the content of the two that go with it.
#[derive(Clone)]
pub struct Network {
    pub name: Vec<u8>,
    pub symbols: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub inputs: Vec<Vec<u8>>,
    pub outputs: Vec<Vec<u8>>,
    pub constants: Vec<Vec<u8>>,
    pub layers: Vec<Layer>,
    pub nodes: Vec<Vec<u8>>,
    pub preprocess: Vec<u8>,
    pub self_test: Vec<u8>,
    pub provenance: Vec<u8>,
    pub cnst: Vec<u8>,
    /// Appended to the tiles.
    pub wght_tail: Vec<u8>,
}

pub fn tensor(name: &str, dims: &[u64]) -> Vec<u8> {
    let dims: Vec<Vec<u8>> = dims.iter().map(|dim| uint(dim * 2)).collect();
    [text(name), list(&dims), vec![0]].concat()
}

pub fn node(op: &[u8], inputs: &[u8], output: u8) -> Vec<u8> {
    [
        text("node"),
        op.to_vec(),
        vec![inputs.len() as u8],
        inputs.to_vec(),
        vec![output],
    ]
    .concat()
}

/// Linear, layer 0, no bias.
pub const LINEAR: [u8; 3] = [1, 0, 0];
/// Conv, layer 0, no bias, strides and dilations 1, no padding.
pub const CONV: [u8; 12] = [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0];
pub const RELU: [u8; 2] = [2, 0];

/// Four values at the start of `CNST`.
pub fn constant(name: &str, dims: &[u64], values: &[f32]) -> Vec<u8> {
    let dims: Vec<Vec<u8>> = dims.iter().map(|dim| uint(*dim)).collect();
    [
        text(name),
        list(&dims),
        vec![1],
        crc32c::crc32c(&floats(values)).to_le_bytes().to_vec(),
    ]
    .concat()
}

impl Network {
    pub fn new(layer: Layer) -> Network {
        Network {
            name: text("net"),
            symbols: Vec::new(),
            tensors: vec![tensor("x", &[1, 4]), tensor("y", &[])],
            inputs: vec![vec![0]],
            outputs: vec![vec![1, 0]],
            constants: Vec::new(),
            layers: vec![layer],
            nodes: vec![node(&LINEAR, &[0], 1)],
            preprocess: vec![0],
            self_test: vec![0],
            provenance: vec![0, 0, 0],
            cnst: Vec::new(),
            wght_tail: Vec::new(),
        }
    }
    pub fn graph(&self) -> Vec<u8> {
        let layers: Vec<Vec<u8>> = self.layers.iter().map(Layer::record).collect();
        [
            self.name.clone(),
            list(&self.symbols),
            list(&self.tensors),
            list(&self.inputs),
            list(&self.outputs),
            list(&self.constants),
            list(&layers),
            list(&self.nodes),
            self.preprocess.clone(),
            self.self_test.clone(),
            self.provenance.clone(),
        ]
        .concat()
    }
    fn wght(&self) -> Vec<u8> {
        let mut section = Vec::new();
        for tile in self.layers.iter().flat_map(|layer| &layer.tiles) {
            section.resize(section.len().next_multiple_of(4), 0);
            let start = section.len();
            section.extend(&tile.bytes);
            if tile.damage {
                section[start] ^= 1;
            }
        }
        section.extend(&self.wght_tail);
        section
    }
}

/// A section with its directory entry.
#[derive(Clone)]
pub struct Entry {
    pub code: [u8; 4],
    pub flags: u32,
    pub network: u32,
    pub bytes: Vec<u8>,
    pub crc: u32,
    /// Added to the right offset.
    pub shift: u64,
}

impl Entry {
    pub fn new(code: &[u8; 4], flags: u32, network: Option<u32>, bytes: Vec<u8>) -> Entry {
        let crc = crc32c::crc32c(&bytes);
        Entry {
            code: *code,
            flags,
            network: network.unwrap_or(u32::MAX),
            bytes,
            crc,
            shift: 0,
        }
    }
}

/// A file before its header is made.
#[derive(Clone)]
pub struct File {
    pub version: u16,
    pub reader: u16,
    pub reserved: u32,
    pub entries: Vec<Entry>,
}

impl File {
    pub fn of(network: Network) -> File {
        let tables = list(&[
            stored(11, &values_table()),
            stored(11, &gaps_table()),
            stored(11, &filler_table()),
        ]);
        File {
            version: 1,
            reader: 1,
            reserved: 0,
            entries: vec![
                Entry::new(b"CODE", 1, None, tables),
                Entry::new(b"GRPH", 1, Some(0), network.graph()),
                Entry::new(b"CNST", 1, Some(0), network.cnst.clone()),
                Entry::new(b"WGHT", 1, Some(0), network.wght()),
            ],
        }
    }
    pub fn bytes(&self) -> Vec<u8> {
        let align = |x: usize| x.next_multiple_of(64);
        let end = 32 + 32 * self.entries.len();
        let length = self
            .entries
            .iter()
            .fold(align(end), |at, entry| align(at + entry.bytes.len()));
        let mut file = b"\x89DCZ\r\n\x1a\n".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.reader.to_le_bytes());
        file.extend((self.entries.len() as u32).to_le_bytes());
        file.extend((length as u64).to_le_bytes());
        file.extend(self.reserved.to_le_bytes());
        let (mut directory, mut body, mut at) = (Vec::new(), Vec::new(), align(end));
        for entry in &self.entries {
            directory.extend(entry.code);
            directory.extend(entry.flags.to_le_bytes());
            directory.extend((at as u64 + entry.shift).to_le_bytes());
            directory.extend((entry.bytes.len() as u64).to_le_bytes());
            directory.extend(entry.network.to_le_bytes());
            directory.extend(entry.crc.to_le_bytes());
            body.extend(&entry.bytes);
            at = align(at + entry.bytes.len());
            body.resize(at - align(end), 0);
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&file), &directory);
        file.extend(crc.to_le_bytes());
        file.extend(directory);
        file.resize(align(end), 0);
        file.extend(body);
        file
    }
}
