//! Writing containers.
//!
//! [`encode`] cuts each layer's OIHW weights into tiles, chooses how its zeros are carried, lets layers share code
//! tables where that makes the file smaller, and codes the tiles. The result can still get a self-test (which needs the
//! decoded weights and so comes last) before it is written.

mod atomic;
mod classes;
mod cut;
mod modes;
mod pool;
mod recode;

pub use recode::inputs;

use crate::blocks::{self, Occupancy};
use crate::codec::{LayerHistogram, TileEncoding, classes_encode, encode_tile};
use crate::container::{CodeTable, Container, NamedText};
use crate::dense::for_each_weight;
use crate::directory::{NewSection, SectionKind, write_file};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Constant, Network, Precision, SelfTest};
use crate::layer::*;
use crate::limits::{Limits, product};
use crate::pipeline::{self, Pipeline};
use crate::record::{self, ALIGN, Writer};
use crate::source::{MemoryBytes, Source};
use crate::validate;
use modes::Choice;
use std::path::Path;
use std::sync::Arc;

/// Weights of a layer in OIHW order.
#[derive(Clone, Debug)]
pub enum Weights {
    /// Values, for `Raw32` and `Raw16` (rounded to the nearest).
    F32(Vec<f32>),
    /// Codes, for the other kinds of values (a grid code `q` as `q as u8`).
    Codes {
        /// One per weight.
        codes: Vec<u8>,
        /// Weights that are exactly zero whatever their code; empty: none.
        absent: Vec<bool>,
    },
}

/// How zeros are to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexChoice {
    /// The smallest; of nearly equal ones the fastest to decode. With [`Index::Classes`] the file needs readers of version 3.
    Auto,
    /// The same without [`Index::Classes`].
    Plain,
    /// [`Index::Dense`].
    Dense,
    /// [`Index::Mask`], raw or coded mask, whichever is smaller.
    Mask,
    /// [`Index::Gaps`].
    Gaps {
        /// Width, 2 to 8; none: the smallest.
        bits: Option<u8>,
    },
    /// [`Index::Classes`]; for layers whose values have a code for zero.
    Classes,
}

/// A layer to be coded.
#[derive(Clone, Debug)]
pub struct LayerInput {
    /// Name in the original network.
    pub name: String,
    /// Geometry.
    pub shape: LayerShape,
    /// Order of k; irrelevant (and stored as channel-major) for kernels of one tap.
    pub k_order: KOrder,
    /// What codes mean.
    pub values: Values,
    /// The weights.
    pub weights: Weights,
    /// How zeros are carried (ignored for raw values).
    pub index: IndexChoice,
    /// For the compression record: cosine to the original.
    pub cosine: f32,
    /// For the compression record: largest absolute difference from the original.
    pub max_error: f32,
}

/// A constant to be stored.
#[derive(Clone, Debug)]
pub struct ConstantInput {
    /// Name in the original network.
    pub name: String,
    /// Dimensions; empty: a scalar.
    pub dims: Vec<u32>,
    /// Storage; values are rounded to it.
    pub precision: Precision,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// A network to be written.
#[derive(Clone, Debug)]
pub struct NetworkInput {
    /// Records; `layers` and `constants` are empty and filled from the fields below.
    pub network: Network,
    /// In the order of [`crate::graph::LayerId`].
    pub layers: Vec<LayerInput>,
    /// In the order of [`crate::graph::ConstId`].
    pub constants: Vec<ConstantInput>,
}

/// Choices of the writer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Most weights of a tile, at most [`MAX_TILE_WEIGHTS`].
    pub tile_weights: usize,
    /// Let layers share code tables where it makes the file smaller (or hardly larger and small layers faster).
    pub share_tables: bool,
    /// Licences and other texts.
    pub texts: Vec<NamedText>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions {
            tile_weights: MAX_TILE_WEIGHTS,
            share_tables: true,
            texts: Vec::new(),
        }
    }
}

/// A coded container, ready to be written.
#[derive(Debug)]
pub struct Encoded {
    networks: Vec<Network>,
    weights: Vec<Vec<u8>>,
    constants: Vec<Vec<u8>>,
    /// Per network, of every layer, or empty.
    blocks: Vec<Vec<Occupancy>>,
    tables: Vec<CodeTable>,
    texts: Vec<NamedText>,
    pipeline: Option<Pipeline>,
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Input, detail)
}

