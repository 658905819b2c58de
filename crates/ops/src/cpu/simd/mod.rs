//! SIMD vectors: kernels are written once for all instruction sets.
//!
//! A [`Kernel`] is generic over [`Simd`]; [`InstructionSet::run`] calls it in a function that is compiled for
//! the instruction set. Code with vectors must be inlined into that function, or each instruction becomes a
//! call: functions on the way are `#[inline(always)]`, closures and iterator adaptors stay out of inner
//! loops, and parallelism is outside of `run`.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod functions;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(test)]
mod tests;
pub(crate) mod tiles;
pub(crate) mod wide;

use std::sync::OnceLock;

use candle_core::bail;
use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use avx2::Avx2Fma;
#[cfg(target_arch = "x86_64")]
use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
use neon::Neon;
use portable::Portable;

use crate::Result;
pub(crate) use functions::exp2;
use tiles::TileProduct;

/// Vectors of 32-bit lanes. A value of an implementation proves that the CPU has its instructions, so that
/// only memory access is unsafe.
///
/// A lane is a float, or a pair of 16-bit floats, of which the even one has the lower bits, as neighbours in
/// memory have.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// [`LANES`](Self::LANES) lanes.
    type Vector: Copy;
    /// Lanes of a vector.
    const LANES: usize;
    /// Number of vector registers.
    const REGISTERS: usize;
    /// Whether there is an instruction for [`dot_bf16`](Self::dot_bf16).
    const HAS_BF16_DOT: bool;
    /// Whether there is a matrix unit for [`multiply_tiles`](Self::multiply_tiles), which kernels then use in the
    /// place of bf16 dot products. Vectors have 16 lanes then.
    const HAS_TILES: bool = false;

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::Vector;

    /// Loads a vector from any address.
    ///
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn load(self, from: *const f32) -> Self::Vector;

    /// Stores a vector at any address.
    ///
    /// # Safety
    /// `LANES` values can be written.
    unsafe fn store(self, to: *mut f32, vector: Self::Vector);

    /// Loads the first `count` lanes, at most `LANES`; the others are zero.
    ///
    /// # Safety
    /// `count` values can be read.
    unsafe fn load_first(self, from: *const f32, count: usize) -> Self::Vector;

    /// Stores the first `count` lanes, at most `LANES`.
    ///
    /// # Safety
    /// `count` values can be written.
    unsafe fn store_first(self, to: *mut f32, vector: Self::Vector, count: usize);

    /// `a + b`
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a / b`
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The square root.
    fn sqrt(self, a: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once where the CPU can.
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `c - a * b`, rounded once where the CPU can.
    fn negated_fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The maximum; `b` if either is NaN.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The minimum; `b` if either is NaN.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The absolute value.
    fn abs(self, a: Self::Vector) -> Self::Vector;
    /// `then` where `a < b`, `otherwise` elsewhere and for NaN.
    fn select_less(
        self,
        a: Self::Vector,
        b: Self::Vector,
        then: Self::Vector,
        otherwise: Self::Vector,
    ) -> Self::Vector;
    /// The nearest integer, ties to even. Absolute values are at most 2^22.
    fn round(self, a: Self::Vector) -> Self::Vector;
    /// 2 to the power of an integer from -126 to 127.
    fn power_of_two(self, whole: Self::Vector) -> Self::Vector;

    /// `a` times 2 to the power of an integer of at most 127; 0 below -126.
    #[inline(always)]
    fn times_power_of_two(self, a: Self::Vector, whole: Self::Vector) -> Self::Vector {
        let least = self.splat(-126.0);
        let product = self.mul(a, self.power_of_two(self.max(least, whole)));
        self.select_less(whole, least, self.zero(), product)
    }

    /// The sum of the lanes, by halves.
    fn sum(self, a: Self::Vector) -> f32;
    /// The largest lane; may be NaN if a lane is.
    fn greatest(self, a: Self::Vector) -> f32;

    /// Loads `LANES` values of 16 bits, widened.
    ///
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::Vector;

    /// Loads `LANES` values of 16 bits, widened.
    ///
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn load_f16(self, from: *const f16) -> Self::Vector;

    /// `2 * LANES` values rounded to bf16, ties to even: the lanes of `first`, then those of `second`, as
    /// consecutive pairs.
    fn narrow(self, first: Self::Vector, second: Self::Vector) -> Self::Vector;
    /// The lanes of `even` and `odd` rounded to bf16, ties to even, as the pair of each lane.
    fn pair(self, even: Self::Vector, odd: Self::Vector) -> Self::Vector;
    /// The even one of each pair of bf16, widened.
    fn even_bf16(self, pairs: Self::Vector) -> Self::Vector;
    /// The odd one of each pair of bf16, widened.
    fn odd_bf16(self, pairs: Self::Vector) -> Self::Vector;
    /// The even one of each pair of f16, widened.
    fn even_f16(self, pairs: Self::Vector) -> Self::Vector;
    /// The odd one of each pair of f16, widened.
    fn odd_f16(self, pairs: Self::Vector) -> Self::Vector;

    /// The bits of each lane from `shift` on under `mask`, at most 24, as a float.
    fn bits(self, words: Self::Vector, shift: u32, mask: u32) -> Self::Vector;
    /// The four bits of each lane from `shift` on, as a float.
    #[inline(always)]
    fn four_bits(self, words: Self::Vector, shift: u32) -> Self::Vector {
        self.bits(words, shift, 15)
    }
    /// The byte of each lane at `index`, counted from the lowest, as a signed integer and then a float.
    fn signed_byte(self, words: Self::Vector, index: u32) -> Self::Vector;

    /// Adds to each lane of `sum` the products of the pairs of bf16 of `a` and `b`. An instruction may flush
    /// subnormal numbers to 0.
    #[inline(always)]
    fn dot_bf16(self, sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        dot_of_widened(self, sum, a, b)
    }

    /// Prepares this thread for [`multiply_tiles`](Self::multiply_tiles), once for each task: by
    /// [`TileUnit`](tiles::TileUnit) alone.
    #[inline(always)]
    fn configure_tiles(self) {}

    /// Gives up the state of the tiles, which the operating system would save for a sleeping thread.
    #[inline(always)]
    fn release_tiles(self) {}

    /// The product of `ROWS` by `COLUMNS` blocks of the sums, 1 or 2 of each. A row of sums depends on its own row
    /// on the left alone, a column on its own column on the right.
    ///
    /// # Safety
    /// The memory is as [`TileProduct`] states, no other thread touches the sums, and a
    /// [`TileUnit`](tiles::TileUnit) of this thread exists.
    #[inline(always)]
    unsafe fn multiply_tiles<const ROWS: usize, const COLUMNS: usize>(self, product: &TileProduct<'_>) {
        // SAFETY: guaranteed by the caller.
        unsafe { tiles::multiply_plainly::<ROWS, COLUMNS>(product) }
    }

    /// Interleaves the lanes of `a` and `b`: the first halves, then the second halves.
    fn interleave(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2];
    /// Deinterleaves the lanes of `a` and then `b`: the even ones, and the odd ones.
    fn deinterleave(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2];

    /// Transposes a block of `LANES` by `LANES` 32-bit elements. Steps are bytes from row to row; rows need
    /// no alignment.
    ///
    /// # Safety
    /// `LANES` rows of `LANES` elements can be read and written, and the blocks do not overlap.
    #[inline(always)]
    unsafe fn transpose(self, from: *const u8, from_step: usize, to: *mut u8, to_step: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.transpose_columns(from, from_step, Self::LANES, to, to_step) }
    }

    /// Transposes a block of `LANES` rows of `columns` 32-bit elements, a multiple of 4 and at most `LANES`. Steps are
    /// as for [`transpose`](Self::transpose).
    ///
    /// # Safety
    /// `LANES` rows of `columns` elements can be read, and `columns` rows of `LANES` elements written, and the
    /// blocks do not overlap.
    unsafe fn transpose_columns(
        self,
        from: *const u8,
        from_step: usize,
        columns: usize,
        to: *mut u8,
        to_step: usize,
    );

    /// Prefetches a cache line into the L2 cache. Any address is allowed.
    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}

    /// Zero in every lane.
    #[inline(always)]
    fn zero(self) -> Self::Vector {
        Simd::splat(self, 0.0)
    }
}

/// [`Simd::dot_bf16`] without an instruction for it: odd values first, as Intel's manual specifies.
#[inline(always)]
fn dot_of_widened<S: Simd>(simd: S, sum: S::Vector, a: S::Vector, b: S::Vector) -> S::Vector {
    let sum = simd.fma(simd.odd_bf16(a), simd.odd_bf16(b), sum);
    simd.fma(simd.even_bf16(a), simd.even_bf16(b), sum)
}

/// The matrix unit that kernels for the CPU use, by the name that Linux has for it; none if the CPU has none, or the
/// operating system does not let this process use it. It changes the last bits of results.
pub fn matrix_unit() -> Option<&'static str> {
    InstructionSet::best().has_tiles().then_some("amx_bf16")
}

/// The instruction set that kernels for the CPU use: `amx`, `avx512-bf16`, `avx512`, `avx2`, `neon-bf16`, `neon` or
/// `portable`.
pub fn instruction_set() -> &'static str {
    InstructionSet::best().name()
}

/// What [`InstructionSet::best`] is for the rest of the process.
static CHOSEN: OnceLock<InstructionSet> = OnceLock::new();

/// Runs kernels for the CPU with the instruction set of this name ([`instruction_set`]) for the rest of the process: for
/// tests and benchmarks of the kernels of other CPUs. Call it before the first operation.
///
/// # Errors
/// This CPU has no instruction set of this name, or kernels use another one already.
pub fn assume_instruction_set(name: &str) -> Result<()> {
    let sets = InstructionSet::detected();
    let Some(set) = sets.iter().find(|set| set.name() == name) else {
        let names: Vec<_> = sets.iter().map(|set| set.name()).collect();
        bail!(
            "this CPU has no instruction set {name:?}, but {}",
            names.join(", ")
        );
    };
    let chosen = CHOSEN.get_or_init(|| *set);
    if chosen.name() != name {
        bail!("kernels use {} already", chosen.name());
    }
    Ok(())
}

/// The most lanes of a vector in any instruction set.
pub(crate) const MOST_LANES: usize = 16;

/// Code that is generic over the instruction set.
pub(crate) trait Kernel {
    /// The result.
    type Output;

    /// Runs the code. To be marked `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set that kernels can run with. Only those that the CPU has can be constructed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum InstructionSet {
    /// AVX-512 with the matrix unit of AMX.
    #[cfg(target_arch = "x86_64")]
    Amx(Avx512<true, true>),
    /// AVX-512 with bf16 dot products.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<true, false>),
    /// AVX-512: F, BW, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<false, false>),
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2Fma(Avx2Fma),
    /// NEON with bf16 dot products.
    #[cfg(target_arch = "aarch64")]
    NeonBf16(Neon<true>),
    /// NEON, which every 64-bit ARM has.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon<false>),
    /// Plain Rust, for every CPU.
    Portable(Portable<4, false>),
    /// The same with emulated bf16 dot products, so that these paths are tested everywhere.
    #[cfg(test)]
    PortableBf16(Portable<4, true>),
    /// The same with emulated products of tiles.
    #[cfg(test)]
    PortableTiles(Portable<16, true>),
}

