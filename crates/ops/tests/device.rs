//! Every operation on a GPU against the CPU, in f32 and in 16 bits. It needs a device:
//! `cargo test --release -p sd-ops --features cuda --test device -- --nocapture`

#![allow(clippy::unwrap_used, clippy::print_stderr)] // Without its data a test has failed.

use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use sd_ops::{
    Band, BandedConv2d, ChannelMoments, Conv2d, GroupNorm, LayerNorm, Linear, Precision, RmsNorm, attention,
    conv2d, gated_gelu_tanh, gated_residual, geglu, gelu, gelu_tanh, group_norm, group_norm_silu, layer_norm,
    linear, modulated_layer_norm, quick_gelu, rms_norm, silu, timestep_embedding, upsample_nearest,
};

/// Relative errors that are allowed.
const WITHIN_F32: f64 = 1e-5;
const WITHIN_BF16: f64 = 2e-2;

/// Where an operation is computed, and in which type its tensors are held.
#[derive(Clone)]
struct Place {
    device: Device,
    held_type: DType,
}

impl Place {
    /// Values between -1 and 1 that the type of the comparison can hold, the same at every place.
    fn random(&self, shape: &[usize], seed: u64) -> Tensor {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                // Marsaglia, "Xorshift RNGs", 2003.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(DType::BF16)?.to_dtype(DType::F32))
            .and_then(|tensor| tensor.to_dtype(self.held_type)?.to_device(&self.device))
            .unwrap()
    }

    /// What the networks hold in 32 bits at every place, such as masks.
    fn wide(&self, shape: &[usize], seed: u64) -> Tensor {
        let wide = Self {
            held_type: DType::F32,
            ..self.clone()
        };
        wide.random(shape, seed)
    }
}

/// Computes at every place and compares with the CPU, which computes in 32 bits.
fn compare(name: &str, compute: impl Fn(&Place) -> candle_core::Result<Tensor>) {
    let device = device();
    let place = |device: &Device, held_type: DType| Place {
        device: device.clone(),
        held_type,
    };
    let values = |tensor: Tensor| -> Vec<f32> {
        let tensor = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        tensor.to_vec1().unwrap()
    };
    let expected = compute(&place(&Device::Cpu, DType::F32)).unwrap();
    let dims = expected.dims().to_vec();
    let expected = values(expected);
    for (held_type, tolerance) in [(DType::F32, WITHIN_F32), (DType::BF16, WITHIN_BF16)] {
        let found = compute(&place(&device, held_type)).unwrap();
        assert_eq!(found.dims(), dims, "{name} in {held_type:?}");
        let found = values(found);
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let size = norm(&mut expected.iter().copied()).sqrt();
        let error = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b)).sqrt() / size;
        eprintln!("{name} {held_type:?}: relative error {error:.1e}");
        assert!(
            size > 0.0 && error <= tolerance,
            "{name} in {held_type:?}: relative error {error:.1e}"
        );
    }
}

/// One for all tests: a device loads its kernels anew each time that it is opened.
fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::new_cuda_with_stream(0).unwrap());
    DEVICE.clone()
}

#[test]
fn functions_of_single_values() {
    let of = |function: fn(&Tensor) -> candle_core::Result<Tensor>| {
        move |place: &Place| function(&(place.random(&[3, 5, 700], 1) * 4.0)?)
    };
    compare("gelu", of(gelu));
    compare("gelu_tanh", of(gelu_tanh));
    compare("quick_gelu", of(quick_gelu));
    compare("silu", of(silu));
    compare("geglu", of(geglu));
    compare("gelu_tanh of a view", |place| {
        gelu_tanh(&place.random(&[70, 90], 1).t()?)
    });
    compare("gated_gelu_tanh", |place| {
        gated_gelu_tanh(&place.random(&[4, 600], 1), &place.random(&[4, 600], 2))
    });
}

#[test]
fn projections() {
    for (rows, inputs, outputs) in [(1, 64, 6 * 64), (77, 320, 1000), (1, 1, 1)] {
        for bias in [false, true] {
            compare("linear", |place| {
                let bias = bias.then(|| place.random(&[outputs], 3));
                let projection = Linear::new(place.random(&[outputs, inputs], 2), bias)?;
                linear(&place.random(&[2, rows, inputs], 1), &projection)
            });
        }
    }
    compare("linear of a view", |place| {
        let projection = Linear::new(place.random(&[40, 60], 2), None)?;
        linear(&place.random(&[60, 50], 1).t()?, &projection)
    });
}

#[test]
fn attention_with_and_without_bias() {
    // The last case is split into chunks of queries.
    for (batch, heads, queries, keys, size) in [(2, 3, 77, 77, 64), (1, 2, 5, 300, 48), (2, 4, 700, 4096, 64)]
    {
        for bias in [
            None,
            Some(vec![1, 1, queries, keys]),
            Some(vec![heads, queries, keys]),
        ] {
            compare("attention", |place| {
                // As the networks hand them over: heads split off a row of features.
                let of = |rows: usize, seed: u64| {
                    (place.random(&[batch, rows, heads, size], seed) * 2.0)?.transpose(1, 2)
                };
                let bias = bias.as_ref().map(|shape| place.wide(shape, 4));
                let scale = 1.0 / (size as f64).sqrt();
                attention(
                    &of(queries, 1)?,
                    &of(keys, 2)?,
                    &of(keys, 3)?,
                    bias.as_ref(),
                    scale,
                    Precision::Full,
                )
            });
        }
    }
}