/// Codes networks. `progress(done, total)` is called in steps of about one layer.
pub fn encode(
    networks: Vec<NetworkInput>,
    options: &WriteOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Encoded> {
    let total: usize = networks.iter().map(|n| n.layers.len()).sum::<usize>() * 2;
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, total);
    };
    // First all counts and choices, since tables are shared by the layers of all networks.
    let mut choices = Vec::new();
    let mut pool = pool::Pool::default();
    for input in &networks {
        for layer in &input.layers {
            let choice = prepare(layer, options).map_err(|e| e.in_layer(&layer.name))?;
            if let Some(choice) = &choice {
                pool.add(choice, layer.shape.weights());
            }
            choices.push(choice);
            step();
        }
    }
    let (tables, assigned) = pool.build(options.share_tables);
    let mut encoded = Encoded {
        networks: Vec::with_capacity(networks.len()),
        weights: Vec::new(),
        constants: Vec::new(),
        blocks: Vec::new(),
        tables,
        texts: options.texts.clone(),
        pipeline: None,
    };
    let mut choices = choices.into_iter();
    let mut assigned = assigned.into_iter();
    for input in networks {
        let NetworkInput {
            mut network,
            layers,
            constants,
        } = input;
        if !network.layers.is_empty() || !network.constants.is_empty() {
            return Err(invalid(
                "layers and constants of the network are to be empty",
            ));
        }
        let mut weights = Vec::new();
        let mut blocks = Vec::with_capacity(layers.len());
        for layer in layers {
            blocks.push(occupancy(&layer));
            let choice = choices.next().flatten();
            let tables = if choice.is_some() {
                assigned.next()
            } else {
                None
            };
            let plan = choice.zip(tables);
            let name = layer.name.clone();
            let record = write_layer(layer, plan, &encoded.tables, options, &mut weights)
                .map_err(|e| e.in_layer(&name))?;
            network.layers.push(record);
            step();
        }
        let mut bytes = Vec::new();
        for constant in constants {
            network
                .constants
                .push(write_constant(constant, &mut bytes)?);
        }
        validate::check_network(&network, &encoded.tables, &unlimited())?;
        let mut layers = blocks.iter().zip(&network.layers);
        if !layers.any(|(one, layer)| one.is_clustered(&layer.shape, layer.record.zeros)) {
            blocks.clear();
        }
        encoded.blocks.push(blocks);
        encoded.networks.push(network);
        encoded.weights.push(weights);
        encoded.constants.push(bytes);
    }
    Ok(encoded)
}

/// The writer is not limited; readers are.
fn unlimited() -> Limits {
    Limits {
        max_file: u64::MAX,
        max_weights: u64::MAX,
        max_constant_values: u64::MAX,
        ..Limits::default()
    }
}

/// Checks a layer's weights against its values; for coded layers chooses the index mode.
fn prepare(layer: &LayerInput, options: &WriteOptions) -> Result<Option<Choice>> {
    validate::check_shape(&layer.shape, &unlimited())?;
    let count = layer.shape.weights();
    let expect = |len: usize, what: &str| {
        if len as u64 == count {
            Ok(())
        } else {
            Err(invalid(format!("{len} {what} for {count} weights")))
        }
    };
    let (codes, absent) = match (&layer.values, &layer.weights) {
        (Values::Raw32 | Values::Raw16, Weights::F32(values)) => {
            expect(values.len(), "values")?;
            return Ok(None);
        }
        (Values::Raw32 | Values::Raw16, _) | (_, Weights::F32(_)) => {
            return Err(invalid("raw values are given as values, others as codes"));
        }
        (_, Weights::Codes { codes, absent }) => (codes, absent),
    };
    expect(codes.len(), "codes")?;
    if !absent.is_empty() {
        expect(absent.len(), "flags")?;
    }
    let largest = layer.values.codes();
    let grid = matches!(layer.values, Values::Grid { .. });
    let mut present = codes
        .iter()
        .zip(absent.iter().chain(std::iter::repeat(&false)));
    let bad = present.find(|(code, absent)| {
        !**absent
            && if grid {
                **code == 128
            } else {
                usize::from(**code) >= largest
            }
    });
    if let Some((code, _)) = bad {
        return Err(invalid(format!("code {code} has no value")));
    }
    let zero = layer.values.zero_symbol();
    let mut histogram = LayerHistogram::new();
    let mut buffer = TileBuffer::default();
    let mut zeros = false;
    let tiles = cut::tiles(&layer.shape, k_order(layer), options.tile_weights)?;
    let mut gathered = Vec::new();
    let keep = matches!(layer.index, IndexChoice::Auto | IndexChoice::Classes);
    for tile in &tiles {
        zeros |= buffer.fill(layer, tile, zero);
        histogram.add_tile(&buffer.codes, &buffer.mask);
        if keep && zero.is_some() {
            gathered.push(classes::Gathered {
                tile: *tile,
                codes: buffer.codes.clone(),
                mask: buffer.mask.clone(),
            });
        }
    }
    let forced = layer.index == IndexChoice::Classes;
    let divided = zero.and_then(|zero| classes::choose(&layer.shape, zero, &gathered, forced));
    modes::choose(&histogram, layer.index, zero, zeros, tiles.len(), divided).map(Some)
}

