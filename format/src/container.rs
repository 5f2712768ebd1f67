//! An opened container: verified header, directory and records; weights and constants are read when asked for.

use crate::blocks::{self, Occupancy};
use crate::codec::CodeLengths;
use crate::directory::{self, Section, SectionKind, read_range};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{ConstId, LayerId, Network, Precision};
use crate::layer::{Layer, Tile};
use crate::limits::Limits;
use crate::pipeline::{self, Pipeline};
use crate::record::{self, Reader};
use crate::source::Source;
use crate::validate;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A code table of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeTable {
    /// Canonical code lengths.
    pub lengths: CodeLengths,
    /// Index bits of the decode table, 11 or 12.
    pub width: u8,
}

/// A text that travels with the networks, such as a licence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedText {
    /// What it is; not empty.
    pub name: String,
    /// The text.
    pub text: String,
}

/// An opened container.
#[derive(Debug)]
pub struct Container {
    /// Tells containers of a process apart.
    id: u64,
    source: Arc<dyn Source>,
    sections: Vec<Section>,
    tables: Vec<CodeTable>,
    networks: Vec<Network>,
    parts: Vec<NetworkParts>,
    pipeline: Option<Pipeline>,
    limits: Limits,
}

/// Where the bytes of a network lie.
#[derive(Debug)]
struct NetworkParts {
    constants: Section,
    weights: Section,
    /// Of every layer, or empty.
    blocks: Vec<Occupancy>,
}

impl Container {
    /// Reads and verifies header, directory, code tables and records. Weights, constants and texts are not touched.
    pub fn open(source: Arc<dyn Source>, limits: &Limits) -> Result<Container> {
        let sections = directory::read_directory(&*source, limits)?;
        let of_kind = |kind| {
            sections
                .iter()
                .filter(move |section| section.kind == Some(kind))
        };
        let mut tables = Vec::new();
        for section in of_kind(SectionKind::CodeTables) {
            tables = read_section(&*source, section, limits, |bytes| {
                read_tables(bytes, section.offset, limits)
            })?;
        }
        let (mut networks, mut parts) = (Vec::<Network>::new(), Vec::new());
        let rest = of_kind(SectionKind::Constants).zip(of_kind(SectionKind::Weights));
        for (section, (constants, weights)) in of_kind(SectionKind::Graph).zip(rest) {
            let found = read_section(&*source, section, limits, |bytes| {
                let found = record::read_network(bytes, section.offset, limits)?;
                validate::check_network(&found.network, &tables, limits)?;
                if networks
                    .iter()
                    .any(|network| network.name == found.network.name)
                {
                    return Err(Error::new(
                        ErrorKind::DuplicateName,
                        format!("network {:?}", found.network.name),
                    ));
                }
                Ok(found)
            })?;
            for (section, len, kind) in [
                (constants, found.constants_len, ErrorKind::ConstantsTiling),
                (weights, found.weights_len, ErrorKind::WeightsTiling),
            ] {
                if section.len != len {
                    let detail = format!("{} bytes, records use {len}", section.len);
                    return Err(Error::new(kind, detail)
                        .in_section(section)
                        .at(section.offset));
                }
            }
            networks.push(found.network);
            parts.push(NetworkParts {
                constants: constants.clone(),
                weights: weights.clone(),
                blocks: Vec::new(),
            });
        }
        let mut pipeline = None;
        for section in of_kind(SectionKind::Pipeline) {
            pipeline = Some(read_section(&*source, section, limits, |bytes| {
                pipeline::read(bytes, section.offset, networks.len())
            })?);
        }
        for section in of_kind(SectionKind::Blocks) {
            let net = section.network.unwrap_or(0) as usize;
            if let Some((parts, network)) = parts.get_mut(net).zip(networks.get(net)) {
                parts.blocks = read_section(&*source, section, limits, |bytes| {
                    blocks::read(bytes, section.offset, network.layers.len())
                })?;
            }
        }
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Ok(Container {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            source,
            sections,
            tables,
            networks,
            parts,
            pipeline,
            limits: limits.clone(),
        })
    }

