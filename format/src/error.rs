//! The one error type of this crate: which rule was broken, who is at fault, and where.
//!
//! [`Error`] is opaque: a [`kind`](Error::kind) (one per rule of `docs/format.md`), the section, network and layer it
//! concerns and the byte offset within the file, where known. [`ErrorKind::fault`] tells a malformed file from a file
//! that needs a newer reader, from a limit of the caller, from misuse of this interface, from failed input or output.

use std::fmt;

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file breaks a rule of the format: it is damaged or was made by a faulty writer.
    File,
    /// The file is fine but needs a newer reader.
    Reader,
    /// The file exceeds a limit given by the caller.
    Limit,
    /// The caller of this library passed something unsuitable; never caused by the values of a file.
    Caller,
    /// The operating system refused to read or write.
    Io,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident, $name:literal, $fault:ident;)+) => {
        /// The rule that was broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[doc = $doc])+ $variant,)+ }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$variant,)+];
            /// The variant in snake case; the malformed sample files are named so.
            pub fn name(self) -> &'static str {
                match self { $(ErrorKind::$variant => $name,)+ }
            }
            /// Who has to act.
            pub fn fault(self) -> Fault {
                match self { $(ErrorKind::$variant => Fault::$fault,)+ }
            }
            fn text(self) -> &'static str {
                match self { $(ErrorKind::$variant => concat!($($doc,)+),)+ }
            }
        }
    };
}

kinds! {
    /// the file is shorter than its header says
    Truncated, "truncated", File;
    /// the file does not begin with the .dcz signature
    BadMagic, "bad_magic", File;
    /// the file needs a newer reader
    VersionTooNew, "version_too_new", Reader;
    /// the version fields contradict each other
    BadVersion, "bad_version", File;
    /// the recorded file length differs from the real one
    FileLength, "file_length", File;
    /// header or directory do not match their checksum
    HeaderChecksum, "header_checksum", File;
    /// reserved bits are not zero
    ReservedBits, "reserved_bits", File;
    /// a critical section of a kind this reader does not know
    UnknownCritical, "unknown_critical", Reader;
    /// sections do not tile the file: a hole or an overlap
    SectionTiling, "section_tiling", File;
    /// a section is marked critical or ancillary against its kind
    SectionFlags, "section_flags", File;
    /// a section belongs to no network or to the wrong one
    SectionOwner, "section_owner", File;
    /// a section occurs twice or in the wrong order
    SectionOrder, "section_order", File;
    /// a mandatory section is absent
    SectionMissing, "section_missing", File;
    /// a section does not match its checksum
    SectionChecksum, "section_checksum", File;
    /// padding is not zero
    Padding, "padding", File;

    /// a record ends before its last field
    RecordTruncated, "record_truncated", File;
    /// bytes follow the last record
    RecordTrailing, "record_trailing", File;
    /// a variable-length integer is too long, not minimal or out of its field's range
    BadInteger, "bad_integer", File;
    /// a tag has no meaning
    BadTag, "bad_tag", File;
    /// a text is not UTF-8
    BadText, "bad_text", File;
    /// a name is empty
    EmptyName, "empty_name", File;
    /// a name occurs twice
    DuplicateName, "duplicate_name", File;
    /// an identifier refers to nothing
    IdRange, "id_range", File;
    /// a node reads a tensor before it is written
    NodeOrder, "node_order", File;
    /// a tensor is written twice, or an input is written
    TensorWrittenTwice, "tensor_written_twice", File;
    /// a tensor is neither an input nor written by a node
    TensorUnwritten, "tensor_unwritten", File;
    /// an input's dimensions are missing or wrong, or another tensor has some
    TensorDims, "tensor_dims", File;
    /// a symbol's range is empty or excludes its default
    SymbolRange, "symbol_range", File;
    /// a node has the wrong number of inputs
    Arity, "arity", File;
    /// a network has no input, no output or repeats one
    NetworkPorts, "network_ports", File;
    /// an attribute of an operator is out of range
    Attribute, "attribute", File;
    /// a number is not finite
    NotFinite, "not_finite", File;
    /// activation quantisation parameters contradict each other
    ActivationQuant, "activation_quant", File;
    /// a constant's size does not fit where it is used
    ConstantShape, "constant_shape", File;
    /// preprocessing values are out of range
    Preprocess, "preprocess", File;
    /// the pipeline has a stage that this reader does not know
    UnknownStage, "unknown_stage", Reader;
    /// a pipeline's stages are not those of a pipeline, or a value of one is out of range
    Pipeline, "pipeline", File;
    /// the self-test contradicts the network or itself
    SelfTest, "self_test", File;
    /// the self-test is larger than 1 KB
    SelfTestSize, "self_test_size", File;

    /// a layer's dimensions are zero, too large or not divisible by its groups
    LayerShape, "layer_shape", File;
    /// an operator uses a layer of another geometry than it needs
    LayerUse, "layer_use", File;
    /// a codebook is empty or too large
    Codebook, "codebook", File;
    /// the zero code is out of range or does not stand for zero
    ZeroCode, "zero_code", File;
    /// the number of value bits is out of range
    ValueBits, "value_bits", File;
    /// a step is missing, not finite or not positive
    Steps, "steps", File;
    /// the index mode does not fit the value kind
    IndexMode, "index_mode", File;
    /// the width of a gap is out of range
    GapBits, "gap_bits", File;
    /// a code table's lengths are not a complete prefix code
    CodeTable, "code_table", File;
    /// a code table's width is not 11 or 12, or less than its longest code
    TableWidth, "table_width", File;
    /// a gap table has a code for a gap that does not exist
    GapTable, "gap_table", File;
    /// a layer has no classes, too many, or blocks of an impossible length
    Classes, "classes", File;
    /// the classes of a layer's blocks cannot be decoded
    ClassMap, "class_map", File;
    /// a symbol stands for an impossible number of values, or its alphabet does not fit
    ValueGroup, "value_group", File;
    /// a layer's quantisation summary contradicts its values
    QuantSummary, "quant_summary", File;
    /// a tile has no weights or too many
    TileSize, "tile_size", File;
    /// tiles do not cover a layer exactly
    TileCoverage, "tile_coverage", File;
    /// a tile splits an input channel or a tap
    TileSplit, "tile_split", File;
    /// a tile's length in bytes is impossible
    TileLength, "tile_length", File;
    /// a tile records an impossible number of present weights
    TilePresent, "tile_present", File;
    /// tiles do not tile the weights section
    WeightsTiling, "weights_tiling", File;
    /// constants do not tile the constants section
    ConstantsTiling, "constants_tiling", File;

    /// a tile does not match its checksum
    TileChecksum, "tile_checksum", File;
    /// a constant does not match its checksum
    ConstantChecksum, "constant_checksum", File;
    /// a tile ends inside a header, a mask or a stream
    StreamTruncated, "stream_truncated", File;
    /// bytes follow the last stream of a tile
    StreamTrailing, "stream_trailing", File;
    /// a stream ends before its last symbol
    StreamOverrun, "stream_overrun", File;
    /// a stream has bytes after its last symbol
    StreamUnused, "stream_unused", File;
    /// the bits after the last code of a stream are not zero
    StreamPadding, "stream_padding", File;
    /// a stream has a bit pattern that is no code
    StreamCode, "stream_code", File;
    /// a mask marks another number of weights than recorded
    MaskCount, "mask_count", File;
    /// gaps lead past the end of a tile
    GapOverrun, "gap_overrun", File;
    /// a code has no value
    CodeRange, "code_range", File;
    /// a weight marked present is zero
    PresentZero, "present_zero", File;
    /// a padding lane is not zero
    PaddingLane, "padding_lane", File;
    /// a weight is not finite
    WeightNotFinite, "weight_not_finite", File;
    /// the recorded largest |q| is wrong
    MaxAbsQ, "max_abs_q", File;
    /// the recorded sums of q are wrong
    QSums, "q_sums", File;
    /// the recorded number of zeros is wrong
    ZeroCount, "zero_count", File;

    /// a limit of the caller is exceeded
    LimitExceeded, "limit_exceeded", Limit;
    /// there is no such network, layer, tile or constant
    NoSuchItem, "no_such_item", Caller;
    /// a buffer has the wrong size
    BufferSize, "buffer_size", Caller;
    /// the layer cannot be decoded to codes
    NoCodes, "no_codes", Caller;
    /// what should be written cannot be expressed in the format
    Input, "input", Caller;
    /// the output exists and is not a regular file
    NotRegularFile, "not_regular_file", Caller;
    /// reading or writing failed
    Io, "io", Io;
}

