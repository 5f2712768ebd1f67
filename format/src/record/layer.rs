//! Layers and their tiles.
//!
//! What follows from the position of a tile is not stored: tiles come in panel order, then k order, and lie in the
//! weights section one after the other, each at the next multiple of [`ALIGN`]. The reader fills in the rest of
//! [`Tile`] and refuses tiles that do not cover their layer exactly.

use super::op::{read_pair, write_pair};
use super::{Reader, Writer, class_map};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::*;
use crate::limits::Limits;
use crate::validate::check_shape;

/// Alignment of tiles and constants within their sections.
pub(crate) const ALIGN: u64 = 4;

pub(super) fn write_layer(w: &mut Writer, layer: &Layer) {
    w.text(&layer.name);
    w.uint(layer.shape.out_channels);
    w.uint(layer.shape.in_per_group);
    write_pair(w, layer.shape.kernel);
    w.uint(layer.shape.groups);
    w.u8(match layer.k_order {
        KOrder::ChannelMajor => 0,
        KOrder::TapMajor => 1,
    });
    write_values(w, &layer.values);
    write_index(w, &layer.index);
    w.u8(layer.max_abs_q);
    w.bool(layer.symmetric_i8);
    w.list(&layer.q_sums, |w, sum| w.int32(*sum));
    w.list(&layer.tiles, |w, tile| {
        w.uint(tile.panels);
        w.uint(tile.k_len);
        w.uint(tile.len);
        w.uint(tile.present);
        w.u8(tile.max_abs_q);
        w.u32(tile.crc);
    });
    let record = &layer.record;
    w.uint(record.zeros);
    w.u8(record.value_bits);
    w.u8(record.index_bits);
    w.uint(record.fillers);
    w.uint(record.value_payload_bits);
    w.uint(record.value_table_bits);
    w.uint(record.index_payload_bits);
    w.uint(record.index_table_bits);
    w.f32s(&[record.cosine, record.max_error]);
}

/// `weights_end` is the running end of the weights section, `tiles_left` the rest of the caller's limit.
pub(super) fn read_layer(
    r: &mut Reader<'_>,
    limits: &Limits,
    weights_end: &mut u64,
    tiles_left: &mut usize,
) -> Result<Layer> {
    let name = r.text("layer name")?;
    read_body(r, limits, weights_end, tiles_left, &name)
        .map_err(|e| e.at(r.offset()).in_layer(&name))
}

fn read_body(
    r: &mut Reader<'_>,
    limits: &Limits,
    weights_end: &mut u64,
    tiles_left: &mut usize,
    name: &str,
) -> Result<Layer> {
    let shape = LayerShape {
        out_channels: r.uint32("output channels")?,
        in_per_group: r.uint32("input channels")?,
        kernel: read_pair(r, "kernel")?,
        groups: r.uint32("groups")?,
    };
    check_shape(&shape, limits)?;
    let k_order = match r.u8("k order")? {
        0 => KOrder::ChannelMajor,
        1 => KOrder::TapMajor,
        tag => return Err(r.bad_tag("k order", tag)),
    };
    let values = read_values(r, &shape)?;
    let index = read_index(r, &shape)?;
    let max_abs_q = r.u8("largest |q|")?;
    let symmetric_i8 = r.bool("symmetric i8")?;
    let q_sums = r.list("sums of q", shape.out_channels.into(), 1, |r| {
        r.int32("sum of q")
    })?;
    let tiles = read_tiles(r, &shape, weights_end, tiles_left)?;
    let record = CompressionRecord {
        zeros: r.uint("zeros")?,
        value_bits: r.u8("value bits")?,
        index_bits: r.u8("index bits")?,
        fillers: r.uint("fillers")?,
        value_payload_bits: r.uint("value payload")?,
        value_table_bits: r.uint("value table")?,
        index_payload_bits: r.uint("index payload")?,
        index_table_bits: r.uint("index table")?,
        cosine: r.f32("cosine")?,
        max_error: r.f32("largest error")?,
    };
    Ok(Layer {
        name: name.to_owned(),
        shape,
        k_order,
        values,
        index,
        max_abs_q,
        symmetric_i8,
        q_sums,
        tiles,
        record,
    })
}

