//! Every set that the CPU has against plain arithmetic.

use half::{bf16, f16};

use super::functions::{exp, exp2, gelu, gelu_tanh, quick_gelu, sigmoid, silu};
use super::tiles::{SIDE, TILE, TileProduct, TileUnit, multiply_plainly};
use super::wide::{Arithmetic, Wide};
use super::{InstructionSet, Kernel, Simd, assume_instruction_set, instruction_set};

/// Ordinary numbers and those at the ends of what there is.
const VALUES: [f32; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    2.5,
    3.5,
    -2.5,
    0.333_333_34,
    1e-3,
    -7.25e5,
    1e-30,
    -1e30,
    f32::MIN_POSITIVE,
    1e-40,
    f32::MAX,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    1.003_906_3,
    1.011_718_8,
    -65_504.0,
    6e-8,
    100.5,
    -3.25,
];

/// Two numbers that stand for the same: of what is not a number only that is looked at.
#[track_caller]
fn same(found: f32, expected: f32, what: &str) {
    assert!(
        found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
        "{what}: {found} instead of {expected}"
    );
}

/// Whether two numbers are equal, or both not a number.
fn is(found: f32, expected: f32) -> bool {
    found == expected || (found.is_nan() && expected.is_nan())
}

/// Calls `check` with three vectors at a time of the lanes of [`VALUES`], shifted against each other.
macro_rules! each {
    ($simd:ident, |$a:ident, $b:ident, $c:ident| $check:block) => {
        for shift in 0..VALUES.len() {
            let take = |first: usize| -> Vec<f32> {
                VALUES
                    .iter()
                    .copied()
                    .cycle()
                    .skip(first)
                    .take(S::LANES)
                    .collect()
            };
            let ($a, $b, $c) = (take(0), take(shift), take(2 * shift + 5));
            $check
        }
    };
}

fn load<S: Simd>(simd: S, values: &[f32]) -> S::Vector {
    assert!(values.len() >= S::LANES);
    // SAFETY: there are enough values.
    unsafe { simd.load(values.as_ptr()) }
}

fn lanes<S: Simd>(simd: S, vector: S::Vector) -> Vec<f32> {
    let mut values = vec![0.0; S::LANES];
    // SAFETY: there is space for them.
    unsafe { simd.store(values.as_mut_ptr(), vector) };
    values
}

/// Runs the kernel's body with every set.
macro_rules! with_every_set {
    (|$simd:ident: $S:ident| $body:block) => {{
        struct Test;
        impl Kernel for Test {
            type Output = ();

            fn run<$S: Simd>(self, $simd: $S) $body
        }
        for set in InstructionSet::all() {
            set.run(Test);
        }
    }};
}

#[test]
fn arithmetic() {
    with_every_set!(|simd: S| {
        each!(simd, |a, b, c| {
            let (x, y, z) = (load(simd, &a), load(simd, &b), load(simd, &c));
            let check = |found: S::Vector, what: &str, of: &dyn Fn(usize) -> f32| {
                for (lane, found) in lanes(simd, found).into_iter().enumerate() {
                    same(found, of(lane), what);
                }
            };
            check(simd.add(x, y), "add", &|i| a[i] + b[i]);
            check(simd.sub(x, y), "sub", &|i| a[i] - b[i]);
            check(simd.mul(x, y), "mul", &|i| a[i] * b[i]);
            check(simd.div(x, y), "div", &|i| a[i] / b[i]);
            check(simd.sqrt(x), "sqrt", &|i| a[i].sqrt());
            check(simd.abs(x), "abs", &|i| a[i].abs());
            check(simd.max(x, y), "max", &|i| if a[i] > b[i] { a[i] } else { b[i] });
            check(simd.min(x, y), "min", &|i| if a[i] < b[i] { a[i] } else { b[i] });
            check(simd.select_less(x, y, z, x), "select_less", &|i| {
                if a[i] < b[i] { c[i] } else { a[i] }
            });
            check(simd.zero(), "zero", &|_| 0.0);
            check(simd.splat(a[1]), "splat", &|_| a[1]);
            for (lane, found) in lanes(simd, simd.fma(x, y, z)).into_iter().enumerate() {
                let unfused = a[lane] * b[lane] + c[lane];
                let fused = a[lane].mul_add(b[lane], c[lane]);
                same(found, if is(found, unfused) { unfused } else { fused }, "fma");
            }
            for (lane, found) in lanes(simd, simd.negated_fma(x, y, z)).into_iter().enumerate() {
                let unfused = c[lane] - a[lane] * b[lane];
                let fused = (-a[lane]).mul_add(b[lane], c[lane]);
                same(
                    found,
                    if is(found, unfused) { unfused } else { fused },
                    "negated_fma",
                );
            }
        });
    });
}

