//! Times the kernels of a GPU at the shapes of SD 3.5 Large, XL, 1.5 and their VAEs, in bf16 or f16: time, and the rate
//! of arithmetic and of memory.
//!
//!     cargo run --release -p sd-ops --features cuda --example gpu_kernels

#![allow(clippy::print_stdout, clippy::unwrap_used)] // A program for developers.

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use sd_ops::{
    Band, BandedConv2d, Conv2d, GroupNorm, Heads, LayerNorm, Linear, Precision, RmsNorm, attention, conv2d,
    group_norm_silu, joint_attention, layer_norm, linear, linear_gated_residual, linear_geglu,
    linear_gelu_tanh, modulated_layer_norm, rms_norm,
};

/// What one call takes.
struct Work {
    /// Floating-point operations.
    operations: f64,
    /// Bytes that have to be read and written once.
    bytes: f64,
}

fn time(name: &str, device: &Device, work: Work, mut call: impl FnMut() -> Result<Tensor>) {
    let run = |count: usize, call: &mut dyn FnMut() -> Result<Tensor>| {
        let begin = Instant::now();
        for _ in 0..count {
            call().unwrap();
        }
        device.synchronize().unwrap();
        begin.elapsed().as_secs_f64() / count as f64
    };
    run(3, &mut call);
    let once = run(3, &mut call);
    let count = (0.05 / once).clamp(3.0, 200.0) as usize;
    let seconds = run(count, &mut call);
    println!(
        "{name:48} {:9.1} us {:7.1} TFLOP/s {:7.0} GB/s",
        seconds * 1e6,
        work.operations / seconds / 1e12,
        work.bytes / seconds / 1e9
    );
}

fn main() -> Result<()> {
    let device = if cfg!(feature = "cuda") {
        Device::new_cuda_with_stream(0)?
    } else {
        Device::new_metal(0)?
    };
    #[cfg(feature = "cuda")]
    // SAFETY: all work is on one stream.
    #[allow(unsafe_code)]
    unsafe {
        device.as_cuda_device()?.disable_event_tracking();
    }
    for held_type in [DType::BF16, DType::F16] {
        println!("{held_type:?}");
        projections(&device, held_type)?;
        attentions(&device, held_type)?;
        norms(&device, held_type)?;
        convolutions(&device, held_type)?;
    }
    Ok(())
}

fn random(device: &Device, held_type: DType, shape: &[usize]) -> Result<Tensor> {
    Tensor::rand(-0.5_f32, 0.5, shape, device)?.to_dtype(held_type)
}

fn projections(device: &Device, held_type: DType) -> Result<()> {
    let of = |shape: &[usize]| random(device, held_type, shape);
    for (name, tokens, inputs, outputs) in [
        ("Large q", 4096, 2432, 2432),
        ("Large mlp in", 4096, 2432, 9728),
        ("Large mlp out", 4096, 9728, 2432),
        ("Large text q", 333, 2432, 2432),
        ("XL q", 1024, 1280, 1280),
        ("1.5 q", 4096, 320, 320),
    ] {
        let projection = Linear::new(of(&[outputs, inputs])?, Some(of(&[outputs])?))?;
        let x = of(&[2, tokens, inputs])?;
        let work = || Work {
            operations: 4.0 * (tokens * inputs * outputs) as f64,
            bytes: 2.0 * (2 * tokens * (inputs + outputs) + inputs * outputs) as f64,
        };
        time(&format!("linear {name}"), device, work(), || {
            linear(&x, &projection)
        });
        time(&format!("linear_gelu_tanh {name}"), device, work(), || {
            linear_gelu_tanh(&x, &projection)
        });
        if inputs >= outputs {
            let (residual, gate) = (of(&[2, tokens, outputs])?, of(&[2, outputs])?);
            time(&format!("linear_gated_residual {name}"), device, work(), || {
                linear_gated_residual(&residual, &gate, &x, &projection)
            });
        }
    }
    let projection = Linear::new(of(&[10240, 1280])?, Some(of(&[10240])?))?;
    let x = of(&[2, 1024, 1280])?;
    let work = Work {
        operations: 4.0 * 1024.0 * 1280.0 * 10240.0,
        bytes: 0.0,
    };
    time("linear_geglu XL", device, work, || linear_geglu(&x, &projection));
    Ok(())
}

