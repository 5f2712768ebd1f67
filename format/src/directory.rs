//! Header and directory: what sections a file has and where they lie.
//!
//! Sections tile the file: the first begins at the first multiple of 64 after the directory, each other at the first
//! multiple of 64 after its predecessor, the file ends at the first multiple of 64 after the last. So a hole, an
//! overlap or a byte outside cannot be expressed without being noticed.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::source::Source;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// The signature: not text, and damaged by newline conversion.
pub const MAGIC: [u8; 8] = *b"\x89DCZ\r\n\x1a\n";
/// Version of the format that this crate writes, and the newest it reads.
pub const VERSION: u16 = 4;
/// Reader version of files with a layer coded in classes.
const CLASSES_VERSION: u16 = 3;
/// Reader version of files with a pipeline.
const PIPELINE_VERSION: u16 = 2;
/// Reader version of files with neither a pipeline nor layers in classes.
const PLAIN_VERSION: u16 = 1;
/// Alignment of sections, and what the file's length is a multiple of.
pub const SECTION_ALIGN: u64 = 64;

pub(crate) const HEADER_BYTES: usize = 32;
pub(crate) const ENTRY_BYTES: usize = 32;
const CRITICAL: u32 = 1;
/// Owner of sections that belong to the whole file.
pub(crate) const NO_NETWORK: u32 = u32::MAX;

/// The kinds of sections this crate knows, in the order they have in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SectionKind {
    /// Pool of code tables.
    CodeTables,
    /// Records of one network.
    Graph,
    /// Named texts (licences); ancillary.
    Texts,
    /// Constants of one network.
    Constants,
    /// Tiles of one network.
    Weights,
    /// How the networks work together.
    Pipeline,
    /// How full blocks of output channels are, of one network; ancillary.
    Blocks,
}

impl SectionKind {
    const ALL: [SectionKind; 7] = [
        Self::CodeTables,
        Self::Graph,
        Self::Texts,
        Self::Constants,
        Self::Weights,
        Self::Pipeline,
        Self::Blocks,
    ];

    pub(crate) fn code(self) -> [u8; 4] {
        match self {
            Self::CodeTables => *b"CODE",
            Self::Graph => *b"GRPH",
            Self::Texts => *b"TEXT",
            Self::Constants => *b"CNST",
            Self::Weights => *b"WGHT",
            Self::Pipeline => *b"PIPE",
            Self::Blocks => *b"BLKS",
        }
    }
    fn of(code: [u8; 4]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
    fn is_critical(self) -> bool {
        !matches!(self, Self::Texts | Self::Blocks)
    }
    fn has_network(self) -> bool {
        matches!(
            self,
            Self::Graph | Self::Constants | Self::Weights | Self::Blocks
        )
    }
}

/// One entry of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Four characters.
    pub code: [u8; 4],
    /// The kind; `None` for an ancillary section of a kind this crate does not know.
    pub kind: Option<SectionKind>,
    /// Network it belongs to, if to one.
    pub network: Option<u32>,
    /// File offset.
    pub offset: u64,
    /// Bytes, padding not included.
    pub len: u64,
    /// CRC-32C of those bytes.
    pub crc: u32,
}

impl Section {
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.len
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code.escape_ascii())?;
        self.network
            .map_or(Ok(()), |network| write!(f, " of network {network}"))
    }
}

/// Bytes `range` of the source, copied only when they are not addressable.
pub(crate) fn read_range(source: &dyn Source, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
    let truncated = || Error::new(ErrorKind::Truncated, format!("bytes {range:?}")).at(range.start);
    if range.start > range.end || range.end > source.len() {
        return Err(truncated());
    }
    let start = usize::try_from(range.start).map_err(|_| truncated())?;
    let end = usize::try_from(range.end).map_err(|_| truncated())?;
    match source.bytes() {
        Some(bytes) => Ok(Cow::Borrowed(bytes.get(start..end).ok_or_else(truncated)?)),
        None => {
            let mut buffer = vec![0; end - start];
            source
                .read_at(range.start, &mut buffer)
                .map_err(|e| Error::io(e, "reading").at(range.start))?;
            Ok(Cow::Owned(buffer))
        }
    }
}

