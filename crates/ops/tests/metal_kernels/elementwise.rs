//! Kernels of single values: biases, activations, gates, residuals, and gated activations.

use candle_core::{D, DType, Device, Tensor};
use half::{bf16, f16};
use sd_ops::{add_positions, gated_gelu_tanh, gated_residual, geglu, gelu, gelu_tanh, quick_gelu, silu};

use super::comparison::{WITHIN, assert_close, held, in_every_type, random, values};
use super::compiler::{self, Source};
use super::launch::Launch;

const THREADS: [usize; 3] = [64, 4, 1];
const WIDTHS: [usize; 4] = [1, 7, 33, 1500];

type Activation = fn(&Tensor) -> sd_ops::Result<Tensor>;
/// By the numbers that the kernels know them by.
const ACTIVATIONS: [Option<Activation>; 5] =
    [None, Some(gelu), Some(gelu_tanh), Some(quick_gelu), Some(silu)];

fn groups(rows: usize, columns: usize) -> [usize; 3] {
    [columns.div_ceil(THREADS[0]), rows.div_ceil(THREADS[1]), 1]
}

/// `residual + gate * activation(x + bias)`
#[derive(Default)]
struct Epilogue<'a> {
    bias: Option<&'a Tensor>,
    activation: u16,
    /// Its rows follow each other at one stride.
    residual: Option<&'a Tensor>,
    /// `[batch, columns]`
    gate: Option<&'a Tensor>,
}

impl Epilogue<'_> {
    /// To a new tensor, or in the place of `x`.
    fn of(&self, x: &Tensor, held_type: DType, in_place: bool) -> Vec<f32> {
        let columns = x.dim(D::Minus1).unwrap();
        let rows = x.elem_count() / columns;
        let gates = self.gate.map_or(1, |gate| gate.dim(0).unwrap());
        let stride =
            |tensor: Option<&Tensor>| tensor.map_or(columns, |tensor| tensor.stride()[tensor.rank() - 2]);
        let sizes = [
            rows,
            columns,
            rows / gates,
            stride(self.gate),
            stride(self.residual),
        ];
        let flags = [self.bias.is_some(), self.residual.is_some(), self.gate.is_some()];
        let launch = Launch::of(Source::Elementwise, "epilogue", held_type)
            .constants(&flags, &[self.activation])
            .input(0, x);
        let launch = if in_place {
            launch.written_to(1, 0)
        } else {
            launch.output(1, rows * columns)
        };
        let launch = launch
            .optional(2, self.bias)
            .optional(3, self.residual)
            .optional(4, self.gate)
            .parameters(5, &sizes.map(|size| size as u32));
        launch.run(groups(rows, columns), THREADS)
    }
}

#[test]
fn activations() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, width) in in_every_type(&WIDTHS) {
        for (activation, plain) in ACTIVATIONS.iter().enumerate() {
            let epilogue = Epilogue {
                activation: activation as u16,
                ..Epilogue::default()
            };
            // Where functions bend, and as far as they are flat.
            for (greatest, in_place) in [(1.0, false), (12.0, true)] {
                let x = held(&(random(&[11, width], 1) * greatest).unwrap(), held_type);
                let found = epilogue.of(&x, held_type, in_place);
                let expected = plain.map_or(Ok(x.clone()), |plain| plain(&x)).unwrap();
                let what = format!("activation {activation} of {width} up to {greatest}");
                assert_close(&what, held_type, &found, &values(&expected), WITHIN);
            }
        }
    }
}

#[test]
fn biases_gates_and_residuals() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, width) in in_every_type(&WIDTHS) {
        let of = |shape: &[usize], seed: u64| held(&random(shape, seed), held_type);
        let x = of(&[2, 5, width], 1);
        let bias = of(&[width], 2);
        let residual = of(&[2, 5, 2 * width], 3).narrow(2, width, width).unwrap();
        let gate = of(&[2, 6 * width], 4).narrow(1, 2 * width, width).unwrap();
        for flags in 0..8 {
            let flag = |bit: u32| flags >> bit & 1 == 1;
            let (bias, residual, gate) = (
                flag(0).then_some(&bias),
                flag(1).then_some(&residual),
                flag(2).then_some(&gate),
            );
            let epilogue = Epilogue {
                bias,
                activation: 4,
                residual,
                gate,
            };
            let found = epilogue.of(&x, held_type, flags % 2 == 0);
            let biased = bias.map_or(Ok(x.clone()), |bias| x.broadcast_add(bias)).unwrap();
            let activated = silu(&biased).unwrap();
            let zeros = x.zeros_like().unwrap();
            let ones = Tensor::ones((2, width), DType::F32, &Device::Cpu).unwrap();
            let expected = gated_residual(residual.unwrap_or(&zeros), gate.unwrap_or(&ones), &activated);
            let what = format!("bias, residual and gate {flags:03b} of {width}");
            assert_close(&what, held_type, &found, &values(&expected.unwrap()), WITHIN);
        }
    }
}

