//! The peak of the machine with all threads, measured with minimal loops.
#![allow(unsafe_code)]

use std::fmt;
use std::hint::black_box;

use rayon::prelude::*;

use crate::clock::Clock;

/// Rounds of a loop over registers; some tenths of a second.
const ROUNDS: u64 = 40_000_000;
/// Numbers that are copied: more than caches hold.
const COPIED: usize = 128 << 20;
const TRIES: usize = 3;

/// The most of a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peaks {
    /// Operations on 32-bit floats.
    pub(crate) f32: f64,
    /// The same on pairs of `bfloat16` that are summed in 32 bits, where the CPU has that.
    pub(crate) bf16: Option<f64>,
    /// Bytes that are read or written while they are copied.
    pub(crate) bandwidth: f64,
    /// Bytes that are only read.
    pub(crate) read: f64,
}

impl Peaks {
    pub(crate) fn measure() -> Self {
        Self {
            f32: in_registers(f32_loop()),
            bf16: bf16_loop().map(in_registers),
            bandwidth: bandwidth(),
            read: read(),
        }
    }
}

impl fmt::Display for Peaks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = rayon::current_num_threads();
        write!(
            formatter,
            "peak of {threads} threads with {}: {:.0} GFLOP/s in 32 bits",
            sd_ops::instruction_set(),
            self.f32 / 1e9
        )?;
        if let Some(bf16) = self.bf16 {
            write!(formatter, ", {:.0} GFLOP/s of bfloat16", bf16 / 1e9)?;
        }
        write!(
            formatter,
            ", {:.1} GB/s copied, {:.1} GB/s read",
            self.bandwidth / 1e9,
            self.read / 1e9
        )
    }
}

/// A loop of so many rounds over registers, and the operations of a round.
struct Loop {
    run: fn(u64) -> f32,
    operations: u64,
}

/// Operations a second, over all threads at once.
fn in_registers(measured: Loop) -> f64 {
    let threads = rayon::current_num_threads() as u64;
    let seconds = least_seconds(|| {
        rayon::broadcast(|_| black_box((measured.run)(ROUNDS)));
    });
    (threads * ROUNDS * measured.operations) as f64 / seconds
}

fn bandwidth() -> f64 {
    let source = vec![1.0_f32; COPIED];
    let mut target = vec![0.0_f32; COPIED];
    let share = COPIED.div_ceil(rayon::current_num_threads());
    let seconds = least_seconds(|| {
        let pairs = target.par_chunks_mut(share).zip(source.par_chunks(share));
        pairs.for_each(|(target, source)| target.copy_from_slice(source));
    });
    black_box(&target);
    (2 * COPIED * size_of::<f32>()) as f64 / seconds
}

fn read() -> f64 {
    const SUMS: usize = 64;
    let source = vec![1_u32; COPIED];
    let share = COPIED.div_ceil(rayon::current_num_threads());
    let seconds = least_seconds(|| {
        source.par_chunks(share).for_each(|source| {
            let mut sums = [0_u32; SUMS];
            for values in source.as_chunks::<SUMS>().0 {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = sum.wrapping_add(*value);
                }
            }
            black_box(sums);
        });
    });
    (COPIED * size_of::<u32>()) as f64 / seconds
}

