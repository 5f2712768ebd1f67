//! Weights that stay in memory between runs, shared by all sessions of a model.
//!
//! A layer is kept in one of four forms: as codes (i8 or u8, a byte per weight), as f32 panels, or transformed for one
//! size of Winograd, in f32 or 16 bits. All give the bits that decoding in every run gives. The model remembers what exists by weak
//! references: the last session that lets go of a layer frees it.

use crate::error::{Error, ErrorKind, Result};
use crate::exec::{self, Worker};
use crate::fft;
use crate::liveness;
use crate::parts::split_scratch;
use crate::threads::Team;
use crate::weights::{self, LayerInfo, TileBuffer};
use bytemuck::Zeroable;
use dcz_format::graph::LayerId;
use dcz_format::layer::{Layer, Tile};
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

    /// Whether all tiles go to one place, so that one thread makes it.
    fn is_whole(self) -> bool {
        matches!(
            self,
            ResidentForm::Fft(_) | ResidentForm::Lists(..) | ResidentForm::LinearLists
        )
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

/// A layer that a plan keeps.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub index: usize,
    pub form: ResidentForm,
    pub layer: &'a Layer,
    pub info: &'a LayerInfo,
}

/// Where weights come from, and what they are made for.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub container: &'a Container,
    pub net: usize,
    pub isa: Isa,
    /// Drop the mapped pages of a layer after its use.
    pub release: bool,
}

impl Residents {
    /// Layers in their forms, from another session or decoded now, by all `decoders` at once as far as the scratch has
    /// room for them.
    pub(crate) fn get(
        &self,
        source: Source<'_>,
        team: &Team,
        workers: &mut [Worker],
        scratch: &mut [f32],
        wanted: &[Wanted<'_>],
    ) -> Result<Vec<Arc<ResidentLayer>>> {
        let key = |w: &Wanted<'_>| Key {
            net: source.net,
            layer: w.index,
            form: w.form,
            isa: source.isa.name(),
        };
        // The map is consistent between any two statements. The lock is held while decoding, so that no layer is
        // decoded twice.
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |w| layers.get(&key(w)).and_then(Weak::upgrade);
        let mut kept: Vec<Option<Arc<ResidentLayer>>> = wanted.iter().map(found).collect();
        let missing = || wanted.iter().zip(&kept).filter(|(_, kept)| kept.is_none());
        let needs = missing().map(|(w, _)| load_scratch(w.form, w.layer));
        let needs = needs.max().unwrap_or(0).max(1);
        let threads = (scratch.len() / needs).clamp(1, workers.len().max(1));
        let mut loaders: Vec<Loader<'_>> = (workers.iter_mut())
            .zip(split_scratch(scratch, threads))
            .map(|(worker, scratch)| Loader {
                source,
                decoder: &mut worker.decoder,
                scratch,
                made: Vec::new(),
                outcome: Ok(()),
            })
            .collect();
        // Layers that cannot be split, side by side; then the others, one after the other on all threads.
        let whole: Vec<usize> = (0..wanted.len())
            .filter(|&i| kept[i].is_none() && wanted[i].form.is_whole())
            .collect();
        each(team, &mut loaders, whole.into_iter(), |loader, i| {
            let made = loader.whole(&wanted[i])?;
            loader.made.push((i, made));
            Ok(())
        })?;
        let made = loaders.iter_mut().flat_map(|l| l.made.drain(..));
        made.for_each(|(i, layer)| kept[i] = Some(Arc::new(layer)));
        for (wanted, kept) in wanted.iter().zip(&mut kept) {
            if kept.is_none() {
                *kept = Some(Arc::new(tiles(team, &mut loaders, wanted)?));
            }
        }
        layers.retain(|_, layer| layer.strong_count() > 0);
        for (wanted, kept) in wanted.iter().zip(kept.iter().flatten()) {
            layers.insert(key(wanted), Arc::downgrade(kept));
        }
        Ok(kept.into_iter().flatten().collect())
    }
}