/// Reads and verifies header and directory.
pub(crate) fn read_directory(source: &dyn Source, limits: &Limits) -> Result<Vec<Section>> {
    Limits::check("bytes of the file", source.len(), limits.max_file)?;
    let magic_len = source.len().min(MAGIC.len() as u64);
    let magic = read_range(source, 0..magic_len)?;
    if *magic != MAGIC[..magic.len()] {
        return Err(Error::new(ErrorKind::BadMagic, "").at(0));
    }
    let header = read_range(source, 0..HEADER_BYTES as u64)?;
    let Some((header, _)) = header.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Error::new(ErrorKind::Truncated, "header").at(0));
    };
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (version, reader) = (u16_at(8), u16_at(10));
    if reader > VERSION {
        return Err(Error::new(
            ErrorKind::VersionTooNew,
            format!("reader version {reader}, this is {VERSION}"),
        )
        .at(10));
    }
    if reader == 0 || version < reader {
        return Err(Error::new(
            ErrorKind::BadVersion,
            format!("version {version}, reader {reader}"),
        )
        .at(8));
    }
    let count = u32_at(header, 12);
    Limits::check("sections", u64::from(count), limits.max_sections as u64)
        .map_err(|e| e.at(12))?;
    let file_len = u64_at(header, 16);
    let directory_end = (HEADER_BYTES + count as usize * ENTRY_BYTES) as u64;
    if source.len() < directory_end.min(file_len) {
        return Err(Error::new(
            ErrorKind::Truncated,
            format!("{} of {file_len} bytes", source.len()),
        )
        .at(source.len()));
    }
    let directory = read_range(source, HEADER_BYTES as u64..directory_end)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..28]), &directory);
    if crc != u32_at(header, 28) {
        return Err(Error::new(ErrorKind::HeaderChecksum, "").at(28));
    }
    if u32_at(header, 24) != 0 {
        return Err(Error::new(ErrorKind::ReservedBits, "header").at(24));
    }
    if source.len() < file_len {
        return Err(Error::new(
            ErrorKind::Truncated,
            format!("{} of {file_len} bytes", source.len()),
        )
        .at(source.len()));
    }
    if source.len() > file_len {
        return Err(Error::new(
            ErrorKind::FileLength,
            format!("{} bytes, {file_len} stated", source.len()),
        )
        .at(16));
    }
    let sections = read_entries(&directory)?;
    check_tiling(&sections, directory_end, file_len)?;
    check_order(&sections, limits)?;
    Ok(sections)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |b| u64::from_le_bytes(*b))
}

fn read_entries(directory: &[u8]) -> Result<Vec<Section>> {
    let (entries, _) = directory.as_chunks::<ENTRY_BYTES>();
    let mut sections = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let code = [entry[0], entry[1], entry[2], entry[3]];
        let (flags, network) = (u32_at(entry, 4), u32_at(entry, 24));
        let kind = SectionKind::of(code);
        let section = Section {
            code,
            kind,
            network: (network != NO_NETWORK).then_some(network),
            offset: u64_at(entry, 8),
            len: u64_at(entry, 16),
            crc: u32_at(entry, 28),
        };
        let at = (HEADER_BYTES + index * ENTRY_BYTES) as u64;
        let fail = |kind| Err(Error::new(kind, "").in_section(&section).at(at));
        if flags & !CRITICAL != 0 {
            return fail(ErrorKind::ReservedBits);
        }
        match kind {
            None if flags & CRITICAL != 0 => return fail(ErrorKind::UnknownCritical),
            Some(kind) if kind.is_critical() != (flags & CRITICAL != 0) => {
                return fail(ErrorKind::SectionFlags);
            }
            Some(kind) if kind.has_network() != section.network.is_some() => {
                return fail(ErrorKind::SectionOwner);
            }
            _ => {}
        }
        sections.push(section);
    }
    Ok(sections)
}

fn check_tiling(sections: &[Section], directory_end: u64, file_len: u64) -> Result<()> {
    let mut end = Some(directory_end);
    for section in sections {
        let expected = end.and_then(|end| end.checked_next_multiple_of(SECTION_ALIGN));
        if expected != Some(section.offset) {
            let detail = format!(
                "at {}, not {}",
                section.offset,
                expected.unwrap_or(u64::MAX)
            );
            return Err(Error::new(ErrorKind::SectionTiling, detail)
                .in_section(section)
                .at(section.offset));
        }
        end = section.offset.checked_add(section.len);
    }
    let end = end.and_then(|end| end.checked_next_multiple_of(SECTION_ALIGN));
    if end != Some(file_len) {
        let detail = format!(
            "sections end at {}, the file at {file_len}",
            end.unwrap_or(u64::MAX)
        );
        return Err(Error::new(ErrorKind::SectionTiling, detail).at(file_len));
    }
    Ok(())
}

