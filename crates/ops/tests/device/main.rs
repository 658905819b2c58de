//! Every operation on a GPU against the CPU, in f32 and in 16 bits. It needs a device, an NVIDIA GPU
//! (`cargo test --release -p sd-ops --features cuda --test device -- --nocapture`) or a Mac.

#![cfg(any(feature = "cuda", metal))]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // Without its data a test has failed.

mod attention;
mod quantization;
#[path = "../random/mod.rs"]
mod random;

use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use sd_ops::{
    Band, BandedConv2d, ChannelMoments, Conv2d, GroupNorm, LayerNorm, Linear, RmsNorm, add_positions,
    concatenate, conv2d, conv2d_onto, conv2d_shifted, gated_gelu_tanh, gated_residual, geglu, gelu,
    gelu_tanh, group_norm, group_norm_silu, image_of_tokens, layer_norm, linear, linear_gated_residual,
    linear_geglu, linear_gelu, linear_gelu_tanh, linear_quick_gelu, linear_residual, linear_silu,
    modulated_layer_norm, quick_gelu, rms_norm, silu, sum, timestep_embedding, tokens_of_image, transpose,
    upsample_nearest,
};

/// Whether the GPU is a stand-in, which computes slowly and has no multiprocessors to fill. Its largest tensors are
/// smaller: still of many tiles, and of some that are not whole.
const IS_STANDIN: bool = !cfg!(any(feature = "cuda", target_os = "macos"));

/// Relative errors that are allowed.
const WITHIN_F32: f64 = 1e-5;
const WITHIN_F16: f64 = 3e-3;
const WITHIN_BF16: f64 = 2e-2;

/// The device of an operation, and the data type of its tensors.
#[derive(Clone)]
struct Target {
    device: Device,
    held_type: DType,
}

impl Target {
    /// Values between -1 and 1 that the type of the comparison can hold, the same on every device.
    fn random(&self, shape: &[usize], seed: u64) -> Tensor {
        random::random(shape, seed)
            .to_dtype(DType::BF16)
            .and_then(|tensor| tensor.to_dtype(DType::F32))
            .and_then(|tensor| tensor.to_dtype(self.held_type)?.to_device(&self.device))
            .unwrap()
    }

    /// Values that networks hold in f32 on every device, such as masks.
    fn wide(&self, shape: &[usize], seed: u64) -> Tensor {
        let wide = Self {
            held_type: DType::F32,
            ..self.clone()
        };
        wide.random(shape, seed)
    }
}

/// Computes on the device in every data type, and compares with the CPU in f32.
fn compare(name: &str, compute: impl Fn(&Target) -> candle_core::Result<Tensor>) {
    let device = device();
    let target = |device: &Device, held_type: DType| Target {
        device: device.clone(),
        held_type,
    };
    let values = |tensor: Tensor| -> Vec<f32> {
        let tensor = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        tensor.to_vec1().unwrap()
    };
    let expected = compute(&target(&Device::Cpu, DType::F32)).unwrap();
    let dims = expected.dims().to_vec();
    let expected = values(expected);
    for (held_type, tolerance) in [
        (DType::F32, WITHIN_F32),
        (DType::F16, WITHIN_F16),
        (DType::BF16, WITHIN_BF16),
    ] {
        let found = compute(&target(&device, held_type)).unwrap();
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
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        if cfg!(feature = "cuda") {
            assume_capability();
            Device::new_cuda_with_stream(0).unwrap()
        } else {
            Device::new_metal(0).unwrap()
        }
    });
    DEVICE.clone()
}

/// Chooses kernels as on a GPU of the compute capability in `SD_TEST_CUDA_CAPABILITY`, such as 8.0.
fn assume_capability() {
    #[cfg(feature = "cuda")]
    if let Ok(capability) = std::env::var(CAPABILITY) {
        let (major, minor) = capability.split_once('.').unwrap();
        sd_ops::assume_cuda_capability(major.parse().unwrap(), minor.parse().unwrap());
    }
}

#[cfg(feature = "cuda")]
const CAPABILITY: &str = "SD_TEST_CUDA_CAPABILITY";