fn occupancy(layer: &LayerInput) -> Occupancy {
    match &layer.weights {
        Weights::F32(values) => Occupancy::of(&layer.shape, |at| values[at] == 0.0),
        Weights::Codes { codes, absent } => {
            let zero = layer.values.zero_symbol();
            Occupancy::of(&layer.shape, |at| {
                zero == Some(codes[at]) || absent.get(at).is_some_and(|absent| *absent)
            })
        }
    }
}

fn k_order(layer: &LayerInput) -> KOrder {
    if layer.shape.kernel == [1, 1] {
        KOrder::ChannelMajor
    } else {
        layer.k_order
    }
}

/// Codes and mask of one tile.
#[derive(Default)]
struct TileBuffer {
    codes: Vec<u8>,
    mask: Vec<u8>,
}

impl TileBuffer {
    /// Gathers a tile. Gives whether anything in it, padding included, is zero.
    fn fill(&mut self, layer: &LayerInput, tile: &Tile, zero: Option<u8>) -> bool {
        let Weights::Codes { codes, absent } = &layer.weights else {
            return false;
        };
        self.codes.clear();
        self.codes.resize(tile.weights(), zero.unwrap_or(0));
        self.mask.clear();
        self.mask.resize(tile.weights() / PANEL, 0);
        let mut count = 0;
        for_each_weight(&layer.shape, k_order(layer), tile, |to, from| {
            let Some(from) = from else { return };
            if absent.get(from).is_some_and(|absent| *absent) || zero == Some(codes[from]) {
                return;
            }
            self.codes[to] = codes[from];
            self.mask[to / PANEL] |= 1 << (to % PANEL);
            count += 1;
        });
        count != tile.weights()
    }
}

fn write_layer(
    input: LayerInput,
    plan: Option<(Choice, pool::Assigned)>,
    tables: &[CodeTable],
    options: &WriteOptions,
    section: &mut Vec<u8>,
) -> Result<Layer> {
    let order = k_order(&input);
    let mut tiles = cut::tiles(&input.shape, order, options.tile_weights)?;
    let grid = matches!(input.values, Values::Grid { .. });
    let mut layer = Layer {
        name: input.name.clone(),
        shape: input.shape,
        k_order: order,
        values: input.values.clone(),
        index: Index::Raw,
        max_abs_q: 0,
        symmetric_i8: matches!(
            input.values,
            Values::Grid {
                steps: Steps::Layer(_) | Steps::Channel(_)
            }
        ),
        q_sums: vec![
            0;
            if grid {
                input.shape.out_channels as usize
            } else {
                0
            }
        ],
        tiles: Vec::new(),
        record: CompressionRecord {
            cosine: input.cosine,
            max_error: input.max_error,
            ..Default::default()
        },
    };
    match plan {
        None => write_raw_tiles(&input, &mut layer, &mut tiles, section),
        Some((choice, assigned)) => {
            layer.index = assigned.index(&choice);
            choice.describe(&assigned, tables, &mut layer.record);
            layer.record.value_bits = value_bits(&input);
            write_coded_tiles(&input, &mut layer, &mut tiles, tables, section)?;
        }
    }
    layer.max_abs_q = tiles.iter().map(|tile| tile.max_abs_q).max().unwrap_or(0);
    layer.tiles = tiles;
    Ok(layer)
}

