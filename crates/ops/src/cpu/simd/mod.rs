//! A processor's vectors, so that a kernel is written once for all of them.
//!
//! A [`Kernel`] is generic over [`Simd`]; [`InstructionSet::run`] enters it in a function that is compiled for the set.
//! What is computed with vectors must be inlined into that function, or each instruction becomes a call: functions
//! on the way are `#[inline(always)]`, closures and iterators' adaptors stay out of inner loops, and work is shared among
//! threads outside of `run`.

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

use std::sync::LazyLock;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use avx2::Avx2Fma;
#[cfg(target_arch = "x86_64")]
use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
use neon::Neon;
use portable::Portable;

pub(crate) use functions::exp2;

/// Vectors of 32-bit lanes. A value of an implementation is the proof that the processor has its instructions, so that
/// only what touches memory is unsafe.
///
/// A vector's lanes are floats, or pairs of 16-bit floats of which the first, "even", one has the lower bits, as
/// neighbours have that are loaded together from memory.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// [`LANES`](Self::LANES) lanes.
    type Vector: Copy;
    /// Lanes of a vector.
    const LANES: usize;
    /// Vectors that fit into registers.
    const REGISTERS: usize;
    /// Whether there is an instruction for [`dot_bf16`](Self::dot_bf16).
    const HAS_BF16_DOT: bool;

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
    /// `a * b + c`, rounded once where the processor can.
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `c - a * b`, rounded once where the processor can.
    fn negated_fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The greater one; `b` where either is not a number.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The smaller one; `b` where either is not a number.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The size without its sign.
    fn abs(self, a: Self::Vector) -> Self::Vector;
    /// `then` where `a < b`, `otherwise` elsewhere and where either is not a number.
    fn select_less(
        self,
        a: Self::Vector,
        b: Self::Vector,
        then: Self::Vector,
        otherwise: Self::Vector,
    ) -> Self::Vector;
    /// The nearest whole number, the even one of two. Sizes are at most 2^22.
    fn round(self, a: Self::Vector) -> Self::Vector;
    /// 2 to the power of a whole number from -126 to 127.
    fn power_of_two(self, whole: Self::Vector) -> Self::Vector;

    /// `a` times 2 to the power of a whole number that is at most 127; zero where that is less than -126.
    #[inline(always)]
    fn times_power_of_two(self, a: Self::Vector, whole: Self::Vector) -> Self::Vector {
        let least = self.splat(-126.0);
        let product = self.mul(a, self.power_of_two(self.max(least, whole)));
        self.select_less(whole, least, self.zero(), product)
    }

    /// The sum of the lanes, by halves.
    fn sum(self, a: Self::Vector) -> f32;
    /// The greatest lane. Not a number at most where a lane is none.
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

    /// `2 * LANES` consecutive values rounded to the nearest bf16, the even one of two: the lanes of `first`, then those of
    /// `second`, as consecutive pairs.
    fn narrow(self, first: Self::Vector, second: Self::Vector) -> Self::Vector;
    /// The lanes of `even` and of `odd` rounded to the nearest bf16, the even one of two: those of a lane as the pair of that
    /// lane.
    fn pair(self, even: Self::Vector, odd: Self::Vector) -> Self::Vector;
    /// The even one of each pair of bf16, widened.
    fn even_bf16(self, pairs: Self::Vector) -> Self::Vector;
    /// The odd one of each pair of bf16, widened.
    fn odd_bf16(self, pairs: Self::Vector) -> Self::Vector;
    /// The even one of each pair of f16, widened.
    fn even_f16(self, pairs: Self::Vector) -> Self::Vector;
    /// The odd one of each pair of f16, widened.
    fn odd_f16(self, pairs: Self::Vector) -> Self::Vector;

    /// Of the bits of each lane from `shift` on those that `mask` leaves, at most 24, as a number.
    fn bits(self, words: Self::Vector, shift: u32, mask: u32) -> Self::Vector;
    /// Of each byte of the lanes the four bits from `shift`, 0 or 4, on, of which those of `toggled` are turned.
    fn nibbles(self, words: Self::Vector, shift: u32, toggled: u8) -> Self::Vector;
    /// Adds to each lane of `sums` the products of its four bytes of `nibbles`, from 0 to 15, and of `bytes`, from -128 to 127.
    /// What sums are made of is the set's own: they begin with zero, hold [`NIBBLE_DOTS`] times four products, and only
    /// [`nibble_sums`](Self::nibble_sums) reads them.
    fn nibble_dot(self, sums: Self::Vector, nibbles: Self::Vector, bytes: Self::Vector) -> Self::Vector;
    /// What was summed in each lane, as a number.
    fn nibble_sums(self, sums: Self::Vector) -> Self::Vector;

    /// Adds to each lane of `sum` the products of the pairs of bf16 of `a` and `b` in that lane. An instruction may take
    /// numbers that are too small for a normal one as zeros.
    #[inline(always)]
    fn dot_bf16(self, sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // The odd ones first, as Intel's manual has it.
        let sum = self.fma(self.odd_bf16(a), self.odd_bf16(b), sum);
        self.fma(self.even_bf16(a), self.even_bf16(b), sum)
    }

    /// The lanes of `a` and of `b` by turns, as two vectors: of the first halves, then of the second ones.
    fn interleave(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2];
    /// Of the lanes of `a` and then of `b`, the first, the third and so on, and the others.
    fn deinterleave(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2];

    /// Writes a block of `LANES` by `LANES` 32-bit elements with rows and columns exchanged. Steps are bytes from row to
    /// row; rows may begin at any address.
    ///
    /// # Safety
    /// `LANES` rows of `LANES` elements can be read and as many written, and the two blocks share nothing.
    unsafe fn transpose(self, from: *const u8, from_step: usize, to: *mut u8, to_step: usize);

    /// Asks for a line of memory to be brought into the second cache. Nothing is read: any address will do.
    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}

    /// Zero in every lane.
    #[inline(always)]
    fn zero(self) -> Self::Vector {
        self.splat(0.0)
    }
}