#[test]
fn a_query_whose_every_key_is_masked_gets_zeros() {
    let device = device();
    let of = |seed: u64| {
        let place = Place {
            device: device.clone(),
            held_type: DType::BF16,
        };
        place.random(&[1, 1, 4, 8], seed)
    };
    let mask = Tensor::full(f32::NEG_INFINITY, (4, 4), &device).unwrap();
    let found = attention(&of(1), &of(2), &of(3), Some(&mask), 1.0, Precision::Full).unwrap();
    let sum = found
        .to_dtype(DType::F32)
        .unwrap()
        .abs()
        .unwrap()
        .sum_all()
        .unwrap();
    assert_eq!(sum.to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn norms() {
    compare("group_norm", |place| {
        group_norm(
            &around_two(place, &[2, 12, 33, 40])?,
            &group_norm_of(place, 12, 4)?,
        )
    });
    compare("group_norm_silu", |place| {
        group_norm_silu(
            &around_two(place, &[1, 64, 150, 130])?,
            &group_norm_of(place, 64, 32)?,
        )
    });
    let vector = |place: &Place, seed: u64| place.random(&[1500], seed);
    compare("layer_norm", |place| {
        let norm = LayerNorm::new(Some(vector(place, 2)), Some(vector(place, 3)), 1e-5)?;
        layer_norm(&around_two(place, &[2, 11, 1500])?, &norm)
    });
    compare("modulated_layer_norm", |place| {
        let of = |seed: u64| place.random(&[2, 1500], seed);
        modulated_layer_norm(&around_two(place, &[2, 11, 1500])?, &of(2), &of(3), 1e-6)
    });
    compare("gated_residual", |place| {
        let of = |seed: u64| place.random(&[2, 11, 1500], seed);
        gated_residual(&of(1), &place.random(&[2, 1500], 2), &of(3))
    });
    compare("rms_norm", |place| {
        let norm = RmsNorm::new(vector(place, 2), 1e-6)?;
        rms_norm(&place.random(&[2, 3, 11, 1500], 1), &norm)
    });
}

/// Values whose mean is not zero.
fn around_two(place: &Place, shape: &[usize]) -> candle_core::Result<Tensor> {
    place.random(shape, 1) + 2.0
}

fn group_norm_of(place: &Place, channels: usize, groups: usize) -> candle_core::Result<GroupNorm> {
    let vector = |seed: u64| place.random(&[channels], seed);
    GroupNorm::new(groups, 1e-6, vector(5), vector(6))
}

#[test]
fn convolutions() {
    for (inputs, outputs, kernel, stride, padding, after) in [
        (16, 40, 3, 1, 1, 1),
        (8, 24, 1, 1, 0, 0),
        (8, 8, 3, 2, 0, 1),
        (6, 10, 3, 2, 1, 1),
    ] {
        compare("conv2d", |place| {
            let convolution = convolution(place, [outputs, inputs, kernel, kernel], stride, padding)?;
            conv2d(
                &place.random(&[2, inputs, 37, 52], 1),
                &convolution.padded_after(after),
            )
        });
    }
    compare("upsample_nearest", |place| {
        upsample_nearest(&place.random(&[2, 5, 17, 23], 1))
    });
}

fn convolution(
    place: &Place,
    weight: [usize; 4],
    stride: usize,
    padding: usize,
) -> candle_core::Result<Conv2d> {
    let bias = Some(place.random(&weight[..1], 8));
    Conv2d::new(place.random(&weight, 7), bias, stride, padding)
}

#[test]
fn convolutions_by_bands() {
    let bands = |x: &Tensor, mut rows: Box<dyn FnMut(Band<'_>) -> candle_core::Result<Tensor> + '_>| {
        let cut = [x.narrow(2, 0, 12)?, x.narrow(2, 12, 20)?, x.narrow(2, 32, 5)?];
        let results = (0..cut.len()).map(|index| {
            rows(Band {
                above: index.checked_sub(1).map(|index| &cut[index]),
                rows: &cut[index],
                below: cut.get(index + 1),
            })
        });
        Tensor::cat(&results.collect::<candle_core::Result<Vec<_>>>()?, 2)
    };
    let image = |place: &Place| place.random(&[1, 16, 37, 30], 1);
    let three = |place: &Place| convolution(place, [24, 16, 3, 3], 1, 1);
    compare("conv2d by bands", |place| {
        let convolution = three(place)?;
        let mut banded = BandedConv2d::new(&convolution)?;
        bands(&image(place), Box::new(move |band| banded.rows(band, None)))
    });
    compare("conv2d by bands after upsampling", |place| {
        let convolution = three(place)?;
        let mut banded = BandedConv2d::after_upsampling(&convolution)?;
        bands(&image(place), Box::new(move |band| banded.rows(band, None)))
    });
    compare("conv2d by bands after a norm", |place| {
        let (convolution, norm) = (three(place)?, group_norm_of(place, 16, 4)?);
        let x = image(place);
        let mut moments = ChannelMoments::of(&x.narrow(2, 0, 30)?)?;
        moments.add(&x.narrow(2, 30, 7)?)?;
        let mut banded = BandedConv2d::after_norm_silu(&convolution, &norm, &moments)?;
        bands(&x, Box::new(move |band| banded.rows(band, None)))
    });
}

#[test]
fn timesteps() {
    compare("timestep_embedding", |place| {
        timestep_embedding(&(place.wide(&[7], 1) * 1000.0)?, 256)
    });
}