    /// A number that no other container of this process has.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
    /// The networks, in file order.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }
    /// Index of the network of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.networks
            .iter()
            .position(|network| network.name == name)
    }
    /// How the networks work together, if the file says so.
    pub fn pipeline(&self) -> Option<&Pipeline> {
        self.pipeline.as_ref()
    }
    /// How full blocks of output channels are, for every layer of a network; empty when the file does not say.
    pub fn blocks(&self, net: usize) -> &[Occupancy] {
        self.parts.get(net).map_or(&[], |parts| &parts.blocks)
    }
    /// Where the bytes come from.
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }
    /// Pool of code tables.
    pub fn tables(&self) -> &[CodeTable] {
        &self.tables
    }
    /// The directory.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Licences and other texts of the file; verifies their checksum.
    pub fn texts(&self) -> Result<Vec<NamedText>> {
        match self
            .sections
            .iter()
            .find(|section| section.kind == Some(SectionKind::Texts))
        {
            None => Ok(Vec::new()),
            Some(section) => read_section(self.source(), section, &self.limits, |bytes| {
                let mut reader = Reader::new(bytes, section.offset, self.limits.max_text);
                let texts = reader.list("texts", u64::from(u32::MAX), 2, |r| {
                    let text = NamedText {
                        name: r.text("text name")?,
                        text: r.text("text")?,
                    };
                    if text.name.is_empty() {
                        return Err(Error::new(ErrorKind::EmptyName, "text").at(r.offset()));
                    }
                    Ok(text)
                })?;
                reader.finish()?;
                Ok(texts)
            }),
        }
    }

    /// Writes the values of a constant to `out`, which has exactly as many elements; verifies the checksum.
    pub fn constant(&self, net: usize, id: ConstId, out: &mut [f32]) -> Result<()> {
        let (constant, range) = self.constant_range(net, id)?;
        if constant.value_count() != Some(out.len()) {
            let detail = format!(
                "constant {}: {} elements for {:?}",
                constant.name,
                out.len(),
                constant.dims
            );
            return Err(Error::new(ErrorKind::BufferSize, detail));
        }
        let at = range.start;
        let place = |e: Error| e.in_section(&self.parts[net].constants).at(at);
        let bytes = read_range(self.source(), range).map_err(place)?;
        if crc32c::crc32c(&bytes) != constant.crc {
            return Err(place(Error::new(
                ErrorKind::ConstantChecksum,
                constant.name.as_str(),
            )));
        }
        match constant.precision {
            Precision::F32 => crate::decode::widen_f32(&bytes, out),
            Precision::F16 => crate::decode::widen_f16(&bytes, out),
        }
        Ok(())
    }

    pub(crate) fn constant_range(
        &self,
        net: usize,
        id: ConstId,
    ) -> Result<(&crate::graph::Constant, Range<u64>)> {
        let missing = || {
            Error::new(
                ErrorKind::NoSuchItem,
                format!("constant {} of network {net}", id.0),
            )
        };
        let constant = self
            .network(net)?
            .constants
            .get(id.0 as usize)
            .ok_or_else(missing)?;
        let len = constant.value_count().ok_or_else(missing)? as u64 * constant.precision.bytes();
        let start = self.parts[net].constants.offset + constant.offset;
        Ok((constant, start..start + len))
    }

    pub(crate) fn network(&self, net: usize) -> Result<&Network> {
        let missing = || Error::new(ErrorKind::NoSuchItem, format!("network {net}"));
        self.networks.get(net).ok_or_else(missing)
    }
    /// The layer.
    pub fn layer(&self, net: usize, id: LayerId) -> Result<&Layer> {
        let missing = || {
            Error::new(
                ErrorKind::NoSuchItem,
                format!("layer {} of network {net}", id.0),
            )
        };
        self.network(net)?
            .layers
            .get(id.0 as usize)
            .ok_or_else(missing)
    }
    /// The tile and the range of the file that holds it, for [`Source::release`].
    pub fn tile(&self, net: usize, id: LayerId, tile: usize) -> Result<(&Tile, Range<u64>)> {
        let layer = self.layer(net, id)?;
        let missing = || {
            Error::new(
                ErrorKind::NoSuchItem,
                format!("tile {tile} of layer {}", layer.name),
            )
        };
        let tile = layer.tiles.get(tile).ok_or_else(missing)?;
        let start = self.parts[net].weights.offset + tile.offset;
        Ok((tile, start..start + u64::from(tile.len)))
    }
    /// The bytes of constants and weights of a network; verifies their checksums.
    pub(crate) fn coded(&self, net: usize) -> Result<[Vec<u8>; 2]> {
        let missing = || Error::new(ErrorKind::NoSuchItem, format!("network {net}"));
        let parts = self.parts.get(net).ok_or_else(missing)?;
        let read = |section: &Section| {
            let bytes = read_range(self.source(), section.range())?;
            if crc32c::crc32c(&bytes) != section.crc {
                return Err(Error::new(ErrorKind::SectionChecksum, "").in_section(section));
            }
            Ok(bytes.into_owned())
        };
        Ok([read(&parts.constants)?, read(&parts.weights)?])
    }
    pub(crate) fn weights_section(&self, net: usize) -> Option<&Section> {
        self.parts.get(net).map(|parts| &parts.weights)
    }
}

/// Reads a small section whole, verifies its checksum and parses it; errors name the section.
fn read_section<T>(
    source: &dyn Source,
    section: &Section,
    limits: &Limits,
    parse: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<T> {
    let body = || {
        Limits::check("bytes of records", section.len, limits.max_records)?;
        let bytes = read_range(source, section.range())?;
        if crc32c::crc32c(&bytes) != section.crc {
            return Err(Error::new(ErrorKind::SectionChecksum, ""));
        }
        parse(&bytes)
    };
    body().map_err(|e| e.in_section(section).at(section.offset))
}

fn read_tables(bytes: &[u8], base: u64, limits: &Limits) -> Result<Vec<CodeTable>> {
    let mut reader = Reader::new(bytes, base, 0);
    let tables = reader.list("code tables", limits.max_tables as u64, 2, |r| {
        let width = r.u8("table width")?;
        let (lengths, used) = CodeLengths::parse(r.rest())
            .map_err(|e| Error::new(ErrorKind::CodeTable, e.to_string()).at(r.offset()))?;
        if !(11..=12).contains(&width) || lengths.longest() > width {
            return Err(Error::new(ErrorKind::TableWidth, format!("{width}")).at(r.offset()));
        }
        r.take(used, "code table")?;
        Ok(CodeTable { lengths, width })
    })?;
    reader.finish()?;
    Ok(tables)
}
