//! Allocates GPU memory for a while, as another program would, to test how a run reacts.
//!
//!     cargo run --release --workspace --features cuda --example occupy -- GIGABYTES SECONDS [DEVICE]

use std::time::Duration;

use candle_core::{DType, Tensor};
use sd_weights::{device_memory, open_cuda};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |name: &str| arguments.next().ok_or_else(|| format!("{name} is missing"));
    let gigabytes: usize = number("GIGABYTES")?.parse()?;
    let seconds: f64 = number("SECONDS")?.parse()?;
    let ordinal: usize = number("DEVICE").map_or(Ok(0), |text| text.parse())?;

    let device = open_cuda(ordinal)?;
    let piece = || Tensor::zeros(1 << 30, DType::U8, &device);
    let taken = (0..gigabytes).map(|_| piece()).collect::<Result<Vec<_>, _>>()?;
    if let Some(memory) = device_memory(&device)? {
        eprintln!(
            "took {} GB, {:.1} GB are free",
            taken.len(),
            memory.free as f64 / (1_u64 << 30) as f64
        );
    }
    std::thread::sleep(Duration::from_secs_f64(seconds));
    Ok(())
}