/// Fixed width that the codes would need.
fn value_bits(input: &LayerInput) -> u8 {
    match (&input.values, &input.weights) {
        (Values::Raw32, _) => 32,
        (Values::Raw16, _) => 16,
        (Values::Minmax { bits, .. }, _) => *bits,
        (Values::Codebook { values, .. }, _) => {
            (usize::BITS - (values.len() - 1).leading_zeros()).max(1) as u8
        }
        (Values::Grid { .. }, Weights::Codes { codes, .. }) => {
            let largest = codes
                .iter()
                .map(|code| (*code as i8).unsigned_abs())
                .max()
                .unwrap_or(0);
            (9 - largest.leading_zeros()) as u8
        }
        (Values::Grid { .. }, _) => 8,
    }
}

fn write_raw_tiles(
    input: &LayerInput,
    layer: &mut Layer,
    tiles: &mut [Tile],
    section: &mut Vec<u8>,
) {
    let Weights::F32(values) = &input.weights else {
        return;
    };
    let half = layer.values == Values::Raw16;
    for tile in tiles {
        let start = start_item(section);
        for_each_weight(&layer.shape, layer.k_order, tile, |_, from| {
            let value = from.map_or(0.0, |from| values[from]);
            if half {
                section.extend_from_slice(&half::f16::from_f32(value).to_le_bytes());
            } else {
                section.extend_from_slice(&value.to_le_bytes());
            }
        });
        tile.present = tile.weights() as u32;
        finish_tile(tile, start, section);
    }
    let is_zero = |v: &&f32| {
        if half {
            half::f16::from_f32(**v).to_f32() == 0.0
        } else {
            **v == 0.0
        }
    };
    let record = &mut layer.record;
    record.zeros = values.iter().filter(is_zero).count() as u64;
    record.value_bits = value_bits(input);
    record.value_payload_bits = u64::from(record.value_bits) * values.len() as u64;
}

fn write_coded_tiles(
    input: &LayerInput,
    layer: &mut Layer,
    tiles: &mut [Tile],
    tables: &[CodeTable],
    section: &mut Vec<u8>,
) -> Result<()> {
    let lengths = |id: TableId| {
        tables
            .get(id.0 as usize)
            .map(|table| &table.lengths)
            .ok_or_else(|| invalid("no such table"))
    };
    let encoding = match &layer.index {
        Index::Raw => return Err(invalid("raw index for codes")),
        Index::Dense { values } => Some(TileEncoding::Dense {
            values: lengths(*values)?,
        }),
        Index::Mask { mask, values } => Some(TileEncoding::Mask {
            mask: mask.map(lengths).transpose()?,
            values: lengths(*values)?,
        }),
        Index::Gaps { bits, gaps, values } => Some(TileEncoding::Gaps {
            bits: *bits,
            gaps: lengths(*gaps)?,
            values: lengths(*values)?,
        }),
        Index::Classes(_) => None,
    };
    let zero = layer.values.zero_symbol();
    let grid = !layer.q_sums.is_empty();
    let mut buffer = TileBuffer::default();
    let mut present = 0u64;
    for tile in tiles {
        buffer.fill(input, tile, zero);
        let start = start_item(section);
        let (codes, mask) = (&buffer.codes, &buffer.mask);
        let stats = match (&encoding, &layer.index) {
            (Some(encoding), _) => encode_tile(
                encoding,
                tile.panels as usize,
                tile.k_len as usize,
                codes,
                mask,
                zero.unwrap_or(0),
                section,
            ),
            (None, Index::Classes(classes)) => {
                let lengths = |id: TableId| lengths(id).ok();
                classes_encode::encode(classes, &lengths, tile, codes, mask, section)
            }
            (None, _) => return Err(invalid("no such index")),
        }
        .map_err(|e| invalid(e.to_string()))?;
        tile.present = stats.present;
        present += buffer
            .mask
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum::<u64>();
        if grid {
            tile.max_abs_q = buffer
                .codes
                .iter()
                .map(|code| (*code as i8).unsigned_abs())
                .max()
                .unwrap_or(0);
            let width = layer.shape.k();
            for_each_weight(&layer.shape, layer.k_order, tile, |at, oihw| {
                if let Some(sum) = oihw.and_then(|oihw| layer.q_sums.get_mut(oihw / width)) {
                    *sum += i32::from(buffer.codes[at] as i8);
                }
            });
        }
        finish_tile(tile, start, section);
    }
    layer.record.zeros = layer.shape.weights() - present;
    Ok(())
}