#[test]
fn whole_numbers() {
    with_every_set!(|simd: S| {
        for step in -4000..4000 {
            let value = step as f32 / 8.0;
            let found = lanes(simd, simd.round(simd.splat(value)));
            assert!(
                found.iter().all(|&found| found == value.round_ties_even()),
                "{value}"
            );
        }
        for power in -126..=127 {
            let found = lanes(simd, simd.power_of_two(simd.splat(power as f32)));
            assert!(found.iter().all(|&found| found == 2.0_f32.powi(power)), "{power}");
        }
    });
}

#[test]
fn over_lanes() {
    with_every_set!(|simd: S| {
        let values: Vec<f32> = (0..S::LANES).map(|lane| (lane * lane) as f32 - 20.0).collect();
        assert_eq!(simd.sum(load(simd, &values)), values.iter().sum::<f32>());
        for shift in 0..S::LANES {
            let mut turned = values.clone();
            turned.rotate_left(shift);
            assert_eq!(simd.greatest(load(simd, &turned)), *values.last().unwrap());
        }
    });
}

#[test]
fn parts_of_vectors() {
    with_every_set!(|simd: S| {
        for count in 0..=S::LANES {
            // Exactly as long as what may be touched.
            let values: Vec<f32> = (0..count).map(|lane| lane as f32 + 1.0).collect();
            // SAFETY: there are `count` values.
            let vector = unsafe { simd.load_first(values.as_ptr(), count) };
            let mut expected = values.clone();
            expected.resize(S::LANES, 0.0);
            assert_eq!(lanes(simd, vector), expected);
            let mut stored = vec![-1.0; S::LANES];
            // SAFETY: there is space for `count` values.
            unsafe { simd.store_first(stored.as_mut_ptr(), vector, count) };
            expected[count..].fill(-1.0);
            assert_eq!(stored, expected);
        }
    });
}

#[test]
fn values_of_16_bits() {
    with_every_set!(|simd: S| {
        for first in (0..=u16::MAX as usize + 1 - 2 * S::LANES).step_by(2 * S::LANES) {
            let bits: Vec<u16> = (first..first + 2 * S::LANES).map(|bits| bits as u16).collect();
            let brains: Vec<bf16> = bits.iter().map(|&bits| bf16::from_bits(bits)).collect();
            let halves: Vec<f16> = bits.iter().map(|&bits| f16::from_bits(bits)).collect();
            // SAFETY: there are twice as many values as lanes.
            let (of_brains, of_halves, pairs) = unsafe {
                (
                    simd.load_bf16(brains.as_ptr()),
                    simd.load_f16(halves.as_ptr()),
                    simd.load(bits.as_ptr().cast()),
                )
            };
            for lane in 0..S::LANES {
                let of = |vector: S::Vector| lanes(simd, vector)[lane];
                same(of(of_brains), brains[lane].to_f32(), "load_bf16");
                same(of(of_halves), halves[lane].to_f32(), "load_f16");
                same(of(simd.even_bf16(pairs)), brains[2 * lane].to_f32(), "even_bf16");
                same(
                    of(simd.odd_bf16(pairs)),
                    brains[2 * lane + 1].to_f32(),
                    "odd_bf16",
                );
                same(of(simd.even_f16(pairs)), halves[2 * lane].to_f32(), "even_f16");
                same(of(simd.odd_f16(pairs)), halves[2 * lane + 1].to_f32(), "odd_f16");
            }
        }
    });
}

