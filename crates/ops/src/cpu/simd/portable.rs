//! Vectors in plain Rust, for any CPU.

use std::array::from_fn;

use half::{bf16, f16};

use super::{Simd, tiles};

/// Plain Rust. With `BF16` it reports a bf16 dot product of its own; with 16 lanes then also products of tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable<const LANES: usize, const BF16: bool>;

#[inline(always)]
fn map<const LANES: usize>(a: [f32; LANES], of: impl Fn(f32) -> f32) -> [f32; LANES] {
    from_fn(|lane| of(a[lane]))
}

#[inline(always)]
fn zip<const LANES: usize>(a: [f32; LANES], b: [f32; LANES], of: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    from_fn(|lane| of(a[lane], b[lane]))
}

/// The lanes folded by halves.
#[inline(always)]
fn fold<const LANES: usize>(mut a: [f32; LANES], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            a[lane] = of(a[lane], a[lane + half]);
        }
        half /= 2;
    }
    a[0]
}

/// Two numbers rounded to bf16 as the halves of a lane.
#[inline(always)]
fn rounded(even: f32, odd: f32) -> f32 {
    let bits = |value: f32| u32::from(bf16::from_f32(value).to_bits());
    f32::from_bits(bits(even) | bits(odd) << 16)
}

/// The two halves of a lane, the lower one first.
#[inline(always)]
fn halves(pair: f32) -> [u16; 2] {
    [pair.to_bits() as u16, (pair.to_bits() >> 16) as u16]
}

impl<const LANES: usize, const BF16: bool> Simd for Portable<LANES, BF16> {
    type Vector = [f32; LANES];
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;
    const HAS_BF16_DOT: bool = BF16;
    const HAS_TILES: bool = BF16 && LANES == tiles::SIDE;

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; LANES] {
        // SAFETY: guaranteed by the caller.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: [f32; LANES]) {
        // SAFETY: guaranteed by the caller.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(vector) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> [f32; LANES] {
        let mut vector = [0.0; LANES];
        for (index, lane) in vector.iter_mut().enumerate().take(count) {
            // SAFETY: guaranteed by the caller.
            *lane = unsafe { from.add(index).read_unaligned() };
        }
        vector
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, vector: [f32; LANES], count: usize) {
        for (index, lane) in vector.into_iter().enumerate().take(count) {
            // SAFETY: guaranteed by the caller.
            unsafe { to.add(index).write_unaligned(lane) }
        }
    }

    #[inline(always)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn sqrt(self, a: [f32; LANES]) -> [f32; LANES] {
        map(a, f32::sqrt)
    }

    #[inline(always)]
    fn fma(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        // Without the instruction `mul_add` would be a slow function call.
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn negated_fma(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        self.sub(c, self.mul(a, b))
    }

    #[inline(always)]
    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: [f32; LANES]) -> [f32; LANES] {
        map(a, f32::abs)
    }

    #[inline(always)]
    fn select_less(
        self,
        a: [f32; LANES],
        b: [f32; LANES],
        then: [f32; LANES],
        otherwise: [f32; LANES],
    ) -> [f32; LANES] {
        from_fn(|lane| {
            if a[lane] < b[lane] {
                then[lane]
            } else {
                otherwise[lane]
            }
        })
    }

    #[inline(always)]
    fn round(self, a: [f32; LANES]) -> [f32; LANES] {
        // Adding this number leaves bits for integers only.
        const WHOLE: f32 = 12_582_912.0;
        map(a, |a| (a + WHOLE) - WHOLE)
    }

    #[inline(always)]
    fn power_of_two(self, whole: [f32; LANES]) -> [f32; LANES] {
        map(whole, |whole| f32::from_bits(((whole as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn sum(self, a: [f32; LANES]) -> f32 {
        fold(a, |a, b| a + b)
    }

    #[inline(always)]
    fn greatest(self, a: [f32; LANES]) -> f32 {
        fold(a, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> [f32; LANES] {
        // SAFETY: guaranteed by the caller.
        let values = unsafe { from.cast::<[bf16; LANES]>().read_unaligned() };
        values.map(|value| f32::from_bits(u32::from(value.to_bits()) << 16))
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> [f32; LANES] {
        // SAFETY: guaranteed by the caller.
        let values = unsafe { from.cast::<[f16; LANES]>().read_unaligned() };
        values.map(f16::to_f32)
    }

    #[inline(always)]
    fn narrow(self, first: [f32; LANES], second: [f32; LANES]) -> [f32; LANES] {
        from_fn(|lane| {
            let (from, even) = if 2 * lane < LANES {
                (&first, 2 * lane)
            } else {
                (&second, 2 * lane - LANES)
            };
            rounded(from[even], from[even + 1])
        })
    }

    #[inline(always)]
    fn pair(self, even: [f32; LANES], odd: [f32; LANES]) -> [f32; LANES] {
        zip(even, odd, rounded)
    }

    #[inline(always)]
    fn even_bf16(self, pairs: [f32; LANES]) -> [f32; LANES] {
        map(pairs, |pair| bf16::from_bits(halves(pair)[0]).to_f32())
    }

    #[inline(always)]
    fn odd_bf16(self, pairs: [f32; LANES]) -> [f32; LANES] {
        map(pairs, |pair| bf16::from_bits(halves(pair)[1]).to_f32())
    }

    #[inline(always)]
    fn even_f16(self, pairs: [f32; LANES]) -> [f32; LANES] {
        map(pairs, |pair| f16::from_bits(halves(pair)[0]).to_f32())
    }

    #[inline(always)]
    fn odd_f16(self, pairs: [f32; LANES]) -> [f32; LANES] {
        map(pairs, |pair| f16::from_bits(halves(pair)[1]).to_f32())
    }

    #[inline(always)]
    fn bits(self, words: [f32; LANES], shift: u32, mask: u32) -> [f32; LANES] {
        map(words, |word| ((word.to_bits() >> shift) & mask) as f32)
    }

    #[inline(always)]
    fn signed_byte(self, words: [f32; LANES], index: u32) -> [f32; LANES] {
        map(words, |word| f32::from((word.to_bits() >> (8 * index)) as i8))
    }

    #[inline(always)]
    fn interleave(self, a: [f32; LANES], b: [f32; LANES]) -> [[f32; LANES]; 2] {
        [0, LANES / 2].map(|first| {
            from_fn(|lane| {
                let from = if lane % 2 == 0 { &a } else { &b };
                from[first + lane / 2]
            })
        })
    }

    #[inline(always)]
    fn deinterleave(self, a: [f32; LANES], b: [f32; LANES]) -> [[f32; LANES]; 2] {
        [0, 1].map(|parity| {
            from_fn(|lane| {
                let (from, even) = if 2 * lane < LANES {
                    (&a, 2 * lane)
                } else {
                    (&b, 2 * lane - LANES)
                };
                from[even + parity]
            })
        })
    }

    #[inline(always)]
    unsafe fn transpose_columns(
        self,
        from: *const u8,
        from_step: usize,
        columns: usize,
        to: *mut u8,
        to_step: usize,
    ) {
        for row in 0..LANES {
            for column in 0..columns {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    let value = from
                        .add(row * from_step)
                        .cast::<u32>()
                        .add(column)
                        .read_unaligned();
                    to.add(column * to_step)
                        .cast::<u32>()
                        .add(row)
                        .write_unaligned(value);
                }
            }
        }
    }
}
