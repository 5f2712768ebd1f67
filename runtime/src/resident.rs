//! Weights that stay in memory between runs, shared by all sessions of a model.
//!
//! A layer is kept in one of four forms: as codes (i8 or u8, a byte per weight), as f32 panels, or transformed for one
//! size of Winograd, in f32 or 16 bits. All give the bits that decoding in every run gives. The model remembers what exists by weak
//! references: the last session that lets go of a layer frees it.

use crate::error::{Error, ErrorKind, Result};
use crate::fft;
use crate::liveness;
use crate::weights::{self, LayerInfo, TileBuffer};
use dcz_format::graph::LayerId;
use dcz_format::layer::Layer;
use dcz_format::{Container, TileDecoder, TileForm};
use dcz_kernels::winograd::{self, Winograd};
use dcz_kernels::{ConvShape, Isa, WeightTile, linear_sparse, sparse};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How a layer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ResidentForm {
    /// Decoded to codes; layers without codes to f32.
    Codes,
    /// Decoded to f32.
    Float,
    /// Transformed.
    Winograd(Winograd),
    /// Transformed, in 16 bits: only where that loses nothing ([`fits_16`]).
    Winograd16(Winograd),
    /// In the frequency domain, for maps of this size.
    Fft(ConvShape),
    /// Lists of what is not zero for groups of so many output channels, for maps of this size.
    Lists(usize, ConvShape),
    /// The same of a linear layer, for single output channels.
    LinearLists,
}

impl ResidentForm {
    /// The size of transformed weights.
    pub(crate) fn transform(self) -> Option<Winograd> {
        match self {
            ResidentForm::Winograd(size) | ResidentForm::Winograd16(size) => Some(size),
            _ => None,
        }
    }
}

/// The weights of one layer.
#[derive(Debug)]
pub(crate) enum ResidentLayer {
    /// All tiles.
    Tiles(Box<[TileBuffer]>),
    /// All panels, transformed.
    Winograd(Box<[f32]>),
    /// The same in 16 bits.
    Winograd16 { q: Box<[i16]>, scales: Box<[f32]> },
    /// In the frequency domain.
    Fft(Box<fft::Transformed>),
    /// Lists of what is not zero.
    Lists(Lists),
}

impl ResidentLayer {
    /// Transformed weights from panel `first` of `panels` on.
    pub(crate) fn transformed(
        &self,
        first: usize,
        panels: usize,
    ) -> Option<winograd::Resident<'_>> {
        let from = |len: usize| first * (len / panels.max(1));
        match self {
            ResidentLayer::Tiles(_) | ResidentLayer::Fft(_) | ResidentLayer::Lists(_) => None,
            ResidentLayer::Winograd(weights) => {
                let weights = weights.get(from(weights.len())..)?;
                Some(winograd::Resident::F32(weights))
            }
            ResidentLayer::Winograd16 { q, scales } => Some(winograd::Resident::I16 {
                q: q.get(from(q.len())..)?,
                scales: scales.get(from(scales.len())..)?,
            }),
        }
    }
}

/// Lists of what is not zero, see [`sparse`].
#[derive(Debug)]
pub(crate) struct Lists {
    starts: Box<[u32]>,
    places: Box<[u16]>,
    values: Box<[f32]>,
    /// Output channels of a group.
    pub group: usize,
    /// The convolution they were made for; of linear layers no map.
    pub shape: ConvShape,
}

impl Lists {
    /// As kernels read them.
    pub(crate) fn view(&self) -> sparse::Lists<'_> {
        sparse::Lists {
            starts: &self.starts,
            places: &self.places,
            values: &self.values,
        }
    }
}

/// What a layer by FFT needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FftNeeds {
    /// Bytes of transformed weights and plan.
    pub resident: usize,
    /// f32 elements of scratch of a thread.
    pub run: usize,
    /// f32 elements of scratch for transforming weights.
    pub load: usize,
}

/// Whether 16 bits hold the transformed weights of a layer without loss.
pub(crate) fn fits_16(size: Winograd, layer: &Layer, info: &LayerInfo) -> bool {
    info.max_multiple(layer)
        .is_some_and(|most| winograd::fits_16(size, most))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    net: usize,
    layer: usize,
    form: ResidentForm,
    /// Transforms round differently on different instruction sets.
    isa: &'static str,
}

/// What the sessions of a model keep.
#[derive(Debug, Default)]
pub(crate) struct Residents {
    layers: Mutex<HashMap<Key, Weak<ResidentLayer>>>,
}

/// Where to decode from, and what to do it with.
pub(crate) struct Loader<'a> {
    pub container: &'a Container,
    pub net: usize,
    pub isa: Isa,
    pub decoder: &'a mut TileDecoder,
    /// As much as a plan with transformed weights has: room for a tile, and for a panel.
    pub scratch: &'a mut [f32],
}

