//! Tensors of an ONNX file as [`Array`]s: every storage form, external files included.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use half::{bf16, f16};

use super::proto::TensorProto;
use crate::array::{Array, Data, ElementType};
use crate::error::Error;

/// ONNX `TensorProto.DataType` values that are read.
pub mod data_type {
    /// float
    pub const FLOAT: i32 = 1;
    /// uint8
    pub const UINT8: i32 = 2;
    /// int8
    pub const INT8: i32 = 3;
    /// uint16
    pub const UINT16: i32 = 4;
    /// int16
    pub const INT16: i32 = 5;
    /// int32
    pub const INT32: i32 = 6;
    /// int64
    pub const INT64: i32 = 7;
    /// bool
    pub const BOOL: i32 = 9;
    /// float16
    pub const FLOAT16: i32 = 10;
    /// double
    pub const DOUBLE: i32 = 11;
    /// uint32
    pub const UINT32: i32 = 12;
    /// uint64
    pub const UINT64: i32 = 13;
    /// bfloat16
    pub const BFLOAT16: i32 = 16;
    /// uint4
    pub const UINT4: i32 = 21;
    /// int4
    pub const INT4: i32 = 22;
}

/// Element type of an ONNX type number; none when it is not read.
pub fn element_type(number: i32) -> Option<ElementType> {
    use data_type::*;
    Some(match number {
        FLOAT | FLOAT16 | BFLOAT16 => ElementType::F32,
        DOUBLE => ElementType::F64,
        INT8 => ElementType::I8,
        UINT8 => ElementType::U8,
        INT4 => ElementType::I4,
        UINT4 => ElementType::U4,
        BOOL => ElementType::Bool,
        UINT16 | INT16 | INT32 | INT64 | UINT32 | UINT64 => ElementType::Int,
        _ => return None,
    })
}

/// Reads a tensor. `folder` is where external data lies; none refuses external data.
///
/// Errors: [`Error::Malformed`] when the number of elements does not match, [`Error::Io`] for external files.
pub fn to_array(tensor: &TensorProto, folder: Option<&Path>) -> Result<Array, Error> {
    let bad = |what: String| Error::Malformed(format!("tensor '{}': {what}", tensor.name));
    let kind = element_type(tensor.data_type).ok_or_else(|| {
        bad(format!(
            "element type {} is not one of float, float16, bfloat16, double, bool or an integer",
            tensor.data_type
        ))
    })?;
    let dims: Vec<usize> = tensor
        .dims
        .iter()
        .map(|&d| usize::try_from(d))
        .collect::<Result<_, _>>()
        .map_err(|_| bad("negative dimension".into()))?;
    let count =
        crate::array::checked_product(&dims).ok_or_else(|| bad("dimensions too large".into()))?;
    let external;
    let raw: &[u8] = if tensor.data_location == 1 {
        external = read_external(tensor, folder)?;
        &external
    } else {
        &tensor.raw_data
    };
    let data = if raw.is_empty() {
        from_fields(tensor, kind)
    } else {
        from_raw(tensor.data_type, raw, count)
    }
    .ok_or_else(|| bad("the bytes do not divide into elements".into()))?;
    let array = Array { dims, kind, data };
    if array.len() != count {
        return Err(bad(format!(
            "{} elements where the dimensions {:?} ask for {count}",
            array.len(),
            array.dims
        )));
    }
    Ok(array)
}

fn from_fields(tensor: &TensorProto, kind: ElementType) -> Option<Data> {
    use data_type::*;
    Some(match tensor.data_type {
        FLOAT => Data::F32(tensor.float_data.clone()),
        DOUBLE => Data::F64(tensor.double_data.clone()),
        FLOAT16 => Data::F32(
            tensor
                .int32_data
                .iter()
                .map(|&bits| f16::from_bits(bits as u16).to_f32())
                .collect(),
        ),
        BFLOAT16 => Data::F32(
            tensor
                .int32_data
                .iter()
                .map(|&bits| bf16::from_bits(bits as u16).to_f32())
                .collect(),
        ),
        INT64 => Data::Int(tensor.int64_data.clone()),
        UINT32 | UINT64 => Data::Int(
            tensor
                .uint64_data
                .iter()
                .map(|&x| i64::try_from(x).ok())
                .collect::<Option<_>>()?,
        ),
        // Two per element of int32_data, low half first.
        INT4 | UINT4 => {
            let bytes: Vec<u8> = tensor.int32_data.iter().map(|&x| x as u8).collect();
            let count = tensor
                .dims
                .iter()
                .try_fold(1i64, |product, &d| product.checked_mul(d))?;
            Data::Int(nibbles(
                &bytes,
                usize::try_from(count).ok()?,
                kind == ElementType::I4,
            )?)
        }
        _ => Data::Int(tensor.int32_data.iter().map(|&x| i64::from(x)).collect()),
    })
}