/// Known sections are strictly ordered by kind and network, and complete.
fn check_order(sections: &[Section], limits: &Limits) -> Result<()> {
    let known = || sections.iter().filter_map(|s| s.kind.map(|kind| (kind, s)));
    let networks = known()
        .filter(|(kind, _)| *kind == SectionKind::Graph)
        .count();
    Limits::check("networks", networks as u64, limits.max_networks as u64)?;
    let mut previous = None;
    for (kind, section) in known() {
        let key = (kind, section.network);
        if previous.is_some_and(|previous| previous >= key) {
            return Err(Error::new(ErrorKind::SectionOrder, "")
                .in_section(section)
                .at(section.offset));
        }
        if section
            .network
            .is_some_and(|network| network as usize >= networks)
        {
            return Err(Error::new(ErrorKind::SectionOwner, "")
                .in_section(section)
                .at(section.offset));
        }
        previous = Some(key);
    }
    let has = |kind: SectionKind| known().filter(|(k, _)| *k == kind).count();
    // Owners are below `networks` and strictly ascending per kind, so counting is enough.
    let missing = [
        (SectionKind::CodeTables, 1),
        (SectionKind::Graph, networks.max(1)),
        (SectionKind::Constants, networks),
        (SectionKind::Weights, networks),
    ]
    .into_iter()
    .find(|(kind, count)| has(*kind) != *count);
    match missing {
        Some((kind, _)) => Err(Error::new(
            ErrorKind::SectionMissing,
            format!("{}", kind.code().escape_ascii()),
        )),
        None => Ok(()),
    }
}

/// A section to be written.
pub(crate) struct NewSection<'a> {
    pub(crate) code: [u8; 4],
    pub(crate) critical: bool,
    pub(crate) network: Option<u32>,
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl<'a> NewSection<'a> {
    pub(crate) fn new(
        kind: SectionKind,
        network: Option<u32>,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        NewSection {
            code: kind.code(),
            critical: kind.is_critical(),
            network,
            bytes: bytes.into(),
        }
    }
}

/// The file of these sections.
///
/// `classes`: a layer is coded in classes, `weighted`: landmarks have weights; older readers do not know either.
pub(crate) fn write_file(sections: &[NewSection<'_>], classes: bool, weighted: bool) -> Vec<u8> {
    let align = |bytes: u64| bytes.next_multiple_of(SECTION_ALIGN);
    let directory_end = (HEADER_BYTES + sections.len() * ENTRY_BYTES) as u64;
    let file_len = sections.iter().fold(align(directory_end), |end, s| {
        align(end + s.bytes.len() as u64)
    });
    let mut file = Vec::with_capacity(file_len as usize);
    file.extend_from_slice(&MAGIC);
    let pipeline = SectionKind::Pipeline.code();
    let reader = if weighted {
        VERSION
    } else if classes {
        CLASSES_VERSION
    } else if sections.iter().any(|s| s.code == pipeline) {
        PIPELINE_VERSION
    } else {
        PLAIN_VERSION
    };
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&reader.to_le_bytes());
    file.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    file.extend_from_slice(&file_len.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    let mut directory = Vec::with_capacity(sections.len() * ENTRY_BYTES);
    let mut offset = align(directory_end);
    for section in sections {
        directory.extend_from_slice(&section.code);
        directory.extend_from_slice(&u32::from(section.critical).to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(&(section.bytes.len() as u64).to_le_bytes());
        directory.extend_from_slice(&section.network.unwrap_or(NO_NETWORK).to_le_bytes());
        directory.extend_from_slice(&crc32c::crc32c(&section.bytes).to_le_bytes());
        offset = align(offset + section.bytes.len() as u64);
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&file), &directory);
    file.extend_from_slice(&crc.to_le_bytes());
    file.extend_from_slice(&directory);
    for section in sections {
        file.resize(align(file.len() as u64) as usize, 0);
        file.extend_from_slice(&section.bytes);
    }
    file.resize(file_len as usize, 0);
    file
}