impl Residents {
    /// A layer in a form, from another session or decoded now.
    pub(crate) fn get(
        &self,
        loader: &mut Loader<'_>,
        index: usize,
        form: ResidentForm,
        layer: &Layer,
        info: &LayerInfo,
    ) -> Result<Arc<ResidentLayer>> {
        let key = Key {
            net: loader.net,
            layer: index,
            form,
            isa: loader.isa.name(),
        };
        // The map is consistent between any two statements. The lock is held while decoding, so that no layer is
        // decoded twice.
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = layers.get(&key).and_then(Weak::upgrade) {
            return Ok(found);
        }
        let made = Arc::new(loader.load(index, form, layer, info)?);
        layers.retain(|_, layer| layer.strong_count() > 0);
        layers.insert(key, Arc::downgrade(&made));
        Ok(made)
    }
}

impl Loader<'_> {
    fn load(
        &mut self,
        index: usize,
        form: ResidentForm,
        layer: &Layer,
        info: &LayerInfo,
    ) -> Result<ResidentLayer> {
        let id = LayerId(index as u32);
        let size = match form {
            ResidentForm::Codes => return self.tiles(id, layer, info.form),
            ResidentForm::Float => return self.tiles(id, layer, TileForm::F32),
            ResidentForm::Winograd(size) | ResidentForm::Winograd16(size) => size,
            ResidentForm::Fft(shape) => {
                let mut weights = fft::Transformed::new(self.isa, &shape)?;
                self.each_tile(id, layer, info, |_, tile, scratch| {
                    weights.add(tile, scratch)
                })?;
                return Ok(ResidentLayer::Fft(Box::new(weights)));
            }
            ResidentForm::LinearLists => {
                return Ok(ResidentLayer::Lists(self.linear_lists(id, layer, info)?));
            }
            ResidentForm::Lists(group, shape) => {
                let lists = self.lists(id, layer, info, group, shape)?;
                return Ok(ResidentLayer::Lists(lists));
            }
        };
        let shape = geometry(layer);
        let (panel, scales) = (
            winograd::panel_len(size, &shape),
            winograd::scales_len(size),
        );
        let len = panel.saturating_mul(shape.panels());
        if form == ResidentForm::Winograd(size) {
            let mut weights = zeros(len)?;
            let mut rest = &mut *weights;
            self.each_tile(id, layer, info, |isa, tile, _| {
                let out = rest.split_off_mut(..panel.saturating_mul(tile.panels));
                winograd::transform(isa, size, &shape, tile, out.ok_or_else(panels)?);
                Ok(())
            })?;
            return Ok(ResidentLayer::Winograd(weights));
        }
        let mut q = zeros(len)?;
        let mut all_scales = zeros(scales.saturating_mul(shape.panels()))?;
        let (mut rest, mut rest_scales) = (&mut *q, &mut *all_scales);
        self.each_tile(id, layer, info, |isa, tile, scratch| {
            let out = rest.split_off_mut(..panel.saturating_mul(tile.panels));
            let scales = rest_scales.split_off_mut(..scales.saturating_mul(tile.panels));
            let (out, scales) = (out.ok_or_else(panels)?, scales.ok_or_else(panels)?);
            let scratch = scratch.get_mut(..panel).ok_or_else(panels)?;
            // The planner has looked: codes this small always fit.
            if !winograd::transform_16(isa, size, &shape, tile, out, scales, scratch) {
                return Err(Error::internal("weights beyond 16 bits"));
            }
            Ok(())
        })?;
        Ok(ResidentLayer::Winograd16 {
            q,
            scales: all_scales,
        })
    }

    /// Decodes a layer twice: counts, then writes.
    fn lists(
        &mut self,
        id: LayerId,
        layer: &Layer,
        info: &LayerInfo,
        group: usize,
        shape: ConvShape,
    ) -> Result<Lists> {
        let mut starts = zeros(sparse::starts_len(&shape, group))?;
        self.each_tile(id, layer, info, |isa, tile, scratch| {
            sparse::count(isa, &shape, group, tile, &mut starts, scratch);
            Ok(())
        })?;
        let entries = sparse::finish_count(&mut starts);
        // The plan counts what the file says.
        let entries = entries.filter(|&n| n as u64 <= info.entries(group));
        let entries = entries.ok_or_else(|| dcz_format::Error::zero_count(&layer.name))?;
        let (mut places, mut values) = (zeros(entries)?, zeros(entries * group)?);
        self.each_tile(id, layer, info, |isa, tile, scratch| {
            let (places, values) = (&mut places, &mut values);
            sparse::fill(isa, &shape, group, tile, &starts, places, values, scratch);
            Ok(())
        })?;
        Ok(Lists {
            starts,
            places,
            values,
            group,
            shape,
        })
    }

    /// The same for a linear layer.
    fn linear_lists(&mut self, id: LayerId, layer: &Layer, info: &LayerInfo) -> Result<Lists> {
        let outputs = layer.shape.out_channels as usize;
        let mut starts = zeros(linear_sparse::starts_len(info.k, outputs))?;
        self.each_tile(id, layer, info, |isa, tile, scratch| {
            linear_sparse::count(isa, outputs, tile, &mut starts, scratch);
            Ok(())
        })?;
        let entries = sparse::finish_count(&mut starts);
        let entries = entries.filter(|&n| n as u64 <= info.entries(1));
        let entries = entries.ok_or_else(|| dcz_format::Error::zero_count(&layer.name))?;
        let (mut places, mut values) = (zeros(entries)?, zeros(entries)?);
        self.each_tile(id, layer, info, |isa, tile, scratch| {
            let (places, values) = (&mut places, &mut values);
            linear_sparse::fill(isa, outputs, tile, &mut starts, places, values, scratch);
            Ok(())
        })?;
        linear_sparse::finish_fill(&mut starts);
        Ok(Lists {
            starts,
            places,
            values,
            group: 1,
            shape: geometry(layer),
        })
    }

    /// Decodes tile after tile of a layer.
    fn each_tile(
        &mut self,
        id: LayerId,
        layer: &Layer,
        info: &LayerInfo,
        mut f: impl FnMut(Isa, &WeightTile<'_>, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        for tile in 0..layer.tiles.len() {
            let (decoder, net) = (&mut *self.decoder, self.net);
            let room = liveness::round(weights::tile_len(layer));
            let (buffer, scratch) = self.scratch.split_at_mut_checked(room).ok_or_else(panels)?;
            let mut buffer = TileBuffer::over(buffer);
            buffer.decode(decoder, self.container, net, id, tile, info.form)?;
            let (tile, _) = buffer.view(layer, info)?;
            f(self.isa, &tile, scratch)?;
        }
        Ok(())
    }

    fn tiles(&mut self, id: LayerId, layer: &Layer, form: TileForm) -> Result<ResidentLayer> {
        let mut tiles = Vec::with_capacity(layer.tiles.len());
        for (index, tile) in layer.tiles.iter().enumerate() {
            let mut buffer = TileBuffer::for_tile(layer, tile, form);
            buffer.decode(self.decoder, self.container, self.net, id, index, form)?;
            tiles.push(buffer);
        }
        Ok(ResidentLayer::Tiles(tiles.into()))
    }
}