fn from_raw(number: i32, raw: &[u8], count: usize) -> Option<Data> {
    use data_type::*;
    fn each<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
        let (chunks, rest) = raw.as_chunks::<N>();
        rest.is_empty()
            .then(|| chunks.iter().map(|&chunk| read(chunk)).collect())
    }
    Some(match number {
        FLOAT => Data::F32(each(raw, f32::from_le_bytes)?),
        DOUBLE => Data::F64(each(raw, f64::from_le_bytes)?),
        FLOAT16 => Data::F32(each(raw, |b| f16::from_le_bytes(b).to_f32())?),
        BFLOAT16 => Data::F32(each(raw, |b| bf16::from_le_bytes(b).to_f32())?),
        INT8 => Data::Int(raw.iter().map(|&b| i64::from(b as i8)).collect()),
        UINT8 => Data::Int(raw.iter().map(|&b| i64::from(b)).collect()),
        BOOL => Data::Int(raw.iter().map(|&b| i64::from(b != 0)).collect()),
        INT16 => Data::Int(each(raw, |b| i64::from(i16::from_le_bytes(b)))?),
        UINT16 => Data::Int(each(raw, |b| i64::from(u16::from_le_bytes(b)))?),
        INT32 => Data::Int(each(raw, |b| i64::from(i32::from_le_bytes(b)))?),
        UINT32 => Data::Int(each(raw, |b| i64::from(u32::from_le_bytes(b)))?),
        INT64 => Data::Int(each(raw, i64::from_le_bytes)?),
        UINT64 => Data::Int(
            each(raw, u64::from_le_bytes)?
                .into_iter()
                .map(|x| i64::try_from(x).ok())
                .collect::<Option<_>>()?,
        ),
        INT4 => Data::Int(nibbles(raw, count, true)?),
        UINT4 => Data::Int(nibbles(raw, count, false)?),
        _ => return None,
    })
}

fn nibbles(bytes: &[u8], count: usize, signed: bool) -> Option<Vec<i64>> {
    if bytes.len() != count.div_ceil(2) {
        return None;
    }
    let extend = |nibble: u8| {
        if signed {
            i64::from((nibble << 4) as i8 >> 4)
        } else {
            i64::from(nibble)
        }
    };
    Some(
        bytes
            .iter()
            .flat_map(|&b| [extend(b & 15), extend(b >> 4)])
            .take(count)
            .collect(),
    )
}

fn read_external(tensor: &TensorProto, folder: Option<&Path>) -> Result<Vec<u8>, Error> {
    let bad =
        |what: &str| Error::Malformed(format!("tensor '{}': external data: {what}", tensor.name));
    let entry = |key: &str| {
        tensor
            .external_data
            .iter()
            .find(|e| e.key == key)
            .map(|e| e.value.as_str())
    };
    let number = |key: &str| {
        entry(key)
            .map(|v| {
                v.parse::<u64>()
                    .map_err(|_| bad(&format!("{key} is not a number")))
            })
            .transpose()
    };
    let location = Path::new(entry("location").ok_or_else(|| bad("no location"))?);
    // Only files below the model's folder: a model is untrusted and must not make us read elsewhere.
    if !location
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err(bad("the location leaves the model's folder"));
    }
    let path = folder
        .ok_or_else(|| bad("the model was not read from a file"))?
        .join(location);
    let mut file = File::open(&path).map_err(|e| Error::io(&path, &e))?;
    let available = file.metadata().map_err(|e| Error::io(&path, &e))?.len();
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?.unwrap_or(available.saturating_sub(offset));
    if offset.checked_add(length).is_none_or(|end| end > available) {
        return Err(bad("the range lies outside the file"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| bad("too large"))?];
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|e| Error::io(&path, &e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(data_type: i32, dims: &[i64], raw: &[u8]) -> TensorProto {
        TensorProto {
            name: "t".into(),
            data_type,
            dims: dims.to_vec(),
            raw_data: raw.to_vec().into(),
            ..Default::default()
        }
    }

    #[test]
    fn raw_forms() {
        let read = |t: &TensorProto| to_array(t, None).unwrap();
        assert_eq!(
            read(&tensor(data_type::FLOAT, &[1], &1.5f32.to_le_bytes())).data,
            Data::F32(vec![1.5])
        );
        assert_eq!(
            read(&tensor(
                data_type::FLOAT16,
                &[1],
                &f16::from_f32(0.25).to_le_bytes()
            ))
            .data,
            Data::F32(vec![0.25])
        );
        assert_eq!(
            read(&tensor(data_type::INT8, &[2], &[255, 3])).data,
            Data::Int(vec![-1, 3])
        );
        assert_eq!(
            read(&tensor(data_type::INT4, &[3], &[0x2f, 0x08])).data,
            Data::Int(vec![-1, 2, -8])
        );
        assert_eq!(
            read(&tensor(data_type::UINT4, &[3], &[0x2f, 0x08])).data,
            Data::Int(vec![15, 2, 8])
        );
    }

    #[test]
    fn wrong_lengths_are_malformed() {
        for t in [
            tensor(data_type::FLOAT, &[2], &[0; 4]),
            tensor(data_type::FLOAT, &[1], &[0; 3]),
            tensor(data_type::INT4, &[3], &[0]),
            tensor(99, &[1], &[0]),
            tensor(data_type::INT8, &[-1], &[0]),
        ] {
            assert!(matches!(to_array(&t, None), Err(Error::Malformed(_))));
        }
    }

    #[test]
    fn external_data_stays_in_the_folder() {
        let mut t = tensor(data_type::INT8, &[1], &[]);
        t.data_location = 1;
        t.external_data
            .push(super::super::proto::StringStringEntryProto {
                key: "location".into(),
                value: "../secret".into(),
            });
        assert!(matches!(
            to_array(&t, Some(Path::new("."))),
            Err(Error::Malformed(_))
        ));
    }
}