/// Pads a section to the alignment of tiles and constants.
fn start_item(section: &mut Vec<u8>) -> usize {
    section.resize(section.len().next_multiple_of(ALIGN as usize), 0);
    section.len()
}

fn finish_tile(tile: &mut Tile, start: usize, section: &[u8]) {
    tile.offset = start as u64;
    tile.len = (section.len() - start) as u32;
    tile.crc = crc32c::crc32c(&section[start..]);
}

fn write_constant(input: ConstantInput, section: &mut Vec<u8>) -> Result<Constant> {
    let ConstantInput {
        name,
        dims,
        precision,
        values,
    } = input;
    if product(dims.iter().map(|d| u64::from(*d))) != Some(values.len() as u64) {
        return Err(invalid(format!(
            "constant {name}: {} values for {dims:?}",
            values.len()
        )));
    }
    let start = start_item(section);
    for value in values {
        let rounded = match precision {
            Precision::F16 => half::f16::from_f32(value).to_f32(),
            Precision::F32 => value,
        };
        if !rounded.is_finite() {
            return Err(invalid(format!(
                "constant {name}: {value} cannot be stored"
            )));
        }
        match precision {
            Precision::F16 => section.extend_from_slice(&half::f16::from_f32(value).to_le_bytes()),
            Precision::F32 => section.extend_from_slice(&value.to_le_bytes()),
        }
    }
    Ok(Constant {
        name,
        dims,
        precision,
        offset: start as u64,
        crc: crc32c::crc32c(&section[start..]),
    })
}