#[test]
fn gated_activations() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, width) in in_every_type(&WIDTHS) {
        let x = held(&(random(&[11, 2 * width], 1) * 4.0).unwrap(), held_type);
        let bias = held(&random(&[2 * width], 2), held_type);
        // Halves of rows, and tensors of their own, of which one is written to.
        let views = [0, 1].map(|part| x.narrow(1, part * width, width).unwrap());
        let own = views.each_ref().map(|view| view.contiguous().unwrap());
        let check = |name: &str, has_bias: bool, in_place: u32, expected: &Tensor| {
            for (is_in_place, [first, second]) in [(false, &views), (true, &own)] {
                let sizes = [11, width, first.stride()[0], second.stride()[0]];
                let launch = Launch::of(Source::Elementwise, name, held_type)
                    .constants(&[has_bias, false, false], &[0])
                    .input(0, first)
                    .input(1, second)
                    .optional(3, has_bias.then_some(&bias))
                    .parameters(4, &sizes.map(|size| size as u32));
                let launch = if is_in_place {
                    launch.written_to(2, in_place)
                } else {
                    launch.output(2, 11 * width)
                };
                let found = launch.run(groups(11, width), THREADS);
                let what = format!("{name} of {width}, in place: {is_in_place}, bias: {has_bias}");
                assert_close(&what, held_type, &found, &values(expected), WITHIN);
            }
        };
        check("geglu", false, 0, &geglu(&x).unwrap());
        check(
            "geglu",
            true,
            0,
            &geglu(&x.broadcast_add(&bias).unwrap()).unwrap(),
        );
        check(
            "gated_gelu_tanh",
            false,
            1,
            &gated_gelu_tanh(&own[0], &own[1]).unwrap(),
        );
    }
}

#[test]
fn positions() {
    if !compiler::is_there() {
        return;
    }
    const TOKENS: usize = 5;
    for (held_type, width) in in_every_type(&WIDTHS) {
        let x = held(&random(&[2, TOKENS, width], 1), held_type);
        let positions = random(&[TOKENS, width], 2);
        // No gates, whose rows are those that share positions.
        let words = [2 * TOKENS, width, TOKENS, 0, width].map(|size| size as u32);
        let found = Launch::of(Source::Elementwise, "add_positions", held_type)
            .input(0, &x)
            .wide_input(1, &positions)
            .output(2, 2 * TOKENS * width)
            .parameters(3, &words)
            .run(groups(2 * TOKENS, width), THREADS);
        let expected = values(&held(&add_positions(&x, &positions).unwrap(), held_type));
        assert_eq!(found, expected, "positions of {width} in {held_type:?}");
    }
}

/// The types of the headers round as the crate `half` does: sums of values of every size, subnormal ones and such as
/// become infinite among them.
#[test]
fn sums_are_rounded_to_the_nearest() {
    if !compiler::is_there() {
        return;
    }
    let random_bits = |seed: u64| {
        values(&random(&[6000], seed))
            .into_iter()
            .map(|value| ((value + 1.0) * 32768.0) as u16)
    };
    for held_type in [DType::F16, DType::BF16] {
        let value_of = |bits: u16| match held_type {
            DType::F16 => f16::from_bits(bits).to_f32(),
            _ => bf16::from_bits(bits).to_f32(),
        };
        let pairs: Vec<(f32, f32)> = random_bits(1)
            .zip(random_bits(2))
            // Of exponents that are near, so that digits of both matter.
            .map(|(bits, other)| (value_of(bits), value_of(bits.wrapping_add(other >> 4))))
            .filter(|(a, b)| a.is_finite() && b.is_finite())
            .collect();
        let of = |values: Vec<f32>| Tensor::from_vec(values, (pairs.len(), 1), &Device::Cpu).unwrap();
        let x = of(pairs.iter().map(|(a, _)| *a).collect());
        let residual = of(pairs.iter().map(|(_, b)| *b).collect());
        let epilogue = Epilogue {
            residual: Some(&residual),
            ..Epilogue::default()
        };
        let found = epilogue.of(&x, held_type, false);
        let expected: Vec<f32> = pairs
            .iter()
            .map(|(a, b)| match held_type {
                DType::F16 => f16::from_f32(a + b).to_f32(),
                _ => bf16::from_f32(a + b).to_f32(),
            })
            .collect();
        assert_eq!(found, expected, "{held_type:?}");
    }
}