/// The most lanes of a vector of any set.
pub(crate) const MOST_LANES: usize = 16;

/// How often [`Simd::nibble_dot`] may add to the same sums: 16 bits hold so many times two products.
pub(crate) const NIBBLE_DOTS: usize = 8;

/// Work that is written once for every set of vectors.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;

    /// Does it. To be marked `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The vectors that kernels are entered with. Sets that the processor lacks cannot be made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum InstructionSet {
    /// AVX-512 with the products of pairs of bf16 and of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<true>),
    /// AVX-512: F, BW, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<false>),
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2Fma(Avx2Fma),
    /// NEON, which every 64-bit ARM has.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// What every processor can.
    Portable(Portable<false>),
    /// The same as if it had the product of pairs of bf16, so that what leads to it is tested everywhere.
    #[cfg(test)]
    PortableBf16(Portable<true>),
}

impl InstructionSet {
    /// The best one of this processor.
    pub(crate) fn best() -> Self {
        static BEST: LazyLock<InstructionSet> = LazyLock::new(|| InstructionSet::detected()[0]);
        *BEST
    }

    /// Those of this processor, the best one first.
    fn detected() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
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
        sets.push(Self::Neon(Neon::new()));
        sets.push(Self::Portable(Portable));
        sets
    }

    /// Every set that can be entered on this processor.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut sets = Self::detected();
        sets.push(Self::PortableBf16(Portable));
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

    /// Whether products of bf16 are taken in pairs.
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

    /// Runs `kernel` with these vectors.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            // SAFETY: `simd` is the proof that the processor has the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(simd) => unsafe { with_avx512_bf16(simd, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => unsafe { with_avx512(simd, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Fma(simd) => unsafe { with_avx2_fma(simd, kernel) },
            // A program for this processor is compiled with NEON throughout.
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => kernel.run(simd),
            Self::Portable(simd) => kernel.run(simd),
            #[cfg(test)]
            Self::PortableBf16(simd) => kernel.run(simd),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni")]
fn with_avx512_bf16<K: Kernel>(simd: Avx512<true>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn with_avx512<K: Kernel>(simd: Avx512<false>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn with_avx2_fma<K: Kernel>(simd: Avx2Fma, kernel: K) -> K::Output {
    kernel.run(simd)
}
