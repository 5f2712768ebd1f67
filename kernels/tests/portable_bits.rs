//! The portable tier promises the same bits on every processor and for every compile flag: these
//! hashes must never depend on either. They change only when an order of summation or a polynomial
//! is changed on purpose.

mod common;

use common::{Form, Layer, Order, Rng};
use dcz_kernels::*;

/// FNV-1a over the bits.
fn hash(values: &[f32]) -> u64 {
    values
        .iter()
        .flat_map(|v| v.to_bits().to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |h, byte| {
            (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[test]
fn convolution() {
    let shape = ConvShape {
        in_channels: 50,
        out_channels: 13,
        groups: 1,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pad_top: 1,
        pad_left: 1,
        in_h: 9,
        in_w: 19,
        out_h: 9,
        out_w: 19,
    };
    let mut rng = Rng(11);
    let layer = Layer::new(
        &mut rng,
        &Order::of(&shape, KOrder::ChannelMajor),
        Form::Channel,
    );
    let tile = layer.tile(0..shape.panels(), 0..shape.k());
    let input = rng.values(50 * 9 * 19);
    for (algo, bits) in [
        (ConvAlgo::Gemm, "e5c5f07a6f8636f0"),
        (ConvAlgo::DirectSparse, "acc5f83668671570"),
    ] {
        let mut out = vec![0.0; 13 * 9 * 19];
        let mut scratch = vec![0.0; workspace(algo, &shape, tile.panels, 9)];
        let epilogue = Epilogue {
            bias: None,
            activation: Activation::Mish,
        };
        conv_tile(
            Isa::Portable,
            algo,
            &shape,
            &tile,
            View {
                data: &input,
                map: Map::nchw(1, 50, 9, 19),
            },
            0..9,
            &mut ViewMut {
                data: &mut out,
                map: Map::nchw(1, 13, 9, 19),
            },
            Start::Zero,
            Some(&epilogue),
            false,
            &mut scratch,
        );
        assert_eq!(format!("{:016x}", hash(&out)), bits);
    }
}

#[test]
fn transcendental_functions() {
    let inputs: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.0231).collect();
    let mut all = Vec::new();
    for f in [
        Activation::Exp,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Mish,
    ] {
        let mut values = inputs.clone();
        activation::activate(&f, 0, &mut values);
        all.extend(values);
    }
    assert_eq!(format!("{:016x}", hash(&all)), "e7d0cfb000c090be");
}