#[test]
fn functions_of_single_values() {
    let of = |function: fn(&Tensor) -> candle_core::Result<Tensor>| {
        move |target: &Target| function(&(target.random(&[3, 5, 700], 1) * 4.0)?)
    };
    compare("gelu", of(gelu));
    compare("gelu_tanh", of(gelu_tanh));
    compare("quick_gelu", of(quick_gelu));
    compare("silu", of(silu));
    compare("geglu", of(geglu));
    compare("gelu_tanh of a view", |target| {
        gelu_tanh(&target.random(&[70, 90], 1).t()?)
    });
    compare("gated_gelu_tanh", |target| {
        gated_gelu_tanh(&target.random(&[4, 600], 1), &target.random(&[4, 600], 2))
    });
}

#[test]
fn projections() {
    for (rows, inputs, outputs) in [(1, 64, 6 * 64), (77, 320, 1000), (1, 1, 1)] {
        for bias in [false, true] {
            compare("linear", |target| {
                let bias = bias.then(|| target.random(&[outputs], 3));
                let projection = Linear::new(target.random(&[outputs, inputs], 2), bias)?;
                linear(&target.random(&[2, rows, inputs], 1), &projection)
            });
        }
    }
    compare("linear of a view", |target| {
        let projection = Linear::new(target.random(&[40, 60], 2), None)?;
        linear(&target.random(&[60, 50], 1).t()?, &projection)
    });
}

#[test]
fn projections_with_what_follows() {
    let projection = |target: &Target, outputs: usize| {
        let (weight, bias) = (target.random(&[outputs, 90], 2), target.random(&[outputs], 3));
        Linear::new(weight, Some(bias))
    };
    let x = |target: &Target| target.random(&[2, 33, 90], 1);
    compare("linear_gelu", |target| {
        linear_gelu(&x(target), &projection(target, 70)?)
    });
    compare("linear_gelu_tanh", |target| {
        linear_gelu_tanh(&x(target), &projection(target, 70)?)
    });
    compare("linear_quick_gelu", |target| {
        linear_quick_gelu(&x(target), &projection(target, 70)?)
    });
    compare("linear_silu", |target| {
        linear_silu(&x(target), &projection(target, 70)?)
    });
    compare("linear_geglu", |target| {
        linear_geglu(&x(target), &projection(target, 140)?)
    });
    compare("linear_residual", |target| {
        linear_residual(
            &target.random(&[2, 33, 70], 4),
            &x(target),
            &projection(target, 70)?,
        )
    });
    compare("linear_gated_residual", |target| {
        // A gate that is a part of a row, as modulations are.
        let gate = target.random(&[2, 210], 5).narrow(1, 70, 70)?;
        linear_gated_residual(
            &target.random(&[2, 33, 70], 4),
            &gate,
            &x(target),
            &projection(target, 70)?,
        )
    });
}

#[test]
fn values_that_change_places() {
    compare("transpose", |target| transpose(&target.random(&[2, 37, 50], 1)));
    compare("sum", |target| {
        sum(&target.random(&[3, 5, 70], 1), &target.random(&[3, 5, 70], 2))
    });
    compare("sum of a view", |target| {
        sum(&target.random(&[70, 30], 1), &target.random(&[30, 70], 2).t()?)
    });
    compare("add_positions", |target| {
        add_positions(&target.random(&[2, 30, 70], 1), &target.wide(&[30, 70], 2))
    });
    for dimension in 0..3 {
        compare("concatenate", |target| {
            let part = |size: usize, seed: u64| {
                let mut shape = [2, 3, 4];
                shape[dimension] = size;
                target.random(&shape, seed)
            };
            concatenate(&[part(5, 1), part(1, 2), part(7, 3)], dimension)
        });
    }
    compare("concatenate views", |target| {
        let x = target.random(&[2, 30, 40], 1).transpose(1, 2)?;
        concatenate(&[x.narrow(1, 3, 20)?, x.narrow(1, 0, 9)?], 1)
    });
}

