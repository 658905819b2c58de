//! Kernels of rows, a simdgroup each: layer norms, RMS norms, softmax, and zeros for queries without keys.

use candle_core::{D, DType, Device, Tensor};
use sd_ops::{LayerNorm, RmsNorm, layer_norm, modulated_layer_norm, rms_norm};

use super::comparison::{TYPES, WITHIN, assert_close, held, in_every_type, random, values};
use super::compiler::{self, Source};
use super::launch::Launch;

/// The rows of a threadgroup.
const ROWS: usize = 8;
const THREADS: [usize; 3] = [32 * ROWS, 1, 1];
const WIDTHS: [usize; 4] = [1, 7, 33, 1500];
const EPSILON: f64 = 1e-5;

#[derive(Default)]
struct Norm<'a> {
    is_rms: bool,
    scale: Option<&'a Tensor>,
    scale_offset: f32,
    shift: Option<&'a Tensor>,
}

/// The norm of the rows of `x`, whose leading dimensions follow each other at one stride.
fn normed(x: &Tensor, held_type: DType, norm: &Norm<'_>) -> Vec<f32> {
    let width = x.dim(D::Minus1).unwrap();
    let rows = x.elem_count() / width;
    let stride = x.stride()[x.rank() - 2];
    let (mut batch, mut strides) = (1, [0, 0]);
    for (vectors, stride) in [norm.scale, norm.shift].into_iter().zip(&mut strides) {
        if let Some(vectors) = vectors.filter(|vectors| vectors.rank() == 2) {
            batch = vectors.dim(0).unwrap();
            *stride = vectors.stride()[0];
        }
    }
    let sizes = [rows, width, stride, rows / batch, strides[0], strides[1]].map(|size| size as u32);
    let numbers = [norm.scale_offset, EPSILON as f32].map(f32::to_bits);
    let launch = Launch::of(Source::Norm, "row_norm", held_type)
        .constants(&[!norm.is_rms, norm.scale.is_some(), norm.shift.is_some()], &[])
        .input(0, x)
        .output(1, rows * width)
        .optional(2, norm.scale)
        .optional(3, norm.shift)
        .parameters(4, &[&sizes[..], &numbers].concat());
    launch.run([rows.div_ceil(ROWS), 1, 1], THREADS)
}

/// Values whose mean is not zero.
fn around_two(shape: &[usize], held_type: DType) -> Tensor {
    held(&(random(shape, 1) + 2.0).unwrap(), held_type)
}

#[test]
fn layer_norms() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, width) in in_every_type(&WIDTHS) {
        let x = around_two(&[13, width], held_type);
        let [weight, bias] = [2, 3].map(|seed| held(&random(&[width], seed), held_type));
        for (scale, shift) in [(None, None), (Some(&weight), None), (Some(&weight), Some(&bias))] {
            let norm = Norm {
                scale,
                shift,
                ..Norm::default()
            };
            let found = normed(&x, held_type, &norm);
            let plain = LayerNorm::new(scale.cloned(), shift.cloned(), EPSILON).unwrap();
            let expected = values(&layer_norm(&x, &plain).unwrap());
            let what = format!("layer norm of {width}");
            assert_close(&what, held_type, &found, &expected, WITHIN);
        }
    }
}

#[test]
fn layer_norms_modulated_by_parts_of_vectors() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, width) in in_every_type(&WIDTHS) {
        let x = around_two(&[2, 11, width], held_type);
        let modulations = held(&random(&[2, 6 * width], 2), held_type);
        let [shift, scale] = [0, 4].map(|part| modulations.narrow(1, part * width, width).unwrap());
        let norm = Norm {
            scale: Some(&scale),
            scale_offset: 1.0,
            shift: Some(&shift),
            ..Norm::default()
        };
        let found = normed(&x, held_type, &norm);
        let expected = modulated_layer_norm(&x, &shift, &scale, EPSILON).unwrap();
        let what = format!("modulated layer norm of {width}");
        assert_close(&what, held_type, &found, &values(&expected), WITHIN);
    }
}

#[test]
fn rms_norms_of_parts_of_rows() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, width) in in_every_type(&WIDTHS) {
        let whole = held(&random(&[5, 3, 3 * width], 1), held_type);
        let x = whole.narrow(2, width, width).unwrap();
        let weight = held(&random(&[width], 2), held_type);
        let norm = Norm {
            is_rms: true,
            scale: Some(&weight),
            ..Norm::default()
        };
        let found = normed(&x, held_type, &norm);
        let expected = rms_norm(&x, &RmsNorm::new(weight.clone(), EPSILON).unwrap()).unwrap();
        let what = format!("rms norm of {width}");
        assert_close(&what, held_type, &found, &values(&expected), WITHIN);
    }
}

/// The softmax of the rows of `scale * scores + bias`.
fn softmaxed(scores: &Tensor, bias: Option<&Tensor>, scale: f32, held_type: DType) -> Vec<f32> {
    let (rows, width) = scores.dims2().unwrap();
    let mut launch = Launch::of(Source::Norm, "softmax", held_type)
        .constants(&[false, false, false, false, bias.is_some()], &[])
        .in_place(0, &values(scores))
        .parameters(2, &[rows as u32, width as u32, scale.to_bits()]);
    if let Some(bias) = bias {
        launch = launch.wide_input(1, bias);
    }
    launch.run([rows.div_ceil(ROWS), 1, 1], THREADS)
}

