//! The speed of each operation at the shapes of real networks, and its share of the machine's peak: `cargo
//! bench -p sd-ops`, or `cargo bench -p sd-ops -- NAME` for those whose name contains NAME.
//!
//! With `SD_BENCH_INSTRUCTION_SET`, of `amx`, `avx512-bf16`, `avx512` and `avx2`, kernels run as on a CPU that has no
//! better instruction set than this one. With `SD_BENCH_CPU_TIME`, on Linux, the CPU time of all threads is measured
//! instead of the time that passes: other programs change it less.

#![allow(clippy::print_stdout)] // It measures, for whoever reads its output.

mod clock;
mod few_rows;
mod peak;
mod rate;
mod reuse;
mod shapes;

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, Throughput};
use sd_ops::{
    Band, BandedConv2d, Conv2d, GroupNorm, LayerNorm, Linear, Precision, Result, RmsNorm, attention, conv2d,
    geglu, gelu, gelu_tanh, group_norm_silu, layer_norm, linear, modulated_layer_norm, rms_norm, silu, sum,
    upsample_nearest,
};

use peak::Peaks;
use rate::{Rate, Unit};
use reuse::Reuse;
use shapes::{ATTENTIONS, CONVOLUTIONS, Convolution, LINEARS, UPSAMPLED};

#[global_allocator]
static ALLOCATOR: Reuse = Reuse::new();

fn main() -> Result<()> {
    if let Ok(name) = std::env::var("SD_BENCH_INSTRUCTION_SET") {
        sd_ops::assume_instruction_set(&name)?;
    }
    let peaks = Peaks::measure();
    println!("{peaks}\n");
    let f32 = || Rate::criterion(Unit::Gigaflops, peaks.f32);
    // Weights of 16 bits are multiplied as such where the CPU can.
    let bf16 = || Rate::criterion(Unit::Gigaflops, peaks.bf16.unwrap_or(peaks.f32));
    linears(f32(), "linear f32", DType::F32)?;
    linears(bf16(), "linear bf16", DType::BF16)?;
    few_rows::linears(peaks)?;
    convolutions(f32(), "conv2d f32", DType::F32)?;
    convolutions(bf16(), "conv2d bf16", DType::BF16)?;
    upsampled_convolutions(f32(), "conv2d f32 after upsampling", DType::F32)?;
    upsampled_convolutions(bf16(), "conv2d bf16 after upsampling", DType::BF16)?;
    let copied = || Rate::criterion(Unit::Gigabytes, peaks.bandwidth);
    summed_weights(copied(), "summed weights f32", DType::F32)?;
    summed_weights(copied(), "summed weights bf16", DType::BF16)?;
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

/// Counted as if every pixel of the upsampled image were computed with. The weights are summed each time.
fn upsampled_convolutions(mut criterion: Criterion<Rate>, name: &str, weight_type: DType) -> Result<()> {
    for (network, batch, channels, side) in UPSAMPLED {
        let x = random(&[batch, channels, side, side])?;
        let weight = random(&[channels, channels, 3, 3])?.to_dtype(weight_type)?;
        let convolution = Conv2d::new(weight, None, 1, 1)?;
        let work = Throughput::Elements((2 * batch * channels * channels * 9 * 4 * side * side) as u64);
        let shape = format!("{network}, {batch} x {channels}, {side} to {}", 2 * side);
        measure(&mut criterion, name, &shape, work, || {
            BandedConv2d::after_upsampling(&convolution)?.rows(Band::from(&x), None)
        })?;
    }
    Ok(())
}

/// The weights of convolutions after upsampling, read once and written once.
fn summed_weights(mut criterion: Criterion<Rate>, name: &str, weight_type: DType) -> Result<()> {
    let mut all: Vec<usize> = UPSAMPLED.iter().map(|&(_, _, channels, _)| channels).collect();
    all.sort_unstable();
    all.dedup();
    for channels in all {
        let weight = random(&[channels, channels, 3, 3])?.to_dtype(weight_type)?;
        let bytes = 2 * weight.elem_count() * weight_type.size_in_bytes();
        let convolution = Conv2d::new(weight, None, 1, 1)?;
        measure(
            &mut criterion,
            name,
            &format!("{channels}"),
            Throughput::Bytes(bytes as u64),
            || BandedConv2d::after_upsampling(&convolution),
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
    for shape in [
        &[2, 320, 64, 64][..],
        &[2, 1280, 16, 16],
        &[2, 4096, 320],
        &[1, 128, 512, 512],
    ] {
        let (x, y) = (random(shape)?, random(shape)?);
        let bytes = Throughput::Bytes(3 * 4 * x.elem_count() as u64);
        measure(&mut criterion, "sum", &format!("{shape:?}"), bytes, || {
            sum(&x, &y)
        })?;
    }
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
        over("gelu", &[1, 1024, 4 * features], &gelu)?;
    }
    let norm = RmsNorm::new(random(&[64])?, 1e-6)?;
    over("rms_norm", &[1, 1357, 38, 64], &|x| rms_norm(x, &norm))?;
    over("silu", &[1, 128, 512, 512], &silu)?;
    over("upsample_nearest", &[1, 256, 256, 256], &upsample_nearest)
}

/// Has criterion measure `run`, which does `work`.
pub(crate) fn measure<R>(
    criterion: &mut Criterion<Rate>,
    name: &str,
    shape: &str,
    work: Throughput,
    run: impl Fn() -> Result<R>,
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

/// Numbers between -2 and 2. A distribution takes longer to draw from than to measure most operations.
pub(crate) fn random(shape: &[usize]) -> Result<Tensor> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1_u32 << 22) as f32 - 2.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}