/// f32 elements of scratch for making a layer: a decoded tile, and what the form needs beside it.
pub(crate) fn load_scratch(form: ResidentForm, layer: &Layer) -> usize {
    let tile = liveness::round(weights::tile_len(layer));
    tile + match form {
        ResidentForm::Codes | ResidentForm::Float | ResidentForm::Winograd(_) => 0,
        // A panel before it is narrowed.
        ResidentForm::Winograd16(size) => winograd::panel_len(size, &geometry(layer)),
        ResidentForm::Fft(shape) => fft::needs(&shape).map_or(0, |needs| needs.load),
        ResidentForm::Lists(_, shape) => sparse::fill_workspace(&shape),
        ResidentForm::LinearLists => linear_sparse::FILL_WORKSPACE,
    }
}

/// What one thread makes layers with.
struct Loader<'a> {
    source: Source<'a>,
    decoder: &'a mut TileDecoder,
    /// Room for a tile, and what the form needs.
    scratch: &'a mut [f32],
    /// Whole layers.
    made: Vec<(usize, ResidentLayer)>,
    outcome: Result<()>,
}

/// Hands the jobs out to the threads.
fn each<'a, J: Send>(
    team: &Team,
    loaders: &mut [Loader<'a>],
    jobs: impl Iterator<Item = J> + Send,
    f: impl Fn(&mut Loader<'a>, J) -> Result<()> + Sync,
) -> Result<()> {
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    team.for_each(loaders, |_, loader| {
        while loader.outcome.is_ok()
            && let Some(job) = next()
        {
            loader.outcome = f(loader, job);
        }
    });
    let mut outcomes = loaders.iter_mut();
    outcomes.try_for_each(|l| std::mem::replace(&mut l.outcome, Ok(())))
}

/// Where a tile of a layer goes.
struct Room<'a> {
    words: &'a mut [f32],
    q: &'a mut [i16],
    scales: &'a mut [f32],
}

/// Makes a layer whose tiles do not depend on each other.
fn tiles(team: &Team, loaders: &mut [Loader<'_>], wanted: &Wanted<'_>) -> Result<ResidentLayer> {
    let Wanted {
        form, layer, info, ..
    } = *wanted;
    let shape = geometry(layer);
    let lens = |t: &Tile| -> (usize, usize, usize) {
        let transformed =
            |size| winograd::panel_len(size, &shape).saturating_mul(t.panels as usize);
        match form {
            ResidentForm::Winograd(size) => (transformed(size), 0, 0),
            ResidentForm::Winograd16(size) => {
                let scales = winograd::scales_len(size) * t.panels as usize;
                (0, transformed(size), scales)
            }
            _ => (weights::tile_room(layer, t, tile_form(form, info)), 0, 0),
        }
    };
    let sum = |part: fn((usize, usize, usize)) -> usize| {
        let lens = layer.tiles.iter().map(|t| part(lens(t)));
        lens.fold(0, usize::saturating_add)
    };
    let mut words = zeros(sum(|(words, ..)| words))?;
    let mut q = zeros(sum(|(_, q, _)| q))?;
    let mut scales = zeros(sum(|(.., scales)| scales))?;
    let mut rest = (&mut *words, &mut *q, &mut *scales);
    let rooms = layer.tiles.iter().map_while(|tile| {
        let lens = lens(tile);
        Some(Room {
            words: rest.0.split_off_mut(..lens.0)?,
            q: rest.1.split_off_mut(..lens.1)?,
            scales: rest.2.split_off_mut(..lens.2)?,
        })
    });
    each(team, loaders, rooms.enumerate(), |loader, (index, room)| {
        loader.tile(wanted, &shape, index, room)
    })?;
    if let Some(loader) = loaders.first() {
        loader.source.release(wanted);
    }
    Ok(match form {
        ResidentForm::Winograd(_) => ResidentLayer::Winograd(words),
        ResidentForm::Winograd16(_) => ResidentLayer::Winograd16 { q, scales },
        _ => ResidentLayer::Tiles(weights::kept(layer, tile_form(form, info), words)),
    })
}

/// The form of kept tiles.
fn tile_form(form: ResidentForm, info: &LayerInfo) -> TileForm {
    match form {
        ResidentForm::Float => TileForm::F32,
        _ => info.form,
    }
}

impl Source<'_> {
    fn release(&self, wanted: &Wanted<'_>) {
        if self.release {
            exec::release(self.container, self.net, wanted.index, wanted.layer);
        }
    }
}