impl InstructionSet {
    /// The fastest of this CPU, or the one that [`assume_instruction_set`] has chosen.
    pub(crate) fn best() -> Self {
        *CHOSEN.get_or_init(|| Self::detected()[0])
    }

    /// The name in [`instruction_set`].
    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => "amx",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Fma(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::NeonBf16(_) => "neon-bf16",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            Self::Portable(_) => "portable",
            #[cfg(test)]
            Self::PortableBf16(_) => "portable-bf16",
            #[cfg(test)]
            Self::PortableTiles(_) => "portable-tiles",
        }
    }

    /// Those of this CPU, the fastest first.
    fn detected() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            sets.extend(Avx512::detect().map(Self::Amx));
            let (pairs, plain) = (
                Avx512::detect().map(Self::Avx512Bf16),
                Avx512::detect().map(Self::Avx512),
            );
            // The faster one first.
            let [first, second] = match avx512::is_intels() {
                true => [plain, pairs],
                false => [pairs, plain],
            };
            sets.extend(first);
            sets.extend(second);
            sets.extend(Avx2Fma::detect().map(Self::Avx2Fma));
        }
        #[cfg(target_arch = "aarch64")]
        {
            sets.extend(Neon::detect().map(Self::NeonBf16));
            sets.push(Self::Neon(Neon::new()));
        }
        sets.push(Self::Portable(Portable));
        sets
    }

    /// Every instruction set that this CPU can run.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut sets = Self::detected();
        sets.push(Self::PortableBf16(Portable));
        sets.push(Self::PortableTiles(Portable));
        sets
    }

    /// Lanes of a vector.
    pub(crate) fn lanes(self) -> usize {
        struct Lanes;
        impl Kernel for Lanes {
            type Output = usize;

            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                S::LANES
            }
        }
        self.run(Lanes)
    }

    /// Whether bf16 dot products are used.
    pub(crate) fn has_bf16_dot(self) -> bool {
        struct HasBf16Dot;
        impl Kernel for HasBf16Dot {
            type Output = bool;

            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> bool {
                S::HAS_BF16_DOT
            }
        }
        self.run(HasBf16Dot)
    }

    /// Whether products of pairs of bf16 run on a matrix unit.
    pub(crate) fn has_tiles(self) -> bool {
        struct HasTiles;
        impl Kernel for HasTiles {
            type Output = bool;

            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> bool {
                S::HAS_TILES
            }
        }
        self.run(HasTiles)
    }

    /// Runs `kernel` with this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            // SAFETY: `simd` is the proof that the CPU has the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Amx(simd) => unsafe { with_avx512_bf16(simd, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(simd) => unsafe { with_avx512_bf16(simd, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => unsafe { with_avx512(simd, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Fma(simd) => unsafe { with_avx2_fma(simd, kernel) },
            // Programs for this CPU are compiled with NEON throughout.
            #[cfg(target_arch = "aarch64")]
            Self::NeonBf16(simd) => kernel.run(simd),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => kernel.run(simd),
            Self::Portable(simd) => kernel.run(simd),
            #[cfg(test)]
            Self::PortableBf16(simd) => kernel.run(simd),
            #[cfg(test)]
            Self::PortableTiles(simd) => kernel.run(simd),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn with_avx512_bf16<K: Kernel, const TILES: bool>(simd: Avx512<true, TILES>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn with_avx512<K: Kernel>(simd: Avx512<false, false>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn with_avx2_fma<K: Kernel>(simd: Avx2Fma, kernel: K) -> K::Output {
    kernel.run(simd)
}
