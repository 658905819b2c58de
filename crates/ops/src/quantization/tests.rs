//! Decoding is compared with candle's, and with the definitions of small floats.

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::cpu::kernel::tests::random;

/// The value of a small float by its definition.
fn defined(byte: u8, fraction_bits: u32, bias: i32) -> f32 {
    let magnitude = u32::from(byte & 127);
    let (exponent, fraction) = (magnitude >> fraction_bits, magnitude & ((1 << fraction_bits) - 1));
    let share = f64::from(fraction) / f64::from(1 << fraction_bits);
    let value = match exponent {
        0 => share * 2.0_f64.powi(1 - bias),
        _ => (1.0 + share) * 2.0_f64.powi(exponent as i32 - bias),
    };
    let sign = if byte < 128 { 1.0 } else { -1.0 };
    (sign * value) as f32
}

#[test]
fn small_floats_are_those_of_their_definitions() {
    for byte in 0..=255 {
        match byte & 127 {
            127 => assert!(e4m3(byte).is_nan()),
            _ => assert_eq!(e4m3(byte).to_bits(), defined(byte, 3, 7).to_bits(), "{byte}"),
        }
        match byte & 127 {
            124 => assert_eq!(
                e5m2(byte),
                if byte < 128 {
                    f32::INFINITY
                } else {
                    f32::NEG_INFINITY
                }
            ),
            125.. => assert!(e5m2(byte).is_nan()),
            _ => assert_eq!(e5m2(byte).to_bits(), defined(byte, 2, 15).to_bits(), "{byte}"),
        }
    }
    assert_eq!(
        (e4m3(0x7e), e4m3(0x81), e5m2(0x7b)),
        (448.0, -0.001_953_125, 57344.0)
    );
}

#[test]
fn blocks_of_ggml_have_the_values_of_candle() {
    for (form, kind) in [
        (Quantization::Q4_0, GgmlDType::Q4_0),
        (Quantization::Q4_1, GgmlDType::Q4_1),
        (Quantization::Q5_0, GgmlDType::Q5_0),
        (Quantization::Q5_1, GgmlDType::Q5_1),
        (Quantization::Q8_0, GgmlDType::Q8_0),
        (Quantization::Q2K, GgmlDType::Q2K),
        (Quantization::Q3K, GgmlDType::Q3K),
        (Quantization::Q4K, GgmlDType::Q4K),
        (Quantization::Q5K, GgmlDType::Q5K),
        (Quantization::Q6K, GgmlDType::Q6K),
    ] {
        let count = 6 * UNIT;
        let bytes: Vec<u8> = random(&[form.row_bytes(count).unwrap()], 7)
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .map(|value| value.to_bits().wrapping_mul(2_654_435_761).to_le_bytes()[3])
            .collect();
        let storage = QStorage::from_data(bytes.as_slice().into(), &Device::Cpu, kind).unwrap();
        let expected = QTensor::new(storage, (1, count)).unwrap();
        let expected: Tensor = expected.dequantize(&Device::Cpu).unwrap();
        let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
        let mut found = vec![0.0; count];
        form.decode(&bytes, 0, &mut found);
        for (found, expected) in found.iter().zip(expected) {
            let close = (found - expected).abs() <= 1e-6 * expected.abs();
            assert!(
                close || (found.is_nan() && expected.is_nan()) || *found == expected,
                "{form:?}"
            );
        }
        let mut part = vec![0.0; UNIT];
        form.decode(&bytes, 3 * UNIT, &mut part);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert!(bits(&part) == bits(&found[3 * UNIT..4 * UNIT]), "{form:?}");
    }
}

#[test]
fn scales_are_before_what_they_scale() {
    let decoded = |form: Quantization, row: &[u8]| {
        let mut values = vec![0.0; form.row_values(row.len()).unwrap()];
        form.decode(row, 0, &mut values);
        values
    };
    let bytes = |floats: &[f32]| {
        floats
            .iter()
            .flat_map(|float| float.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let row = [bytes(&[0.5]), vec![0x38, 0xb8, 0x7e]].concat();
    assert_eq!(decoded(Quantization::ScaledE4M3, &row), [0.5, -0.5, 224.0]);
    let row = [bytes(&[0.5, 3.0]), vec![2, 0xfe, 127]].concat();
    assert_eq!(decoded(Quantization::ScaledInt8, &row), [3.0, -3.0, 190.5]);
    let levels: Vec<f32> = (0..16).map(|level| level as f32).collect();
    let row = [bytes(&levels), bytes(&[2.0]), vec![0x1f; 32]].concat();
    assert_eq!(decoded(Quantization::FourBits, &row)[..4], [2.0, 30.0, 2.0, 30.0]);
    let row = [vec![128], vec![0x38; 32]].concat();
    assert_eq!(decoded(Quantization::Mxfp8, &row), [2.0; 32]);
    let row = [bytes(&[0.25]), vec![0x40], vec![0x91; 8]].concat();
    assert_eq!(
        decoded(Quantization::Nvfp4, &row)[..4],
        [0.25, -0.25, 0.25, -0.25]
    );
}

#[test]
fn rows_are_a_header_and_whole_blocks() {
    for form in Quantization::ALL {
        assert!(UNIT.is_multiple_of(form.block_values()), "{form:?}");
        let bytes = form.row_bytes(3 * form.block_values()).unwrap();
        assert_eq!(bytes, form.header_bytes() + 3 * form.block_bytes());
        assert_eq!(form.row_values(bytes), Some(3 * form.block_values()));
        if form.block_values() > 1 {
            assert_eq!(form.row_bytes(form.block_values() + 1), None);
            assert_eq!(form.row_values(bytes + 1), None);
        }
    }
    // What has no number of bytes.
    assert_eq!(Quantization::Mxfp8.row_bytes(usize::MAX / 32 * 32), None);
    assert_eq!(Quantization::ScaledInt8.row_bytes(usize::MAX), None);
    assert_eq!(Quantization::ScaledInt8.row_values(7), None);
}