impl Loader<'_> {
    /// Makes a tile of a layer.
    fn tile(
        &mut self,
        wanted: &Wanted<'_>,
        shape: &ConvShape,
        index: usize,
        room: Room<'_>,
    ) -> Result<()> {
        let Wanted {
            form, layer, info, ..
        } = *wanted;
        let id = LayerId(wanted.index as u32);
        let Some(size) = form.transform() else {
            let mut tile = TileBuffer::over(room.words);
            let (source, form) = (self.source, tile_form(form, info));
            return tile.decode(self.decoder, source.container, source.net, id, index, form);
        };
        self.decoded(id, layer, info, index, |isa, tile, scratch| {
            if let ResidentForm::Winograd(_) = form {
                winograd::transform(isa, size, shape, tile, room.words);
                return Ok(());
            }
            let panel = winograd::panel_len(size, shape);
            let scratch = scratch.get_mut(..panel).ok_or_else(panels)?;
            // The planner has looked: codes this small always fit.
            if !winograd::transform_16(isa, size, shape, tile, room.q, room.scales, scratch) {
                return Err(Error::internal("weights beyond 16 bits"));
            }
            Ok(())
        })
    }

    /// Makes a layer whose tiles go to one place.
    fn whole(&mut self, wanted: &Wanted<'_>) -> Result<ResidentLayer> {
        let (layer, info) = (wanted.layer, wanted.info);
        let id = LayerId(wanted.index as u32);
        let made = match wanted.form {
            ResidentForm::Fft(shape) => {
                let mut weights = fft::Transformed::new(self.source.isa, &shape)?;
                self.each_tile(id, layer, info, |_, tile, scratch| {
                    weights.add(tile, scratch)
                })?;
                ResidentLayer::Fft(Box::new(weights))
            }
            ResidentForm::LinearLists => ResidentLayer::Lists(self.linear_lists(id, layer, info)?),
            ResidentForm::Lists(group, shape) => {
                ResidentLayer::Lists(self.lists(id, layer, info, group, shape)?)
            }
            _ => return Err(Error::internal("form of a layer")),
        };
        self.source.release(wanted);
        Ok(made)
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
        (0..layer.tiles.len()).try_for_each(|tile| self.decoded(id, layer, info, tile, &mut f))
    }

    /// Decodes a tile into the scratch.
    fn decoded(
        &mut self,
        id: LayerId,
        layer: &Layer,
        info: &LayerInfo,
        tile: usize,
        f: impl FnOnce(Isa, &WeightTile<'_>, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let Source {
            container,
            net,
            isa,
            ..
        } = self.source;
        let room = liveness::round(weights::tile_len(layer));
        let (buffer, scratch) = self.scratch.split_at_mut_checked(room).ok_or_else(panels)?;
        let mut buffer = TileBuffer::over(buffer);
        buffer.decode(self.decoder, container, net, id, tile, info.form)?;
        let (tile, _) = buffer.view(layer, info)?;
        f(isa, &tile, scratch)
    }
}

/// Bytes of a layer in a form.
pub(crate) fn bytes(layer: &Layer, info: &LayerInfo, form: ResidentForm) -> u64 {
    let bytes = match form {
        ResidentForm::Codes => weights::kept_bytes(layer, layer.form()),
        ResidentForm::Float => weights::kept_bytes(layer, TileForm::F32),
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

/// Memory for `len` values; a size that a file asks for must not abort the process. Fresh pages of the system are zero already,
/// so nothing is written twice.
pub(crate) fn zeros<T: Zeroable>(len: usize) -> Result<Box<[T]>> {
    let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
    let zeros = bytemuck::allocation::try_zeroed_slice_box(len);
    zeros.map_err(|()| ErrorKind::OutOfMemory(bytes).into())
}
