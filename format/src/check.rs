//! Verification of everything: every byte of the file, every tile, every constant, every recorded summary.
//!
//! Tiles and constants are verified before the checksum of their section, so that an error names the layer.

use crate::codec::gap_histogram;
use crate::container::Container;
use crate::decode::{TileDecoder, TileOut};
use crate::dense::for_each_weight;
use crate::directory::{ENTRY_BYTES, HEADER_BYTES, Section, SectionKind, read_range};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{ConstId, LayerId};
use crate::layer::*;
use crate::values::TileForm;

/// What [`Container::check`] went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Bytes of the file.
    pub bytes: u64,
    /// Sections.
    pub sections: usize,
    /// Sections of kinds that this version does not know.
    pub unknown_sections: usize,
    /// Networks.
    pub networks: usize,
    /// Layers.
    pub layers: usize,
    /// Tiles.
    pub tiles: usize,
    /// Weights, padding not included.
    pub weights: u64,
    /// Constants.
    pub constants: usize,
}

impl Container {
    /// Verifies every byte, every tile and every recorded summary. `progress(done, total)` counts bytes.
    pub fn check(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<CheckReport> {
        let total = self.source().len();
        let mut report = CheckReport {
            bytes: total,
            sections: self.sections().len(),
            unknown_sections: self
                .sections()
                .iter()
                .filter(|section| section.kind.is_none())
                .count(),
            networks: self.networks().len(),
            ..CheckReport::default()
        };
        let mut end = (HEADER_BYTES + self.sections().len() * ENTRY_BYTES) as u64;
        for section in self.sections() {
            self.check_padding(end..section.offset, section)?;
            let net = section.network.unwrap_or(0) as usize;
            match section.kind {
                Some(SectionKind::Weights) => {
                    self.check_weights(net, section, &mut report, progress)?
                }
                Some(SectionKind::Constants) => self.check_constants(net, section, &mut report)?,
                Some(SectionKind::Texts) => drop(self.texts()?),
                Some(
                    SectionKind::CodeTables
                    | SectionKind::Graph
                    | SectionKind::Pipeline
                    | SectionKind::Blocks,
                )
                | None => {}
            }
            self.check_crc(section)?;
            end = section.range().end;
            progress(end, total);
        }
        if let Some(last) = self.sections().last() {
            self.check_padding(end..total, last)?;
        }
        Ok(report)
    }

    fn check_padding(&self, range: std::ops::Range<u64>, section: &Section) -> Result<()> {
        let bytes = read_range(self.source(), range.clone())?;
        match bytes.iter().position(|byte| *byte != 0) {
            Some(at) => Err(Error::new(ErrorKind::Padding, "")
                .in_section(section)
                .at(range.start + at as u64)),
            None => Ok(()),
        }
    }

    fn check_crc(&self, section: &Section) -> Result<()> {
        const CHUNK: u64 = 1 << 20;
        let mut crc = 0;
        let mut at = section.offset;
        while at < section.range().end {
            let next = section.range().end.min(at + CHUNK);
            crc = crc32c::crc32c_append(crc, &read_range(self.source(), at..next)?);
            at = next;
        }
        if crc == section.crc {
            return Ok(());
        }
        Err(Error::new(ErrorKind::SectionChecksum, "")
            .in_section(section)
            .at(section.offset))
    }

    fn check_constants(
        &self,
        net: usize,
        section: &Section,
        report: &mut CheckReport,
    ) -> Result<()> {
        let mut end = section.offset;
        let mut values = Vec::new();
        for (index, constant) in self.network(net)?.constants.iter().enumerate() {
            let id = ConstId(index as u32);
            let (_, range) = self.constant_range(net, id)?;
            self.check_padding(end..range.start, section)?;
            values.clear();
            values.resize(constant.value_count().unwrap_or(0), 0.0);
            self.constant(net, id, &mut values)?;
            if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
                let error = Error::new(
                    ErrorKind::NotFinite,
                    format!("constant {}, value {bad}", constant.name),
                );
                return Err(error.in_section(section).at(range.start));
            }
            end = range.end;
            report.constants += 1;
        }
        Ok(())
    }

    fn check_weights(
        &self,
        net: usize,
        section: &Section,
        report: &mut CheckReport,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let mut decoder = TileDecoder::keeping_tables(self, net)?;
        let mut end = section.offset;
        for (index, layer) in self.network(net)?.layers.iter().enumerate() {
            let id = LayerId(index as u32);
            let mut check = LayerCheck::new(layer);
            for index in 0..layer.tiles.len() {
                let (tile, range) = self.tile(net, id, index)?;
                self.check_padding(end..range.start, section)
                    .map_err(|e| e.in_layer(&layer.name))?;
                check
                    .tile(self, &mut decoder, net, id, index, tile)
                    .map_err(|e| e.in_section(section).in_layer(&layer.name).at(range.start))?;
                end = range.end;
                progress(end, self.source().len());
            }
            check
                .finish()
                .map_err(|e| e.in_section(section).in_layer(&layer.name))?;
            report.layers += 1;
            report.tiles += layer.tiles.len();
            report.weights += layer.shape.weights();
        }
        Ok(())
    }
}

/// Summaries of one layer, collected tile by tile.
struct LayerCheck<'a> {
    layer: &'a Layer,
    codes: Vec<u8>,
    values: Vec<f32>,
    q_sums: Vec<i32>,
    zeros: u64,
}