fn least_seconds(mut run: impl FnMut()) -> f64 {
    let mut least = f64::MAX;
    for _ in 0..TRIES {
        let start = Clock::start();
        run();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

/// Sums in registers: enough that none is waited for.
const SUMS: usize = 12;

#[cfg(target_arch = "x86_64")]
fn f32_loop() -> Loop {
    let set = sd_ops::instruction_set();
    if set == "amx" || set.starts_with("avx512") {
        Loop {
            // SAFETY: the CPU has AVX-512.
            run: |rounds| unsafe { x86::avx512(rounds) },
            operations: 2 * 16 * SUMS as u64,
        }
    } else if set == "avx2" {
        Loop {
            // SAFETY: the CPU has AVX2 and FMA.
            run: |rounds| unsafe { x86::avx2(rounds) },
            operations: 2 * 8 * SUMS as u64,
        }
    } else {
        plain_loop()
    }
}

#[cfg(target_arch = "x86_64")]
fn bf16_loop() -> Option<Loop> {
    if sd_ops::matrix_unit() == Some("amx_bf16") {
        return Some(Loop {
            // SAFETY: the CPU has AMX, and the operating system has given permission.
            run: |rounds| unsafe { x86::amx(rounds / 16) },
            // 16 times 16 sums of 32 products, in four tiles.
            operations: 2 * 16 * 16 * 32 * 4 / 16,
        });
    }
    (sd_ops::instruction_set() == "avx512-bf16").then_some(Loop {
        // SAFETY: the CPU has AVX-512 with its products of bfloat16.
        run: |rounds| unsafe { x86::avx512_bf16(rounds) },
        operations: 2 * 32 * SUMS as u64,
    })
}

#[cfg(target_arch = "aarch64")]
fn f32_loop() -> Loop {
    Loop {
        run: arm::neon,
        operations: 2 * 4 * 2 * SUMS as u64,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn f32_loop() -> Loop {
    plain_loop()
}

#[cfg(not(target_arch = "x86_64"))]
fn bf16_loop() -> Option<Loop> {
    None
}

/// With whatever vectors the compiler takes.
#[cfg(not(target_arch = "aarch64"))]
fn plain_loop() -> Loop {
    const LANES: usize = 8;
    fn run(rounds: u64) -> f32 {
        let mut sums = black_box([[1.0_f32; LANES]; SUMS]);
        let (factor, addend) = black_box((1.0_f32, 0.0_f32));
        for _ in 0..rounds {
            for sum in sums.as_flattened_mut() {
                *sum = *sum * factor + addend;
            }
        }
        black_box(sums)[0][0]
    }
    Loop {
        run,
        operations: 2 * (LANES * SUMS) as u64,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::SUMS;

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: u64) -> f32 {
        let mut sums = black_box([_mm512_set1_ps(1.0); SUMS]);
        let (factor, addend) = black_box((_mm512_set1_ps(1.0), _mm512_set1_ps(0.0)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, addend);
            }
        }
        _mm512_reduce_add_ps(black_box(sums)[0])
    }

    #[target_feature(enable = "avx512bf16,avx512f")]
    pub(super) fn avx512_bf16(rounds: u64) -> f32 {
        let mut sums = black_box([_mm512_set1_ps(1.0); SUMS]);
        let pair = black_box(_mm512_cvtne2ps_pbh(_mm512_set1_ps(0.0), _mm512_set1_ps(0.0)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pair, pair);
            }
        }
        _mm512_reduce_add_ps(black_box(sums)[0])
    }

    /// # Safety
    /// The CPU has AMX with products of bfloat16, and this process may use it.
    pub(super) unsafe fn amx(rounds: u64) -> f32 {
        // Eight tiles of 16 rows of 64 bytes.
        #[repr(align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = 64;
            configuration.0[48 + tile] = 16;
        }
        // SAFETY: guaranteed by the caller; tiles are zero once they are configured.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {rounds}",
                "jnz 2b",
                "tilerelease",
                configuration = in(reg) &raw const configuration,
                rounds = inout(reg) rounds => _,
                options(nostack),
            );
        }
        0.0
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: u64) -> f32 {
        let mut sums = black_box([_mm256_set1_ps(1.0); SUMS]);
        let (factor, addend) = black_box((_mm256_set1_ps(1.0), _mm256_set1_ps(0.0)));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, addend);
            }
        }
        _mm256_cvtss_f32(black_box(sums)[0])
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;
    use std::hint::black_box;

    use super::SUMS;

    pub(super) fn neon(rounds: u64) -> f32 {
        // SAFETY: every CPU of this kind has NEON.
        unsafe {
            let mut sums = black_box([vdupq_n_f32(1.0); 2 * SUMS]);
            let (factor, other) = black_box((vdupq_n_f32(1.0), vdupq_n_f32(0.0)));
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = vfmaq_f32(*sum, factor, other);
                }
            }
            vgetq_lane_f32::<0>(black_box(sums)[0])
        }
    }
}