/// An error with its place. See the [module](self) for what it tells.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    detail: String,
    section: Option<String>,
    layer: Option<String>,
    offset: Option<u64>,
    io: Option<std::io::Error>,
}

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    #[cold]
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Error(Box::new(Inner {
            kind,
            detail,
            section: None,
            layer: None,
            offset: None,
            io: None,
        }))
    }
    #[cold]
    pub(crate) fn io(error: std::io::Error, detail: impl Into<String>) -> Self {
        let mut this = Error::new(ErrorKind::Io, detail);
        this.0.io = Some(error);
        this
    }
    /// Adds the section unless one is known already.
    pub(crate) fn in_section(mut self, section: impl fmt::Display) -> Self {
        self.0.section.get_or_insert_with(|| section.to_string());
        self
    }
    /// Adds the layer unless one is known already.
    pub(crate) fn in_layer(mut self, layer: &str) -> Self {
        self.0.layer.get_or_insert_with(|| layer.to_owned());
        self
    }
    /// Adds the byte offset within the file unless one is known already.
    pub(crate) fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// A layer has more weights than its record of zeros leaves, found by a reader that relies on it.
    #[cold]
    pub fn zero_count(layer: &str) -> Error {
        Error::new(ErrorKind::ZeroCount, "").in_layer(layer)
    }

    /// The rule that was broken.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        self.0.kind.fault()
    }
    /// The section concerned, as `KIND` or `KIND of NETWORK`.
    pub fn section(&self) -> Option<&str> {
        self.0.section.as_deref()
    }
    /// The layer concerned.
    pub fn layer(&self) -> Option<&str> {
        self.0.layer.as_deref()
    }
    /// Byte offset within the file.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        // Who has to act comes first; the kinds of the others say it themselves.
        f.write_str(match inner.kind.fault() {
            Fault::File => "malformed file: ",
            Fault::Reader => "newer reader needed: ",
            Fault::Limit | Fault::Caller | Fault::Io => "",
        })?;
        f.write_str(inner.kind.text().trim())?;
        if !inner.detail.is_empty() {
            write!(f, ": {}", inner.detail)?;
        }
        if let Some(io) = &inner.io {
            write!(f, ": {io}")?;
        }
        let mut separator = " (";
        for (label, value) in [("section", &inner.section), ("layer", &inner.layer)] {
            if let Some(value) = value {
                write!(f, "{separator}{label} {value}")?;
                separator = ", ";
            }
        }
        if let Some(offset) = inner.offset {
            write!(f, "{separator}offset {offset}")?;
            separator = ", ";
        }
        f.write_str(if separator == ", " { ")" } else { "" })
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.io.as_ref().map(|e| e as _)
    }
}