fn read_tiles(
    r: &mut Reader<'_>,
    shape: &LayerShape,
    weights_end: &mut u64,
    tiles_left: &mut usize,
) -> Result<Vec<Tile>> {
    const ITEM_BYTES: usize = 9;
    let layer_k = shape.k() as u64;
    let panels = shape.panels() as u64;
    let count = r.count("tiles", *tiles_left as u64, ITEM_BYTES)?;
    *tiles_left -= count;
    let mut tiles = Vec::with_capacity(count);
    let (mut panel, mut k) = (0u64, 0u64);
    for _ in 0..count {
        let at = r.offset();
        let (tile_panels, k_len) = (r.uint32("panels")?, r.uint32("k length")?);
        let whole = k == 0 && u64::from(k_len) == layer_k;
        let fits = panel + u64::from(tile_panels) <= panels && k + u64::from(k_len) <= layer_k;
        if !fits || (!whole && tile_panels != 1) {
            let detail =
                format!("panels {panel}+{tile_panels} of {panels}, k {k}+{k_len} of {layer_k}");
            return Err(Error::new(ErrorKind::TileCoverage, detail).at(at));
        }
        let (len, present) = (r.uint32("tile length")?, r.uint32("present weights")?);
        let (max_abs_q, crc) = (r.u8("largest |q|")?, r.u32("tile checksum")?);
        let offset = weights_end.next_multiple_of(ALIGN);
        *weights_end = offset + u64::from(len);
        tiles.push(Tile {
            panel: panel as u32,
            panels: tile_panels,
            k: k as u32,
            k_len,
            offset,
            len,
            crc,
            present,
            max_abs_q,
        });
        k += u64::from(k_len);
        if k == layer_k {
            (panel, k) = (panel + u64::from(tile_panels), 0);
        }
    }
    if (panel, k) != (panels, 0) {
        let detail = format!("tiles end at panel {panel} of {panels}, k {k}");
        return Err(Error::new(ErrorKind::TileCoverage, detail).at(r.offset()));
    }
    Ok(tiles)
}

fn write_values(w: &mut Writer, values: &Values) {
    match values {
        Values::Raw32 => w.u8(0),
        Values::Raw16 => w.u8(1),
        Values::Codebook { values, zero_code } => {
            w.u8(2);
            w.count(values.len());
            w.f32s(values);
            write_code(w, *zero_code);
        }
        Values::Minmax {
            min,
            delta,
            bits,
            zero_code,
        } => {
            w.u8(3);
            w.f32s(&[*min, *delta]);
            w.u8(*bits);
            write_code(w, *zero_code);
        }
        Values::Grid { steps } => {
            w.u8(4);
            match steps {
                Steps::Layer(step) => {
                    w.u8(0);
                    w.f32(*step);
                }
                Steps::Channel(steps) => {
                    w.u8(1);
                    w.f32s(steps);
                }
                Steps::Block { len, steps } => {
                    w.u8(2);
                    w.uint(*len);
                    w.f32s(steps);
                }
            }
        }
    }
}

fn read_values(r: &mut Reader<'_>, shape: &LayerShape) -> Result<Values> {
    Ok(match r.u8("values")? {
        0 => Values::Raw32,
        1 => Values::Raw16,
        2 => {
            let count = r.uint32("codebook size")?;
            if !(1..=256).contains(&count) {
                return Err(Error::new(ErrorKind::Codebook, format!("{count} values")));
            }
            Values::Codebook {
                values: r.f32s(count as usize, "codebook")?,
                zero_code: read_code(r)?,
            }
        }
        3 => {
            let [min, delta] = r.f32_array("minmax")?;
            Values::Minmax {
                min,
                delta,
                bits: r.u8("value bits")?,
                zero_code: read_code(r)?,
            }
        }
        4 => Values::Grid {
            steps: match r.u8("steps")? {
                0 => Steps::Layer(r.f32("step")?),
                1 => Steps::Channel(r.f32s(shape.out_channels as usize, "steps")?),
                2 => {
                    let len = r.uint32("block length")?;
                    let count = block_steps(shape, len)
                        .ok_or_else(|| Error::new(ErrorKind::Steps, format!("blocks of {len}")))?;
                    Steps::Block {
                        len,
                        steps: r.f32s(count, "steps")?,
                    }
                }
                tag => return Err(r.bad_tag("steps", tag)),
            },
        },
        tag => return Err(r.bad_tag("values", tag)),
    })
}

/// Number of block steps of a layer whose shape is checked.
pub(crate) fn block_steps(shape: &LayerShape, len: u32) -> Option<usize> {
    let blocks = shape
        .k()
        .div_ceil(usize::try_from(len).ok().filter(|len| *len > 0)?);
    blocks.checked_mul(shape.out_channels as usize)
}

/// Optional code: 0, or the code plus one.
fn write_code(w: &mut Writer, code: Option<u8>) {
    w.uint(code.map_or(0, |code| u32::from(code) + 1));
}

fn read_code(r: &mut Reader<'_>) -> Result<Option<u8>> {
    match r.uint32("zero code")? {
        0 => Ok(None),
        code => match u8::try_from(code - 1) {
            Ok(code) => Ok(Some(code)),
            Err(_) => Err(Error::new(ErrorKind::ZeroCode, format!("{}", code - 1))),
        },
    }
}

