//! The speed of each operation at the shapes of real networks, and its share of the machine's peak: `cargo
//! bench -p sd-ops`, or `cargo bench -p sd-ops -- NAME` for those whose name contains NAME.

#![allow(clippy::print_stdout)] // It measures, for whoever reads its output.

mod peak;
mod rate;
mod shapes;

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, Throughput};
use sd_ops::{
    Band, BandedConv2d, Conv2d, GroupNorm, LayerNorm, Linear, Precision, Result, RmsNorm, attention, conv2d,
    geglu, gelu_tanh, group_norm_silu, layer_norm, linear, modulated_layer_norm, rms_norm, silu,
    upsample_nearest,
};

use peak::Peaks;
use rate::{Rate, Unit};
use shapes::{ATTENTIONS, CONVOLUTIONS, Convolution, LINEARS, UPSAMPLED};

fn main() -> Result<()> {
    let peaks = Peaks::measure();
    println!("{peaks}\n");
    let f32 = || Rate::criterion(Unit::Gigaflops, peaks.f32);
    // Weights of 16 bits are multiplied as such where the CPU can.
    let bf16 = || Rate::criterion(Unit::Gigaflops, peaks.bf16.unwrap_or(peaks.f32));
    linears(f32(), "linear f32", DType::F32)?;
    linears(bf16(), "linear bf16", DType::BF16)?;
    convolutions(f32(), "conv2d f32", DType::F32)?;
    convolutions(bf16(), "conv2d bf16", DType::BF16)?;
    upsampled_convolutions(f32())?;
    attentions(f32(), "attention f32", Precision::Full)?;
    attentions(bf16(), "attention bf16", Precision::Bf16)?;
    elementwise(Rate::criterion(Unit::Gigabytes, peaks.bandwidth))
}

fn linears(mut criterion: Criterion<Rate>, name: &str, weight_type: DType) -> Result<()> {
    for (network, rows, inputs, outputs) in LINEARS {
        let x = random(&[rows, inputs])?;
        let weight = random(&[outputs, inputs])?.to_dtype(weight_type)?;
        let projection = Linear::new(weight, Some(random(&[outputs])?))?;
        let work = Throughput::Elements(2 * (rows * inputs * outputs) as u64);
        let shape = format!("{network}, {rows} x {inputs} to {outputs}");
        measure(&mut criterion, name, &shape, work, || linear(&x, &projection))?;
    }
    Ok(())
}

fn convolutions(mut criterion: Criterion<Rate>, name: &str, weight_type: DType) -> Result<()> {
    for Convolution {
        network,
        batch,
        inputs,
        outputs,
        side,
        kernel,
        stride,
    } in CONVOLUTIONS
    {
        let x = random(&[batch, inputs, side, side])?;
        let weight = random(&[outputs, inputs, kernel, kernel])?.to_dtype(weight_type)?;
        let convolution = Conv2d::new(weight, Some(random(&[outputs])?), stride, kernel / 2)?;
        let pixels = (side / stride) * (side / stride);
        let work = 2 * batch * inputs * outputs * kernel * kernel * pixels;
        let shape = format!("{network}, {batch} x {inputs} to {outputs}, {side}, {kernel} by {stride}");
        measure(
            &mut criterion,
            name,
            &shape,
            Throughput::Elements(work as u64),
            || conv2d(&x, &convolution),
        )?;
    }
    Ok(())
}

/// Counted as if every pixel of the upsampled image were computed with.
fn upsampled_convolutions(mut criterion: Criterion<Rate>) -> Result<()> {
    for (network, channels, side) in UPSAMPLED {
        let x = random(&[1, channels, side, side])?;
        let convolution = Conv2d::new(random(&[channels, channels, 3, 3])?, None, 1, 1)?;
        let work = Throughput::Elements((2 * channels * channels * 9 * 4 * side * side) as u64);
        let shape = format!("{network}, {channels}, {side} to {}", 2 * side);
        measure(
            &mut criterion,
            "conv2d f32 after upsampling",
            &shape,
            work,
            || BandedConv2d::after_upsampling(&convolution)?.rows(Band::from(&x), None),
        )?;
    }
    Ok(())
}

fn attentions(mut criterion: Criterion<Rate>, name: &str, precision: Precision) -> Result<()> {
    for (network, [batch, heads, queries, keys, size]) in ATTENTIONS {
        let of = |tokens: usize| random(&[batch, heads, tokens, size]);
        let (q, k, v) = (of(queries)?, of(keys)?, of(keys)?);
        let scale = 1.0 / (size as f64).sqrt();
        let work = Throughput::Elements((4 * batch * heads * queries * keys * size) as u64);
        let shape = format!("{network}, {batch} x {heads} x {queries} to {keys} of {size}");
        measure(&mut criterion, name, &shape, work, || {
            attention(&q, &k, &v, None, scale, precision)
        })?;
    }
    Ok(())
}

/// Operations that read each number and write one for it: what counts is the memory.
fn elementwise(mut criterion: Criterion<Rate>) -> Result<()> {
    let mut over = |name: &str, shape: &[usize], run: &dyn Fn(&Tensor) -> Result<Tensor>| {
        let x = random(shape)?;
        let bytes = 4 * (x.elem_count() + run(&x)?.elem_count()) as u64;
        measure(
            &mut criterion,
            name,
            &format!("{shape:?}"),
            Throughput::Bytes(bytes),
            || run(&x),
        )
    };
    for (channels, side, batch) in [(320, 64, 2), (1280, 16, 2), (512, 128, 1), (128, 512, 1)] {
        let norm = GroupNorm::new(32, 1e-6, random(&[channels])?, random(&[channels])?)?;
        let shape = [batch, channels, side, side];
        over("group_norm_silu", &shape, &|x| group_norm_silu(x, &norm))?;
    }
    for (batch, tokens, features) in [(2, 4096, 320), (2, 1024, 640)] {
        let norm = LayerNorm::new(Some(random(&[features])?), Some(random(&[features])?), 1e-5)?;
        over("layer_norm", &[batch, tokens, features], &|x| {
            layer_norm(x, &norm)
        })?;
        over("geglu", &[batch, tokens, 8 * features], &geglu)?;
    }
    for features in [1536, 2432] {
        let (shift, scale) = (random(&[1, features])?, random(&[1, features])?);
        over("modulated_layer_norm", &[1, 1024, features], &|x| {
            modulated_layer_norm(x, &shift, &scale, 1e-6)
        })?;
        over("gelu_tanh", &[1, 1024, 4 * features], &gelu_tanh)?;
    }
    let norm = RmsNorm::new(random(&[64])?, 1e-6)?;
    over("rms_norm", &[1, 1357, 38, 64], &|x| rms_norm(x, &norm))?;
    over("silu", &[1, 128, 512, 512], &silu)?;
    over("upsample_nearest", &[1, 256, 256, 256], &upsample_nearest)
}

/// Has criterion measure `run`, which does `work`.
fn measure(
    criterion: &mut Criterion<Rate>,
    name: &str,
    shape: &str,
    work: Throughput,
    run: impl Fn() -> Result<Tensor>,
) -> Result<()> {
    const SAMPLES: u32 = 10;
    let mut group = criterion.benchmark_group(name);
    group.sample_size(SAMPLES as usize).throughput(work);
    group.bench_function(shape, |bencher| {
        bencher.iter(|| run().expect("an operation takes its shapes"));
    });
    group.finish();
    Ok(())
}

/// Numbers of a normal distribution.
fn random(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0.0_f32, 1.0, shape, &Device::Cpu)
}
