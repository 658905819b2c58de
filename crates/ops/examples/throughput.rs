//! How fast the operations are on this machine's processor, for shapes that networks have.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use sd_ops::{Band, BandedConv2d, Conv2d, GroupNorm, Linear, Result};

fn main() -> Result<()> {
    println!("linear, GFLOP/s with a weight of 32 bits and of 16:");
    for (rows, inputs, outputs) in [
        (1, 1536, 9216),
        (77, 768, 3072),
        (640, 160, 480),
        (640, 160, 640),
        (640, 640, 160),
        (333, 1536, 6144),
        (4096, 1536, 1536),
    ] {
        let (x, weight) = (random(&[rows, inputs])?, random(&[outputs, inputs])?);
        let work = 2.0 * (rows * inputs * outputs) as f64;
        let narrow = Linear::new(weight.to_dtype(DType::BF16)?, None)?;
        let wide = Linear::new(weight, None)?;
        let rates = [
            seconds(|| sd_ops::linear(&x, &wide))?,
            seconds(|| sd_ops::linear(&x, &narrow))?,
        ];
        println!(
            "  {rows} x {inputs} -> {outputs}: {:.0} {:.0}",
            work / rates[0] / 1e9,
            work / rates[1] / 1e9
        );
    }

    println!("attention, GFLOP/s:");
    for (batch, heads, queries, keys, size) in [
        (2, 5, 320, 320, 32),
        (2, 24, 333, 333, 64),
        (1, 24, 4429, 4429, 64),
        (2, 8, 4096, 4096, 40),
        (2, 8, 4096, 77, 40),
        (1, 1, 4096, 4096, 512),
    ] {
        let q = random(&[batch, heads, queries, size])?;
        let (k, v) = (
            random(&[batch, heads, keys, size])?,
            random(&[batch, heads, keys, size])?,
        );
        let work = 4.0 * (batch * heads * queries * keys * size) as f64;
        let time = seconds(|| sd_ops::attention(&q, &k, &v, None, 0.1))?;
        println!(
            "  {batch} x {heads} x {queries} to {keys} of {size}: {:.0}",
            work / time / 1e9
        );
    }

    println!("conv2d, GFLOP/s:");
    for (batch, inputs, outputs, size, kernel, stride) in [
        (1, 32, 32, 256, 3, 1),
        (1, 48, 48, 128, 3, 1),
        (1, 64, 64, 64, 3, 1),
        (1, 64, 64, 32, 3, 1),
        (1, 32, 3, 256, 3, 1),
        (1, 128, 128, 512, 3, 1),
        (1, 512, 512, 64, 3, 1),
        (2, 1280, 1280, 16, 3, 1),
        (2, 320, 320, 64, 3, 2),
        (2, 640, 640, 32, 1, 1),
    ] {
        let x = random(&[batch, inputs, size, size])?;
        let weight = random(&[outputs, inputs, kernel, kernel])?;
        let convolution = Conv2d::new(weight, Some(random(&[outputs])?), stride, kernel / 2)?;
        let pixels = size / stride * size / stride;
        let work = 2.0 * (batch * inputs * outputs * kernel * kernel * pixels) as f64;
        let time = seconds(|| sd_ops::conv2d(&x, &convolution))?;
        println!(
            "  {batch} x {inputs} -> {outputs}, {size}, {kernel}/{stride}: {:.0}",
            work / time / 1e9
        );
    }

    println!("convolution after upsampling, GFLOP/s as if of every pixel:");
    for (channels, size) in [(64, 64), (256, 128), (512, 64)] {
        let x = random(&[1, channels, size, size])?;
        let convolution = Conv2d::new(random(&[channels, channels, 3, 3])?, None, 1, 1)?;
        let work = 2.0 * (channels * channels * 9 * 4 * size * size) as f64;
        let time = seconds(|| BandedConv2d::after_upsampling(&convolution)?.rows(Band::from(&x), None))?;
        println!("  {channels}, {size}: {:.0}", work / time / 1e9);
    }

    println!("over 32 channels of 256 x 256, thousand millions of values a second:");
    let x = random(&[1, 32, 256, 256])?;
    let norm = GroupNorm::new(8, 1e-6, random(&[32])?, random(&[32])?)?;
    let count = x.elem_count() as f64 / 1e9;
    println!(
        "  group_norm_silu {:.1}",
        count / seconds(|| sd_ops::group_norm_silu(&x, &norm))?
    );
    println!("  gelu {:.1}", count / seconds(|| sd_ops::gelu(&x))?);
    println!("  silu {:.1}", count / seconds(|| sd_ops::silu(&x))?);
    println!(
        "  upsample_nearest {:.1}",
        count / seconds(|| sd_ops::upsample_nearest(&x))?
    );
    println!("  candle's silu {:.1}", count / seconds(|| x.silu())?);
    Ok(())
}

fn random(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0.0_f32, 1.0, shape, &Device::Cpu)
}

/// The least time of several runs.
fn seconds(run: impl Fn() -> Result<Tensor>) -> Result<f64> {
    let begin = Instant::now();
    let mut least = f64::MAX;
    let mut runs = 0;
    while runs < 3 || (begin.elapsed().as_secs_f64() < 0.5 && runs < 200) {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(least)
}