fn write_index(w: &mut Writer, index: &Index) {
    match index {
        Index::Raw => w.u8(0),
        Index::Dense { values } => {
            w.u8(1);
            w.uint(values.0);
        }
        Index::Mask { mask, values } => {
            w.u8(2);
            w.uint(mask.map_or(0, |mask| u64::from(mask.0) + 1));
            w.uint(values.0);
        }
        Index::Gaps { bits, gaps, values } => {
            w.u8(3);
            w.u8(*bits);
            w.uint(gaps.0);
            w.uint(values.0);
        }
        Index::Classes(classes) => {
            w.u8(4);
            write_classes(w, classes);
        }
    }
}

fn write_classes(w: &mut Writer, classes: &Classes) {
    w.list(&classes.classes, |w, class| {
        w.u8(match class {
            Class::Empty => 0,
            Class::Dense { .. } => 1,
            Class::Mask { .. } => 2,
            Class::Rows { .. } => 3,
        });
        let index = class.index_tables().into_iter().flatten();
        index.for_each(|id| w.uint(id.0));
        if let Some(values) = class.values() {
            w.uint(values.table.0);
            w.u8(values.group);
            if values.group > 1 {
                w.list(&values.alphabet, |w, value| w.u8(*value));
                w.bool(values.escape);
            }
        }
    });
    if classes.classes.len() > 1 {
        w.uint(classes.block);
        let map = class_map::pack(&classes.map, classes.classes.len());
        w.bytes.extend_from_slice(&map);
    }
}

#[inline(never)]
fn read_classes(r: &mut Reader<'_>, shape: &LayerShape) -> Result<Classes> {
    let at = r.offset();
    let count = r.uint32("number of classes")? as usize;
    if !(1..=MAX_CLASSES).contains(&count) {
        return Err(Error::new(ErrorKind::Classes, format!("{count} classes")).at(at));
    }
    let mut classes = Vec::with_capacity(count);
    for _ in 0..count {
        classes.push(read_class(r)?);
    }
    let k = shape.k();
    if count == 1 {
        return Ok(Classes {
            classes,
            block: k as u32,
            map: Vec::new(),
        });
    }
    let block = r.uint32("block of a class")?;
    if block == 0 || block as usize > k {
        let detail = format!("blocks of {block} of {k} k");
        return Err(Error::new(ErrorKind::Classes, detail).at(r.offset()));
    }
    let (map, used) = class_map::unpack(r.rest(), k.div_ceil(block as usize), count)
        .map_err(|e| Error::new(ErrorKind::ClassMap, e.to_string()).at(r.offset()))?;
    r.take(used, "map of classes")?;
    Ok(Classes {
        classes,
        block,
        map,
    })
}

#[inline(never)]
fn read_class(r: &mut Reader<'_>) -> Result<Class> {
    let tag = r.u8("class")?;
    if tag > 3 {
        return Err(r.bad_tag("class", tag));
    }
    let rows = (tag == 3)
        .then(|| r.uint32("table of row marks"))
        .transpose()?;
    let mask = (tag >= 2).then(|| r.uint32("mask table")).transpose()?;
    let (rows, mask) = (rows.map(TableId), mask.map(TableId));
    if tag == 0 {
        return Ok(Class::Empty);
    }
    let table = TableId(r.uint32("value table")?);
    let group = r.u8("values per symbol")?;
    let (mut alphabet, mut escape) = (Vec::new(), false);
    if group > 1 {
        let count = r.count("alphabet", 16, 1)?;
        alphabet = r.take(count, "alphabet")?.to_vec();
        escape = r.bool("escape")?;
    }
    let values = ValueCode {
        table,
        group,
        alphabet,
        escape,
    };
    Ok(match (rows, mask) {
        (Some(rows), Some(mask)) => Class::Rows { rows, mask, values },
        (_, Some(mask)) => Class::Mask { mask, values },
        _ => Class::Dense { values },
    })
}

fn read_index(r: &mut Reader<'_>, shape: &LayerShape) -> Result<Index> {
    Ok(match r.u8("index")? {
        0 => Index::Raw,
        1 => Index::Dense {
            values: TableId(r.uint32("value table")?),
        },
        2 => Index::Mask {
            mask: r.uint32("mask table")?.checked_sub(1).map(TableId),
            values: TableId(r.uint32("value table")?),
        },
        3 => Index::Gaps {
            bits: r.u8("gap bits")?,
            gaps: TableId(r.uint32("gap table")?),
            values: TableId(r.uint32("value table")?),
        },
        4 => Index::Classes(read_classes(r, shape)?),
        tag => return Err(r.bad_tag("index", tag)),
    })
}