impl<'a> LayerCheck<'a> {
    fn new(layer: &'a Layer) -> Self {
        LayerCheck {
            layer,
            codes: Vec::new(),
            values: Vec::new(),
            q_sums: vec![0; layer.q_sums.len()],
            zeros: 0,
        }
    }

    fn tile(
        &mut self,
        container: &Container,
        decoder: &mut TileDecoder,
        net: usize,
        id: LayerId,
        index: usize,
        tile: &Tile,
    ) -> Result<()> {
        self.values.clear();
        self.values.resize(tile.weights(), 0.0);
        decoder.decode(container, net, id, index, TileOut::F32(&mut self.values))?;
        self.check_values(tile)?;
        if self.layer.form() != TileForm::F32 {
            self.codes.clear();
            self.codes.resize(tile.weights(), 0);
            decoder.decode(container, net, id, index, TileOut::Codes(&mut self.codes))?;
            self.check_codes(tile, decoder.mask(tile))
        } else if !matches!(self.layer.index, Index::Raw) {
            self.check_full_codebook(tile, decoder.mask(tile))
        } else {
            Ok(())
        }
    }

    /// Finite, padding lanes positive zero; counts the zeros of layers without codes.
    fn check_values(&mut self, tile: &Tile) -> Result<()> {
        if self.values.iter().any(|value| !value.is_finite()) {
            return Err(Error::new(ErrorKind::WeightNotFinite, ""));
        }
        let (mut padding_ok, mut zeros) = (true, 0);
        for_each_weight(
            &self.layer.shape,
            self.layer.k_order,
            tile,
            |at, real| match real {
                Some(_) => zeros += u64::from(self.values[at] == 0.0),
                None => padding_ok &= self.values[at].to_bits() == 0,
            },
        );
        if matches!(self.layer.index, Index::Raw) {
            self.zeros += zeros;
        }
        if padding_ok {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::PaddingLane, ""))
        }
    }

    /// Every code has a value, padding is the zero symbol, present weights are not, summaries of q.
    fn check_codes(&mut self, tile: &Tile, mask: &[u8]) -> Result<()> {
        let layer = self.layer;
        let Some(zero) = layer.fill_code() else {
            return Ok(());
        };
        let grid = matches!(layer.values, Values::Grid { .. });
        let codes = layer.values.codes();
        let width = layer.shape.k();
        let (mut largest, mut padding_ok, mut range_ok, mut present_ok) = (0, true, true, true);
        let sparse = layer.is_sparse();
        for_each_weight(&layer.shape, layer.k_order, tile, |at, real| {
            let code = self.codes[at];
            let is_zero = code == zero;
            let present = mask[at / PANEL] >> (at % PANEL) & 1 == 1;
            range_ok &= is_zero
                || if grid {
                    code != 128
                } else {
                    usize::from(code) < codes
                };
            present_ok &= !sparse || present != is_zero;
            match real {
                Some(oihw) => {
                    self.zeros += u64::from(is_zero);
                    if let Some(sum) = self.q_sums.get_mut(oihw / width) {
                        *sum += i32::from(code as i8);
                    }
                }
                None => padding_ok &= is_zero,
            }
            if grid {
                largest = largest.max((code as i8).unsigned_abs());
            }
        });
        for (ok, kind) in [
            (range_ok, ErrorKind::CodeRange),
            (padding_ok, ErrorKind::PaddingLane),
            (present_ok, ErrorKind::PresentZero),
            (largest == tile.max_abs_q, ErrorKind::MaxAbsQ),
        ] {
            if !ok {
                return Err(Error::new(
                    kind,
                    format!("tile at panel {}, k {}", tile.panel, tile.k),
                ));
            }
        }
        if let Index::Gaps { bits, .. } = layer.index {
            // The mask does not tell fillers; every other present weight is one that is not zero.
            let real: u64 = mask.iter().map(|byte| u64::from(byte.count_ones())).sum();
            let fillers = gap_histogram(mask, bits, &mut [0; 256]).unwrap_or(u64::MAX);
            if Some(u64::from(tile.present)) != real.checked_add(fillers) {
                let detail = format!(
                    "{} present, {real} and {fillers} fillers expected",
                    tile.present
                );
                return Err(Error::new(ErrorKind::PresentZero, detail));
            }
        }
        Ok(())
    }

    /// All 256 codes have values other than zero: only the mask tells zeros.
    fn check_full_codebook(&mut self, tile: &Tile, mask: &[u8]) -> Result<()> {
        let mut padding_ok = true;
        for_each_weight(&self.layer.shape, self.layer.k_order, tile, |at, real| {
            let present = mask[at / PANEL] >> (at % PANEL) & 1 == 1;
            match real {
                Some(_) => self.zeros += u64::from(!present),
                None => padding_ok &= !present,
            }
        });
        if padding_ok {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::PaddingLane, ""))
        }
    }

    fn finish(self) -> Result<()> {
        if self.q_sums != self.layer.q_sums {
            return Err(Error::new(ErrorKind::QSums, ""));
        }
        if self.zeros != self.layer.record.zeros {
            let detail = format!(
                "{} counted, {} recorded",
                self.zeros, self.layer.record.zeros
            );
            return Err(Error::new(ErrorKind::ZeroCount, detail));
        }
        Ok(())
    }
}
