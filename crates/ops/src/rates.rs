//! How fast a device computes, from two short measurements: a matrix product and a sum.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};

use crate::capabilities::{Capabilities, Memory};
use crate::{Linear, Result, linear, sum};

/// How long each of the two is repeated, once it has run.
const REPEATED: Duration = Duration::from_millis(60);
/// Values of each of the three tensors of a sum: 8 MB in 32 bits, as large feature maps are.
const SUMMED: usize = 1 << 21;

/// The rates of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Multiply-adds of linear layers in a second.
    pub multiply_adds: f64,
    /// Bytes that element-wise operations read or write in a second.
    pub bytes: f64,
}

/// How a device is measured.
#[derive(Debug, Clone, Copy)]
struct Measurement {
    /// Rows of activations, and features of the inputs and of the outputs, of the products that are tried. The first that
    /// takes as long as [`LONG`] counts, or else the last.
    products: &'static [(usize, usize)],
    /// Operations between two waits for the device.
    calls: usize,
}

/// What a product takes at least to keep a device busy. Longer ones would only take longer.
const LONG: Duration = Duration::from_millis(20);

/// A few milliseconds on a CPU of two cores.
const OF_CPU: Measurement = Measurement {
    products: &[(256, 1024)],
    calls: 1,
};
/// Enough to keep a GPU busy.
const OF_GPU: Measurement = Measurement {
    products: &[(256, 256), (512, 512), (1024, 1024), (2048, 2048)],
    calls: 8,
};

impl Rates {
    /// Measures `device` with weights of `weight_type`, which takes about a fifth of a second and at most 48 MB.
    /// The best of several runs counts, because other programs only ever slow one down.
    ///
    /// # Errors
    /// The device fails.
    pub fn measure(device: &Device, weight_type: DType) -> Result<Self> {
        let capabilities = Capabilities::of(device);
        let activation_type = capabilities.activation_type(weight_type);
        let Measurement { products, calls } = match capabilities.memory {
            Memory::Host => OF_CPU,
            Memory::Unified | Memory::Discrete => OF_GPU,
        };
        let mut multiply_adds = 0.0;
        for &(rows, features) in products {
            // Ones, whose products are exact and finite in every type.
            let x = Tensor::ones((rows, features), activation_type, device)?;
            let projection = Linear::new(Tensor::ones((features, features), weight_type, device)?, None)?;
            let seconds = least_seconds(device, calls, || linear(&x, &projection))?;
            multiply_adds = (rows * features * features) as f64 / seconds;
            if seconds >= LONG.as_secs_f64() {
                break;
            }
        }
        let (x, y) = (
            Tensor::ones(SUMMED, activation_type, device)?,
            Tensor::ones(SUMMED, activation_type, device)?,
        );
        let seconds = least_seconds(device, calls, || sum(&x, &y))?;
        let moved = 3 * SUMMED * activation_type.size_in_bytes();
        Ok(Self {
            multiply_adds,
            bytes: moved as f64 / seconds,
        })
    }
}

/// The least seconds of one of `calls` runs. The first ones, which may compile kernels, do not count.
fn least_seconds(device: &Device, calls: usize, run: impl Fn() -> Result<Tensor>) -> Result<f64> {
    let round = || -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..calls {
            run()?;
        }
        device.synchronize()?;
        Ok(start.elapsed())
    };
    round()?;
    let start = Instant::now();
    let mut least = round()?;
    while start.elapsed() < REPEATED {
        least = least.min(round()?);
    }
    // A clock that stands still gives no rate of infinity.
    Ok(least.max(Duration::from_nanos(1)).as_secs_f64() / calls as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_a_computer() {
        for weight_type in [DType::F32, DType::BF16, DType::F16] {
            let rates = Rates::measure(&Device::Cpu, weight_type).unwrap();
            // From a core that a program emulates to more than any server has.
            assert!(
                (1e7..1e14).contains(&rates.multiply_adds),
                "{weight_type:?}: {rates:?}"
            );
            assert!((1e8..1e13).contains(&rates.bytes), "{weight_type:?}: {rates:?}");
        }
    }
}