/// `softmax(scale * scores + bias)` of each row, zeros for rows that are all `-inf`.
fn plain_softmax(scores: &Tensor, bias: Option<&Tensor>, scale: f64) -> Tensor {
    let scaled = (scores.to_dtype(DType::F64).unwrap() * scale).unwrap();
    let scaled = match bias {
        Some(bias) => (scaled + bias.to_dtype(DType::F64).unwrap()).unwrap(),
        None => scaled,
    };
    // The least float in place of -inf, which cannot be subtracted.
    let greatest = scaled
        .max_keepdim(D::Minus1)
        .unwrap()
        .maximum(f64::from(f32::MIN))
        .unwrap();
    let powers = scaled.broadcast_sub(&greatest).unwrap().exp().unwrap();
    let sums = powers.sum_keepdim(D::Minus1).unwrap();
    let sums = sums.maximum(f64::MIN_POSITIVE).unwrap();
    powers.broadcast_div(&sums).unwrap().to_dtype(DType::F32).unwrap()
}

/// Zeros and, in the row `closed` and above the diagonal, `-inf`, plus `rest` elsewhere.
fn masked(rest: &Tensor, closed: usize) -> Tensor {
    let (rows, width) = rest.dims2().unwrap();
    let mut all = values(rest);
    for (index, value) in all.iter_mut().enumerate() {
        let (row, column) = (index / width, index % width);
        if row == closed || column > row {
            *value = f32::NEG_INFINITY;
        }
    }
    Tensor::from_vec(all, (rows, width), rest.device()).unwrap()
}

#[test]
fn softmax() {
    if !compiler::is_there() {
        return;
    }
    const SCALE: f32 = 0.3;
    for (held_type, width) in in_every_type(&WIDTHS) {
        let bias = masked(&random(&[13, width], 2), 4);
        // Scores whose powers are beyond all floats, too.
        for (size, bias) in [(4.0, None), (2000.0, None), (4.0, Some(&bias))] {
            let scores = held(&(random(&[13, width], 1) * size).unwrap(), held_type);
            let found = softmaxed(&scores, bias, SCALE, held_type);
            let expected = values(&plain_softmax(&scores, bias, SCALE.into()));
            // Exponents of hundreds are rounded to 32 bits before they are powers.
            let within = if size > 4.0 { 1e-4 } else { WITHIN };
            let what = format!("softmax of {width}");
            assert_close(&what, held_type, &found, &expected, within);
        }
    }
}

#[test]
fn rows_of_masked_scores_become_zeros_and_no_nan() {
    if !compiler::is_there() {
        return;
    }
    for held_type in TYPES {
        let scores = Tensor::full(f32::NEG_INFINITY, (3, 40), &Device::Cpu).unwrap();
        let found = softmaxed(&scores, None, 1.0, held_type);
        assert_eq!(found, [0.0; 3 * 40], "{held_type:?}");
    }
}

#[test]
fn queries_without_keys_get_zeros() {
    if !compiler::is_there() {
        return;
    }
    const BATCH: usize = 2;
    const HEADS: usize = 3;
    for (held_type, keys) in in_every_type(&[1, 33, 77]) {
        for (queries, size) in [(5, 8), (11, 40)] {
            let of_heads: Vec<Tensor> = (0..HEADS)
                .map(|head| masked(&held(&random(&[queries, keys], head as u64), held_type), head))
                .collect();
            let of_heads = Tensor::stack(&of_heads, 0).unwrap();
            let shape = (BATCH, HEADS, queries, keys);
            // One for each head, and one for all.
            let of_one = of_heads.narrow(0, 1, 1).unwrap();
            for bias in [&of_heads, &of_one] {
                let bias = bias.broadcast_as(shape).unwrap();
                let mixed = held(&random(&[BATCH, queries, HEADS, size], 9), held_type);
                let launch = Launch::of(Source::Norm, "zero_masked", held_type);
                let rows = BATCH * HEADS * queries;
                let sizes = [rows, HEADS, queries, keys, size]
                    .into_iter()
                    .chain(bias.stride()[..3].iter().copied());
                let found = launch
                    .input(0, &bias)
                    .in_place(1, &values(&mixed))
                    .parameters(2, &sizes.map(|size| size as u32).collect::<Vec<_>>())
                    .run([rows.div_ceil(ROWS), 1, 1], THREADS);
                let greatest = bias
                    .contiguous()
                    .and_then(|bias| bias.max_keepdim(D::Minus1))
                    .unwrap();
                let is_open = greatest
                    .transpose(1, 2)
                    .and_then(|greatest| greatest.gt(f32::NEG_INFINITY))
                    .unwrap();
                let is_open = is_open.broadcast_as(mixed.dims()).unwrap();
                let expected = is_open.where_cond(&mixed, &mixed.zeros_like().unwrap()).unwrap();
                assert!(expected.sum_all().unwrap().to_scalar::<f32>().unwrap() != 0.0);
                assert_eq!(found, values(&expected), "{keys} keys in {held_type:?}");
            }
        }
    }
}