#[test]
fn norms() {
    compare("group_norm", |target| {
        group_norm(
            &around_two(target, &[2, 12, 33, 40])?,
            &group_norm_of(target, 12, 4)?,
        )
    });
    compare("group_norm_silu", |target| {
        group_norm_silu(
            &around_two(target, &[1, 64, 150, 130])?,
            &group_norm_of(target, 64, 32)?,
        )
    });
    let vector = |target: &Target, seed: u64| target.random(&[1500], seed);
    compare("layer_norm", |target| {
        let norm = LayerNorm::new(Some(vector(target, 2)), Some(vector(target, 3)), 1e-5)?;
        layer_norm(&around_two(target, &[2, 11, 1500])?, &norm)
    });
    compare("modulated_layer_norm", |target| {
        let of = |seed: u64| target.random(&[2, 1500], seed);
        modulated_layer_norm(&around_two(target, &[2, 11, 1500])?, &of(2), &of(3), 1e-6)
    });
    compare("gated_residual", |target| {
        let of = |seed: u64| target.random(&[2, 11, 1500], seed);
        gated_residual(&of(1), &target.random(&[2, 1500], 2), &of(3))
    });
    compare("rms_norm", |target| {
        let norm = RmsNorm::new(vector(target, 2), 1e-6)?;
        rms_norm(&target.random(&[2, 3, 11, 1500], 1), &norm)
    });
}

#[test]
fn norms_of_rows_of_every_width() {
    for width in [
        1, 7, 32, 64, 100, 128, 256, 640, 1024, 1280, 2432, 2560, 4096, 5001,
    ] {
        compare(&format!("layer_norm of {width}"), |target| {
            let norm = LayerNorm::new(
                Some(target.random(&[width], 2)),
                Some(target.random(&[width], 3)),
                1e-3,
            )?;
            layer_norm(&around_two(target, &[3, 7, width])?, &norm)
        });
        compare(&format!("rms_norm of {width}"), |target| {
            let norm = RmsNorm::new(target.random(&[width], 2), 1e-6)?;
            rms_norm(&target.random(&[5, 13, width], 1), &norm)
        });
        compare(
            &format!("modulated_layer_norm of a part of a row of {width}"),
            |target| {
                let modulation = target.random(&[2, 3 * width], 2);
                let of = |index: usize| modulation.narrow(1, index * width, width);
                modulated_layer_norm(&around_two(target, &[2, 5, width])?, &of(0)?, &of(2)?, 1e-3)
            },
        );
    }
}

#[test]
fn images_that_pass_from_one_operation_to_the_next() {
    compare("a residual block with a shortcut", |target| {
        let x = target.random(&[2, 24, 19, 14], 1);
        let (first, second) = (group_norm_of(target, 24, 8)?, group_norm_of(target, 40, 8)?);
        let mut hidden = conv2d(
            &group_norm_silu(&x, &first)?,
            &convolution(target, [40, 24, 3, 3], 1, 1)?,
        )?;
        hidden = group_norm_silu(&hidden, &second)?;
        let carried = conv2d(&x, &convolution(target, [40, 24, 1, 1], 1, 0)?)?;
        let sum = conv2d_onto(&carried, &hidden, &convolution(target, [40, 40, 3, 3], 1, 1)?)?;
        let smaller = conv2d(&sum, &convolution(target, [40, 40, 3, 3], 2, 1)?)?;
        let larger = upsample_nearest(&smaller)?.narrow(2, 0, 19)?;
        concatenate(&[larger, sum], 1)
    });
    compare("tokens of an image", |target| {
        let image = conv2d(
            &target.random(&[2, 8, 9, 7], 1),
            &convolution(target, [24, 8, 3, 3], 1, 1)?,
        )?;
        let tokens = silu(&tokens_of_image(&image)?)?;
        sum(&image, &image_of_tokens(&tokens, 9, 7)?)
    });
    compare("an image of single values", |target| {
        silu(&conv2d(
            &target.random(&[1, 16, 5, 6], 1),
            &convolution(target, [3, 16, 3, 3], 1, 1)?,
        )?)
    });
}

/// Values whose mean is not zero.
fn around_two(target: &Target, shape: &[usize]) -> candle_core::Result<Tensor> {
    target.random(shape, 1) + 2.0
}