impl Encoded {
    /// The networks as they will be read back.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }
    /// Pool of code tables.
    pub fn tables(&self) -> &[CodeTable] {
        &self.tables
    }
    /// Adds or replaces the self-test of a network.
    pub fn set_self_test(&mut self, net: usize, test: SelfTest) -> Result<()> {
        let missing = || Error::new(ErrorKind::NoSuchItem, format!("network {net}"));
        let network = self.networks.get_mut(net).ok_or_else(missing)?;
        validate::check_self_test(network, &test)?;
        network.self_test = Some(test);
        Ok(())
    }
    /// The content of an opened file, bit for bit; sections of unknown kind are left out.
    pub fn from_container(container: &Container) -> Result<Encoded> {
        let mut encoded = Encoded {
            networks: container.networks().to_vec(),
            weights: Vec::new(),
            constants: Vec::new(),
            blocks: Vec::new(),
            tables: container.tables().to_vec(),
            texts: container.texts()?,
            pipeline: container.pipeline().cloned(),
        };
        for net in 0..encoded.networks.len() {
            let [constants, weights] = container.coded(net)?;
            encoded.constants.push(constants);
            encoded.weights.push(weights);
            encoded.blocks.push(container.blocks(net).to_vec());
        }
        Ok(encoded)
    }
    /// Adds the networks and texts of `other` behind the own ones; its pipeline is dropped. Equal texts are kept once.
    ///
    /// Errors: networks of the same name, more code tables than a record can number.
    pub fn append(&mut self, other: Encoded) -> Result<()> {
        let offset = u32::try_from(self.tables.len())
            .ok()
            .filter(|n| u32::try_from(other.tables.len()).is_ok_and(|m| n.checked_add(m).is_some()))
            .ok_or_else(|| invalid("too many code tables"))?;
        if let Some(network) = (other.networks.iter())
            .find(|network| self.networks.iter().any(|own| own.name == network.name))
        {
            return Err(invalid(format!("two networks named {:?}", network.name)));
        }
        self.networks
            .extend(other.networks.into_iter().map(|mut network| {
                for layer in &mut network.layers {
                    layer.index.shift_tables(offset);
                }
                network
            }));
        self.tables.extend(other.tables);
        self.constants.extend(other.constants);
        self.weights.extend(other.weights);
        self.blocks.extend(other.blocks);
        for text in other.texts {
            if !self.texts.contains(&text) {
                self.texts.push(text);
            }
        }
        Ok(())
    }
    /// Gives a network another name.
    pub fn rename(&mut self, net: usize, name: &str) -> Result<()> {
        if name.is_empty() || self.networks.iter().any(|network| network.name == name) {
            return Err(invalid(format!("network name {name:?} is empty or taken")));
        }
        let missing = || Error::new(ErrorKind::NoSuchItem, format!("network {net}"));
        name.clone_into(&mut self.networks.get_mut(net).ok_or_else(missing)?.name);
        Ok(())
    }
    /// Changes what the records of the networks say about their use: preprocessing, meaning of outputs, provenance.
    /// The result is verified like a file's.
    ///
    /// Errors: those of `change`, and records that would not be readable.
    pub fn describe<E: From<Error>>(
        &mut self,
        mut change: impl FnMut(&mut Network) -> Result<(), E>,
    ) -> Result<(), E> {
        for network in &mut self.networks {
            change(network)?;
            validate::check_network(network, &self.tables, &unlimited())?;
        }
        Ok(())
    }
    /// Says how the networks work together. Such files need readers of version 2, of version 4
    /// where landmarks have weights.
    pub fn set_pipeline(&mut self, pipeline: Pipeline) -> Result<()> {
        pipeline::check(&pipeline, self.networks.len())?;
        self.pipeline = Some(pipeline);
        Ok(())
    }
    /// The file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut sections = vec![NewSection::new(
            SectionKind::CodeTables,
            None,
            write_tables(&self.tables),
        )];
        let per_network = |kind| (0..).map(move |net| (kind, Some(net)));
        let graphs = self.networks.iter().map(record::write_network);
        for ((kind, net), bytes) in per_network(SectionKind::Graph).zip(graphs) {
            sections.push(NewSection::new(kind, net, bytes));
        }
        if !self.texts.is_empty() {
            sections.push(NewSection::new(
                SectionKind::Texts,
                None,
                write_texts(&self.texts),
            ));
        }
        for (kind, parts) in [
            (SectionKind::Constants, &self.constants),
            (SectionKind::Weights, &self.weights),
        ] {
            for ((kind, net), bytes) in per_network(kind).zip(parts) {
                sections.push(NewSection::new(kind, net, bytes));
            }
        }
        if let Some(pipeline) = &self.pipeline {
            let bytes = pipeline::write(pipeline);
            sections.push(NewSection::new(SectionKind::Pipeline, None, bytes));
        }
        for ((kind, net), blocks) in per_network(SectionKind::Blocks).zip(&self.blocks) {
            if !blocks.is_empty() {
                sections.push(NewSection::new(kind, net, blocks::write(blocks)));
            }
        }
        let layers = self.networks.iter().flat_map(|network| &network.layers);
        let classes = layers
            .into_iter()
            .any(|l| matches!(l.index, Index::Classes(_)));
        let weighted = self.pipeline.as_ref().is_some_and(|p| p.align.weighted());
        Ok(write_file(&sections, classes, weighted))
    }
    /// Writes the file through a temporary file in the same directory and a rename, so that `path` holds either the old
    /// content or all of the new one, once readers are known to accept it. Only regular files are replaced. Gives the number of
    /// bytes.
    pub fn write_atomic(&self, path: &Path) -> Result<u64> {
        let source = MemoryBytes::new(self.to_bytes()?);
        Container::open(Arc::new(source.clone()), &unlimited())?;
        let bytes = source.bytes().unwrap_or_default();
        atomic::write(path, bytes)?;
        Ok(bytes.len() as u64)
    }
}

fn write_tables(tables: &[CodeTable]) -> Vec<u8> {
    let mut w = Writer::default();
    w.list(tables, |w, table| {
        w.u8(table.width);
        table.lengths.serialize(&mut w.bytes);
    });
    w.bytes
}

fn write_texts(texts: &[NamedText]) -> Vec<u8> {
    let mut w = Writer::default();
    w.list(texts, |w, text| {
        w.text(&text.name);
        w.text(&text.text);
    });
    w.bytes
}
