//! What is written is what is read.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod common;

use common::*;
use dcz_format::graph::*;
use dcz_format::layer::*;
use dcz_format::writer::*;
use dcz_format::{ErrorKind, TileDecoder, TileForm, TileOut};

#[test]
fn records_and_weights() {
    let inputs = vec![network("first", 1), network("second", 2)];
    let encoded = encode(inputs.clone(), &options(), &mut |_, _| {}).unwrap();
    let bytes = encoded.to_bytes().unwrap();
    println!("{} bytes", bytes.len());
    let container = open(&bytes).unwrap();
    assert_eq!(container.networks(), encoded.networks());
    assert_eq!(container.tables(), encoded.tables());
    assert_eq!(container.find("second"), Some(1));
    assert_eq!(container.texts().unwrap()[0].name, "LICENSE");
    for (net, input) in inputs.iter().enumerate() {
        for (id, layer) in input.layers.iter().enumerate() {
            let dense = container.dense_weights(net, LayerId(id as u32)).unwrap();
            assert_eq!(dense, expected(layer), "{}", layer.name);
        }
        for (id, constant) in input.constants.iter().enumerate() {
            let mut values = vec![0.0; constant.values.len()];
            container
                .constant(net, ConstId(id as u32), &mut values)
                .unwrap();
            assert_eq!(values, constant.values);
        }
    }
    let report = container.check(&mut |_, _| {}).unwrap();
    assert_eq!(report.layers, 24);
    assert_eq!(report.constants, 8);
}

/// Codes, taken through the layer's steps or table, are the values.
#[test]
fn codes_and_values_agree() {
    let bytes = sample();
    let container = open(&bytes).unwrap();
    let mut decoder = TileDecoder::new(&container, 0).unwrap();
    let mut forms = Vec::new();
    for (id, layer) in container.networks()[0].layers.iter().enumerate() {
        let id = LayerId(id as u32);
        forms.push(layer.form());
        for (index, tile) in layer.tiles.iter().enumerate() {
            let mut values = vec![0.0; tile.weights()];
            let mut codes = vec![0; tile.weights()];
            decoder
                .decode(&container, 0, id, index, TileOut::F32(&mut values))
                .unwrap();
            let decoded = decoder.decode(&container, 0, id, index, TileOut::Codes(&mut codes));
            if layer.form() == TileForm::F32 {
                assert_eq!(decoded.unwrap_err().kind(), ErrorKind::NoCodes);
                continue;
            }
            decoded.unwrap();
            for (at, (value, code)) in values.iter().zip(&codes).enumerate() {
                let row = at / PANEL;
                let (panel, k) = (
                    row / tile.k_len as usize,
                    tile.k as usize + row % tile.k_len as usize,
                );
                let from_code = match layer.lut() {
                    Some(lut) => lut[usize::from(*code)],
                    None => {
                        let (steps, _) = layer.lane_steps(tile.panel as usize + panel, k).unwrap();
                        f32::from(*code as i8) * steps[at % PANEL]
                    }
                };
                assert_eq!(from_code.to_bits(), value.to_bits(), "{} {at}", layer.name);
            }
        }
    }
    for form in [TileForm::F32, TileForm::I8, TileForm::Lut] {
        assert!(forms.contains(&form));
    }
}

#[test]
fn misuse_is_told() {
    let container = open(&sample()).unwrap();
    let mut decoder = TileDecoder::new(&container, 0).unwrap();
    let mut buffer = [0.0; 7];
    let kind = |result: Result<(), dcz_format::Error>| result.unwrap_err().kind();
    let out = TileOut::F32(&mut buffer);
    assert_eq!(
        kind(decoder.decode(&container, 0, LayerId(0), 0, out)),
        ErrorKind::BufferSize
    );
    let out = TileOut::F32(&mut buffer);
    assert_eq!(
        kind(decoder.decode(&container, 0, LayerId(99), 0, out)),
        ErrorKind::NoSuchItem
    );
    let out = TileOut::F32(&mut buffer);
    assert_eq!(
        kind(decoder.decode(&container, 0, LayerId(0), 99, out)),
        ErrorKind::NoSuchItem
    );
    let out = TileOut::F32(&mut buffer);
    assert_eq!(
        kind(decoder.decode(&container, 1, LayerId(0), 0, out)),
        ErrorKind::NoSuchItem
    );
    assert_eq!(
        kind(container.constant(0, ConstId(0), &mut buffer)),
        ErrorKind::BufferSize
    );
    assert_eq!(
        kind(container.constant(0, ConstId(9), &mut buffer)),
        ErrorKind::NoSuchItem
    );
    assert!(TileDecoder::new(&container, 2).is_err());
    let other = open(&sample()).unwrap();
    let out = TileOut::F32(&mut buffer);
    assert_eq!(
        kind(decoder.decode(&other, 0, LayerId(0), 0, out)),
        ErrorKind::NoSuchItem
    );
}