#[test]
fn integers_in_words() {
    with_every_set!(|simd: S| {
        each!(simd, |a, _b, _c| {
            let words = load(simd, &a);
            for index in 0..4 {
                let bits = lanes(simd, simd.bits(words, 8 * index + 2, 63));
                let four = lanes(simd, simd.four_bits(words, 8 * index + 4));
                let signed = lanes(simd, simd.signed_byte(words, index));
                for lane in 0..S::LANES {
                    let word = a[lane].to_bits();
                    assert_eq!(bits[lane], ((word >> (8 * index + 2)) & 63) as f32);
                    assert_eq!(four[lane], ((word >> (8 * index + 4)) & 15) as f32);
                    assert_eq!(signed[lane], f32::from((word >> (8 * index)) as i8));
                }
            }
        });
    });
}

#[test]
fn rounding_to_16_bits() {
    with_every_set!(|simd: S| {
        each!(simd, |a, b, _c| {
            let pairs = simd.narrow(load(simd, &a), load(simd, &b));
            let both: Vec<f32> = a
                .iter()
                .chain(&b)
                .map(|&value| bf16::from_f32(value).to_f32())
                .collect();
            let (even, odd) = (
                lanes(simd, simd.even_bf16(pairs)),
                lanes(simd, simd.odd_bf16(pairs)),
            );
            for lane in 0..S::LANES {
                // An instruction may take what is too small for a normal number as zero.
                let small = |value: f32| if value.is_subnormal() { 0.0 } else { value.abs() };
                if small(both[2 * lane]) != 0.0 {
                    same(even[lane], both[2 * lane], "narrow");
                }
                if small(both[2 * lane + 1]) != 0.0 {
                    same(odd[lane], both[2 * lane + 1], "narrow");
                }
            }
            // Neighbours that are taken apart and put together as pairs are what they were.
            let alternate = |values: &[f32]| values.iter().copied().step_by(2).collect::<Vec<_>>();
            let every: Vec<f32> = a.iter().chain(&b).copied().collect();
            let paired = simd.pair(
                load(simd, &alternate(&every)),
                load(simd, &alternate(&every[1..])),
            );
            for (found, expected) in lanes(simd, paired).into_iter().zip(lanes(simd, pairs)) {
                assert_eq!(found.to_bits(), expected.to_bits(), "pair");
            }
        });
    });
}

#[test]
fn lanes_by_turns() {
    with_every_set!(|simd: S| {
        let values: Vec<f32> = (0..2 * S::LANES).map(|lane| lane as f32).collect();
        let joined = |[a, b]: [S::Vector; 2]| -> Vec<f32> {
            lanes(simd, a).into_iter().chain(lanes(simd, b)).collect()
        };
        let (a, b) = (load(simd, &values), load(simd, &values[S::LANES..]));
        let by_turns = simd.interleave(a, b);
        let expected: Vec<f32> = (0..2 * S::LANES)
            .map(|lane| values[lane % 2 * S::LANES + lane / 2])
            .collect();
        assert_eq!(joined(by_turns), expected);
        assert_eq!(joined(simd.deinterleave(by_turns[0], by_turns[1])), values);
    });
}

#[test]
fn products_of_pairs() {
    with_every_set!(|simd: S| {
        let of = |factor: f32| -> Vec<f32> { (0..2 * S::LANES).map(|i| factor * (i as f32 - 3.0)).collect() };
        let (a, b) = (of(0.5), of(2.0));
        let pairs = |values: &[f32]| simd.narrow(load(simd, values), load(simd, &values[S::LANES..]));
        let sums = lanes(simd, simd.dot_bf16(simd.splat(10.0), pairs(&a), pairs(&b)));
        for (lane, sum) in sums.into_iter().enumerate() {
            let (even, odd) = (2 * lane, 2 * lane + 1);
            assert_eq!(sum, 10.0 + a[even] * b[even] + a[odd] * b[odd]);
        }
    });
}