fn group_norm_of(target: &Target, channels: usize, groups: usize) -> candle_core::Result<GroupNorm> {
    let vector = |seed: u64| target.random(&[channels], seed);
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
        compare("conv2d", |target| {
            let convolution = convolution(target, [outputs, inputs, kernel, kernel], stride, padding)?;
            conv2d(
                &target.random(&[2, inputs, 37, 52], 1),
                &convolution.padded_after(after),
            )
        });
    }
    for (inputs, outputs, kernel, height, width) in [
        // Sums that are split, tiles that are large, and channels that are few.
        (1280, 640, 3, 4, 8),
        (512, 130, 1, 8, 8),
        if IS_STANDIN {
            (64, 200, 3, 40, 38)
        } else {
            (64, 200, 3, 160, 150)
        },
        // Weights that are brought into another order by more shared memory than those before, and by none.
        (1600, 24, 3, 3, 5),
        (2560, 24, 3, 3, 5),
        (4, 320, 3, 16, 16),
        (64, 4, 3, 33, 16),
        (3, 3, 5, 9, 9),
    ] {
        compare(&format!("conv2d of {inputs} to {outputs}"), |target| {
            let convolution = convolution(target, [outputs, inputs, kernel, kernel], 1, kernel / 2)?;
            conv2d(&target.random(&[2, inputs, height, width], 1), &convolution)
        });
    }
    compare("conv2d_shifted", |target| {
        let convolution = convolution(target, [70, 20, 3, 3], 1, 1)?;
        conv2d_shifted(
            &target.random(&[2, 20, 9, 13], 1),
            &convolution,
            &target.random(&[2, 70], 2),
        )
    });
    compare("conv2d_onto", |target| {
        let convolution = convolution(target, [70, 20, 3, 3], 1, 1)?;
        conv2d_onto(
            &target.random(&[2, 70, 9, 13], 2),
            &target.random(&[2, 20, 9, 13], 1),
            &convolution,
        )
    });
    compare("upsample_nearest", |target| {
        upsample_nearest(&target.random(&[2, 5, 17, 23], 1))
    });
}

fn convolution(
    target: &Target,
    weight: [usize; 4],
    stride: usize,
    padding: usize,
) -> candle_core::Result<Conv2d> {
    let bias = Some(target.random(&weight[..1], 8));
    Conv2d::new(target.random(&weight, 7), bias, stride, padding)
}

#[test]
fn convolutions_by_bands() {
    let bands = |x: &Tensor, mut rows: Box<dyn FnMut(Band<'_>) -> candle_core::Result<Tensor> + '_>| {
        let bands = [x.narrow(2, 0, 12)?, x.narrow(2, 12, 20)?, x.narrow(2, 32, 5)?];
        let results = (0..bands.len()).map(|index| {
            rows(Band {
                above: index.checked_sub(1).map(|index| &bands[index]),
                rows: &bands[index],
                below: bands.get(index + 1),
            })
        });
        Tensor::cat(&results.collect::<candle_core::Result<Vec<_>>>()?, 2)
    };
    let image = |target: &Target| target.random(&[1, 16, 37, 30], 1);
    let three = |target: &Target| convolution(target, [24, 16, 3, 3], 1, 1);
    compare("conv2d by bands", |target| {
        let convolution = three(target)?;
        let mut banded = BandedConv2d::new(&convolution)?;
        bands(&image(target), Box::new(move |band| banded.rows(band, None)))
    });
    compare("conv2d by bands after upsampling", |target| {
        let convolution = three(target)?;
        let mut banded = BandedConv2d::after_upsampling(&convolution)?;
        bands(&image(target), Box::new(move |band| banded.rows(band, None)))
    });
    compare("conv2d by bands after a norm", |target| {
        let (convolution, norm) = (three(target)?, group_norm_of(target, 16, 4)?);
        let x = image(target);
        let mut moments = ChannelMoments::of(&x.narrow(2, 0, 30)?)?;
        moments.add(&x.narrow(2, 30, 7)?)?;
        let mut banded = BandedConv2d::after_norm_silu(&convolution, &norm, &moments)?;
        bands(&x, Box::new(move |band| banded.rows(band, None)))
    });
}

#[test]
fn timesteps() {
    compare("timestep_embedding", |target| {
        timestep_embedding(&(target.wide(&[7], 1) * 1000.0)?, 256)
    });
}