/// Bytes of a layer in a form.
pub(crate) fn bytes(layer: &Layer, info: &LayerInfo, form: ResidentForm) -> u64 {
    let tiles = |form: TileForm| -> usize {
        let tiles = layer.tiles.iter();
        tiles.map(|t| TileBuffer::tile_bytes(layer, t, form)).sum()
    };
    let bytes = match form {
        ResidentForm::Codes => tiles(layer.form()),
        ResidentForm::Float => tiles(TileForm::F32),
        ResidentForm::Winograd(size) => {
            let shape = geometry(layer);
            let panel = winograd::panel_len(size, &shape);
            panel.saturating_mul(shape.panels() * size_of::<f32>())
        }
        ResidentForm::Winograd16(size) => {
            let shape = geometry(layer);
            let codes = winograd::panel_len(size, &shape).saturating_mul(size_of::<i16>());
            let scales = winograd::scales_len(size) * size_of::<f32>();
            codes.saturating_add(scales).saturating_mul(shape.panels())
        }
        ResidentForm::Fft(shape) => fft::needs(&shape).map_or(usize::MAX, |n| n.resident),
        ResidentForm::Lists(group, shape) => {
            let entry = size_of::<u16>() + group * size_of::<f32>();
            let starts = sparse::starts_len(&shape, group) * size_of::<u32>();
            (info.entries(group) as usize).saturating_mul(entry) + starts
        }
        ResidentForm::LinearLists => {
            let entry = size_of::<u16>() + size_of::<f32>();
            let outputs = layer.shape.out_channels as usize;
            let starts = linear_sparse::starts_len(info.k, outputs) * size_of::<u32>();
            (info.entries(1) as usize).saturating_mul(entry) + starts
        }
    };
    // The shared handle: two counters beside the enum.
    (bytes + size_of::<ResidentLayer>() + 2 * size_of::<usize>()) as u64
}

/// What transforming weights looks at: channels and groups, no map.
fn geometry(layer: &Layer) -> ConvShape {
    let shape = layer.shape;
    ConvShape {
        in_channels: (shape.in_per_group * shape.groups) as usize,
        out_channels: shape.out_channels as usize,
        groups: shape.groups as usize,
        kernel: shape.kernel.map(|k| k as usize),
        stride: [1, 1],
        dilation: [1, 1],
        pad_top: 0,
        pad_left: 0,
        in_h: 3,
        in_w: 3,
        out_h: 1,
        out_w: 1,
    }
}

#[cold]
fn panels() -> Error {
    Error::internal("panels of a layer")
}

fn zeros<T: Copy + Default>(len: usize) -> Result<Box<[T]>> {
    let mut values = Vec::new();
    let reserved = values.try_reserve_exact(len);
    let bytes = len as u64 * size_of::<T>() as u64;
    reserved.map_err(|_| Error::from(ErrorKind::OutOfMemory(bytes)))?;
    values.resize(len, T::default());
    Ok(values.into_boxed_slice())
}