#[test]
fn wide_vectors_have_the_bits_of_single_ones() {
    with_every_set!(|simd: S| {
        let count = Wide::<S>::LANES;
        let values: Vec<f32> = (0..count).map(|index| index as f32 / 7.0 - 4.0).collect();
        for count in [count, count - 1, S::LANES + 1, 1] {
            let mut found = vec![0.0_f32; values.len()];
            // SAFETY: there are as many values and results.
            unsafe {
                let wide = Arithmetic::load_first(Wide(simd), values.as_ptr(), count);
                let wide = gelu(Wide(simd), wide);
                Arithmetic::store_first(Wide(simd), found.as_mut_ptr(), wide, count);
            }
            for (index, (&value, &found)) in values.iter().zip(&found).enumerate() {
                let alone = lanes(simd, gelu(simd, simd.splat(value)))[0];
                let expected = if index < count { alone } else { 0.0 };
                assert_eq!(found.to_bits(), expected.to_bits());
            }
        }
    });
}

#[test]
fn rows_and_columns_exchanged() {
    with_every_set!(|simd: S| {
        let (size, from_step, to_step) = (S::LANES, 4 * S::LANES + 6, 4 * S::LANES + 4);
        let from: Vec<u8> = (0..size * from_step + 1)
            .map(|byte| (byte * 7 % 251) as u8)
            .collect();
        for columns in (4..=size).step_by(4) {
            let mut to = vec![0_u8; size * to_step];
            let (from, written) = (&from[1..], to.as_mut_ptr());
            // SAFETY: both have as many rows, of more elements.
            unsafe {
                if columns == size {
                    simd.transpose(from.as_ptr(), from_step, written, to_step);
                } else {
                    simd.transpose_columns(from.as_ptr(), from_step, columns, written, to_step);
                }
            }
            for row in 0..size {
                for column in 0..columns {
                    let (source, place) = (row * from_step + 4 * column, column * to_step + 4 * row);
                    assert_eq!(to[place..place + 4], from[source..source + 4]);
                }
            }
            assert!(to[columns * to_step..].iter().all(|&byte| byte == 0));
        }
    });
}

#[test]
fn exponentials() {
    with_every_set!(|simd: S| {
        for step in -870..=880 {
            let x = step as f32 / 10.0;
            let exact = f64::from(x).exp();
            let found = f64::from(lanes(simd, exp(simd, simd.splat(x)))[0]);
            assert!((found - exact).abs() <= 3e-7 * exact, "{x}: {found} {exact}");
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            let found = f64::from(lanes(simd, sigmoid(simd, simd.splat(x)))[0]);
            assert!((found - exact).abs() <= 4e-7 * exact, "{x}: {found} {exact}");
        }
        for (x, is_right) in [
            (-1e9, (|found| found < 1e-37) as fn(f32) -> bool),
            (1e9, f32::is_finite),
            (f32::NAN, f32::is_nan),
        ] {
            assert!(is_right(lanes(simd, exp(simd, simd.splat(x)))[0]), "{x}");
        }
    });
}

#[test]
fn powers_of_two_are_exact_to_a_few_units_and_vanish_below_the_normal_numbers() {
    with_every_set!(|simd: S| {
        let power = |x: f32| lanes(simd, exp2(simd, simd.splat(x)))[0];
        for step in -12_600..=12_700 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp2();
            let found = f64::from(power(x));
            assert!((found - exact).abs() <= 2e-7 * exact, "{x}: {found} {exact}");
        }
        for whole in [-126.0, -3.0, 0.0, 5.0, 127.0_f32] {
            same(power(whole), whole.exp2(), "a whole power");
        }
        for x in [-126.6, -149.0, -1e6, -1e9, -1e30, f32::MIN, f32::NEG_INFINITY] {
            same(power(x), 0.0, "a power that is too small");
        }
        assert!(power(f32::NAN).is_nan());
    });
}