fn attentions(device: &Device, held_type: DType) -> Result<()> {
    let of = |shape: &[usize]| random(device, held_type, shape);
    for (name, heads, queries, keys, size) in [
        ("XL 64x64", 10, 4096, 4096, 64),
        ("XL 32x32", 20, 1024, 1024, 64),
        ("XL 64x64 to text", 10, 4096, 77, 64),
        ("1.5 64x64", 8, 4096, 4096, 40),
        ("1.5 32x32", 8, 1024, 1024, 80),
        ("1.5 16x16", 8, 256, 256, 160),
        ("128", 16, 4096, 4096, 128),
        ("VAE 128x128", 1, 16384, 16384, 512),
    ] {
        let batch = if size == 512 { 1 } else { 2 };
        let part = |tokens: usize| of(&[batch, tokens, heads, size])?.transpose(1, 2);
        let (q, k, v) = (part(queries)?, part(keys)?, part(keys)?);
        let work = Work {
            operations: 4.0 * (batch * heads * queries * keys * size) as f64,
            bytes: 4.0 * (batch * heads * (queries + keys) * size) as f64,
        };
        time(&format!("attention {name}"), device, work, || {
            attention(&q, &k, &v, None, 0.1, Precision::Full)
        });
    }
    let heads = |tokens: usize| -> Result<Heads> {
        let part = || of(&[2, tokens, 38, 64]);
        Ok(Heads {
            queries: part()?,
            keys: part()?,
            values: part()?,
        })
    };
    let (first, second) = (heads(4096)?, heads(333)?);
    let work = Work {
        operations: 4.0 * 2.0 * 4429.0 * 4429.0 * 2432.0,
        bytes: 0.0,
    };
    time("joint_attention Large", device, work, || {
        Ok(joint_attention(first.clone(), second.clone(), 0.125, Precision::Full)?.0)
    });
    Ok(())
}

fn norms(device: &Device, held_type: DType) -> Result<()> {
    let of = |shape: &[usize]| random(device, held_type, shape);
    let twice = |values: usize| Work {
        operations: 0.0,
        bytes: 4.0 * values as f64,
    };
    let (x, shift, scale) = (of(&[2, 4096, 2432])?, of(&[2, 2432])?, of(&[2, 2432])?);
    time(
        "modulated_layer_norm Large",
        device,
        twice(2 * 4096 * 2432),
        || modulated_layer_norm(&x, &shift, &scale, 1e-6),
    );
    let x = of(&[2, 4096, 38, 64])?;
    let norm = RmsNorm::new(of(&[64])?, 1e-6)?;
    time("rms_norm Large q", device, twice(2 * 4096 * 2432), || {
        rms_norm(&x, &norm)
    });
    let x = of(&[2, 1024, 1280])?;
    let norm = LayerNorm::new(Some(of(&[1280])?), Some(of(&[1280])?), 1e-5)?;
    time("layer_norm XL", device, twice(2 * 1024 * 1280), || {
        layer_norm(&x, &norm)
    });
    for (name, channels, side) in [
        ("XL 320", 320, 128),
        ("1.5 1280", 1280, 8),
        ("VAE 128", 128, 1024),
    ] {
        let x = channels_last(&of(&[1, side, side, channels])?)?;
        let norm = GroupNorm::new(32, 1e-5, of(&[channels])?, of(&[channels])?)?;
        time(
            &format!("group_norm_silu {name}"),
            device,
            twice(side * side * channels),
            || group_norm_silu(&x, &norm),
        );
    }
    Ok(())
}

fn channels_last(pixels: &Tensor) -> Result<Tensor> {
    pixels.permute((0, 3, 1, 2))
}

fn convolutions(device: &Device, held_type: DType) -> Result<()> {
    let of = |shape: &[usize]| random(device, held_type, shape);
    for (name, batch, inputs, outputs, side, kernel) in [
        ("XL 320 128x128", 2, 320, 320, 128, 3),
        ("XL 640 64x64", 2, 640, 640, 64, 3),
        ("XL 1280 32x32", 2, 1280, 1280, 32, 3),
        ("XL 2560 to 1280 32x32", 2, 2560, 1280, 32, 3),
        ("1.5 320 64x64", 2, 320, 320, 64, 3),
        ("1.5 1280 16x16", 2, 1280, 1280, 16, 3),
        ("1.5 1280 8x8", 2, 1280, 1280, 8, 3),
        ("1.5 2560 to 1280 1x1", 2, 2560, 1280, 16, 1),
        ("VAE 512 128x128", 1, 512, 512, 128, 3),
        ("VAE 512 512x512", 1, 512, 512, 512, 3),
        ("VAE 128 1024x1024", 1, 128, 128, 1024, 3),
        ("VAE 128 to 3 1024x1024", 1, 128, 3, 1024, 3),
    ] {
        let x = channels_last(&of(&[batch, side, side, inputs])?)?;
        let weight = of(&[outputs, inputs, kernel, kernel])?;
        let convolution = Conv2d::new(weight, Some(of(&[outputs])?), 1, kernel / 2)?;
        let values = batch * side * side;
        let work = || Work {
            operations: 2.0 * (values * inputs * outputs * kernel * kernel) as f64,
            bytes: 2.0 * (values * (inputs + outputs) + inputs * outputs * kernel * kernel) as f64,
        };
        time(&format!("conv2d {name}"), device, work(), || {
            conv2d(&x, &convolution)
        });
        if name == "VAE 512 512x512" {
            let x = channels_last(&of(&[1, 256, 256, inputs])?)?;
            time("conv2d after upsampling, to 512x512", device, work(), || {
                BandedConv2d::after_upsampling(&convolution)?.rows(Band::from(&x), None)
            });
        }
    }
    Ok(())
}