#[test]
fn activations() {
    with_every_set!(|simd: S| {
        let of = |vector: S::Vector| f64::from(lanes(simd, vector)[0]);
        for step in -8000..=8000 {
            let x = step as f32 / 1000.0;
            let (wide, vector) = (f64::from(x), simd.splat(x));
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let tanh = wide * sigmoid(1.595_769_121_605_731 * (wide + 0.044_715 * wide.powi(3)));
            for (found, exact) in [
                (of(silu(simd, vector)), wide * sigmoid(wide)),
                (of(quick_gelu(simd, vector)), wide * sigmoid(1.702 * wide)),
                (of(gelu_tanh(simd, vector)), tanh),
            ] {
                assert!(
                    (found - exact).abs() <= 1e-5 * exact.abs() + 1e-15,
                    "{x}: {found} {exact}"
                );
            }
            let error = candle_core::cpu::erf::erf_f64(wide * std::f64::consts::FRAC_1_SQRT_2);
            let (found, exact) = (of(gelu(simd, vector)), 0.5 * wide * (1.0 + error));
            // The tail is far from the difference of two numbers near 1, which it would be lost in.
            assert!(
                (found - exact).abs() <= 1e-5 * exact.abs() + 1e-15,
                "{x}: {found} {exact}"
            );
            if x >= -1.0 {
                assert!(
                    (found - exact).abs() <= 4e-7 * exact.abs(),
                    "{x}: {found} {exact}"
                );
            }
        }
        for function in [gelu, gelu_tanh, quick_gelu, silu] {
            assert!(of(function(simd, simd.splat(f32::NAN))).is_nan());
            assert_eq!(of(function(simd, simd.splat(1e6))), 1e6);
            assert!(of(function(simd, simd.splat(-1e6))).abs() < 1e-30);
        }
    });
}

/// Numbers that look random, as pairs of bf16.
fn pairs(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut half = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u32::from(bf16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0).to_bits())
    };
    (0..count)
        .map(|_| f32::from_bits(half() | half() << 16))
        .collect()
}

fn check_tiles<S: Simd, const ROWS: usize, const COLUMNS: usize>(simd: S) {
    for (taps, depth, between, right_step, sums_step, add) in [
        (vec![0], 1, SIDE, 2 * SIDE, 2 * SIDE, false),
        (vec![0], 5, SIDE, 2 * SIDE, 3 * SIDE, true),
        (vec![0, 1, 7, 40], 3, SIDE + 5, 111, 5 * SIDE + 1, true),
    ] {
        let left_block = taps.len() * depth * TILE;
        let left = pairs(2 * left_block, 1);
        let right = pairs(SIDE * depth * right_step + between + SIDE + 40, 2);
        let of = |sums: &mut [f32], plainly: bool| {
            let product = TileProduct {
                left: left.as_ptr(),
                left_block,
                right: [right.as_ptr(), right[between..].as_ptr()],
                right_step,
                taps: &taps,
                depth,
                sums: sums.as_mut_ptr(),
                sums_step,
                add,
            };
            // SAFETY: the lists are as long as the product states.
            unsafe {
                if plainly {
                    multiply_plainly::<ROWS, COLUMNS>(&product);
                } else {
                    let _unit = TileUnit::new(simd);
                    simd.multiply_tiles::<ROWS, COLUMNS>(&product);
                }
            }
        };
        let (mut found, mut expected) = (vec![2.5; 2 * SIDE * sums_step], vec![2.5; 2 * SIDE * sums_step]);
        of(&mut found, false);
        of(&mut expected, true);
        for (index, (found, expected)) in found.into_iter().zip(expected).enumerate() {
            same(
                found,
                expected,
                &format!("sum {index} of {ROWS} by {COLUMNS} tiles"),
            );
        }
    }
}

#[test]
fn products_of_tiles_have_the_bits_of_the_plain_order() {
    with_every_set!(|simd: S| {
        check_tiles::<S, 1, 1>(simd);
        check_tiles::<S, 1, 2>(simd);
        check_tiles::<S, 2, 1>(simd);
        check_tiles::<S, 2, 2>(simd);
    });
}

#[test]
fn an_instruction_set_is_assumed_by_name_and_once() {
    assert!(assume_instruction_set("mmx").is_err());
    let best = instruction_set();
    assert!(assume_instruction_set(best).is_ok());
    for set in InstructionSet::detected() {
        assert_eq!(assume_instruction_set(set.name()).is_ok(), set.name() == best);
    }
    assert_eq!(instruction_set(), best);
}
