//! Products with quantised weights, which have the bits of products with the decoded values.

use candle_core::{DType, Device, Tensor};
use sd_ops::{
    Linear, Quantization, linear, linear_gated_gelu_tanh, linear_geglu, linear_gelu_tanh, linear_residual,
};

use super::{Target, device, random};

/// The bytes of `outputs` rows of `inputs` values: random ones, but for scales and small floats that are numbers.
fn rows(form: Quantization, outputs: usize, inputs: usize) -> Vec<u8> {
    let row_bytes = form.row_bytes(inputs).unwrap();
    let random = random::random(&[outputs * row_bytes], 5);
    let random: Vec<f32> = random.to_vec1().unwrap();
    let mut bytes: Vec<u8> = random.iter().map(|value| (value * 128.0) as i8 as u8).collect();
    for row in bytes.chunks_mut(row_bytes) {
        let (header, blocks) = row.split_at_mut(form.header_bytes());
        scales(header);
        for block in blocks.chunks_mut(form.block_bytes()) {
            numbers(form, block);
        }
    }
    bytes
}

/// Turns bytes into 32-bit floats between 1/512 and 1/128.
fn scales(bytes: &mut [u8]) {
    for scale in bytes.chunks_mut(4) {
        scale[3] = scale[3] & 128 | 0x3b;
    }
}

/// Turns the scales of a block, and what else could be infinite or no number, into small numbers.
fn numbers(form: Quantization, block: &mut [u8]) {
    use Quantization as Q;
    let upper_bytes: &[usize] = match form {
        Q::Q4_0 | Q::Q5_0 | Q::Q8_0 | Q::Iq4Nl | Q::Iq4Xs => &[1],
        Q::Q4_1 | Q::Q5_1 | Q::Q4K | Q::Q5K => &[1, 3],
        Q::Q2K => &[81, 83],
        Q::Q3K => &[109],
        Q::Q6K => &[209],
        _ => &[],
    };
    for &byte in upper_bytes {
        // A 16-bit float of about 1/200.
        block[byte] = block[byte] & 0x83 | 0x1c;
    }
    let small_float = |byte: &mut u8, largest: u8| *byte = *byte & 128 | (*byte & 127).min(largest);
    match form {
        Q::E4M3 | Q::ScaledE4M3 => small_float(&mut block[0], 126),
        Q::E5M2 | Q::ScaledE5M2 => small_float(&mut block[0], 119),
        Q::FourBits => scales(&mut block[..4]),
        Q::Mxfp8 => {
            block[0] = 115 + block[0] % 8;
            block[1..].iter_mut().for_each(|byte| small_float(byte, 126));
        }
        Q::Nvfp4 => small_float(&mut block[0], 126),
        _ => {}
    }
}

/// Both forms of a weight on the device: its rows, and its values as `dtype`.
fn weights(
    form: Quantization,
    (outputs, inputs): (usize, usize),
    bias: Option<&Tensor>,
    dtype: DType,
) -> [Linear; 2] {
    let bytes = rows(form, outputs, inputs);
    let row_bytes = bytes.len() / outputs;
    let mut values = vec![0.0; outputs * inputs];
    for (row, values) in bytes.chunks(row_bytes).zip(values.chunks_mut(inputs)) {
        form.decode(row, 0, values);
    }
    assert!(values.iter().all(|value| value.is_finite()), "{form:?}");
    let rows = Tensor::from_vec(bytes, (outputs, row_bytes), &device()).unwrap();
    let values = Tensor::from_vec(values, (outputs, inputs), &Device::Cpu)
        .and_then(|values| values.to_dtype(dtype)?.to_device(&device()))
        .unwrap();
    [
        Linear::quantized(rows, form, bias.cloned()).unwrap(),
        Linear::new(values, bias.cloned()).unwrap(),
    ]
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
    let values: Vec<f32> = values.to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_form_is_decoded_to_the_bits_of_the_cpu() {
    for form in Quantization::ALL {
        // Where blocks are values, a row may end between the eight of a thread.
        let inputs = if form.block_values() == 1 { 301 } else { 512 };
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let [quantized, values] = weights(form, (37, inputs), None, dtype);
            let identity = Tensor::eye(inputs, DType::F32, &Device::Cpu)
                .and_then(|identity| identity.to_dtype(dtype)?.to_device(&device()))
                .unwrap();
            let [found, expected] = [quantized, values].map(|weight| linear(&identity, &weight).unwrap());
            assert!(bits(&found) == bits(&expected), "{form:?} as {dtype:?}");
        }
    }
}

#[test]
fn products_with_a_quantised_weight_have_the_bits_of_those_with_its_values() {
    for (form, dtype) in [
        (Quantization::Q4K, DType::BF16),
        (Quantization::ScaledE4M3, DType::F16),
    ] {
        let target = Target {
            device: device(),
            held_type: dtype,
        };
        let (x, bias) = (target.random(&[2, 77, 256], 1), target.random(&[140], 2));
        let residual = target.random(&[2, 77, 140], 3);
        let [quantized, values] = weights(form, (140, 256), Some(&bias), dtype);
        let all = |weight: &Linear| -> candle_core::Result<Vec<Vec<u32>>> {
            Ok(vec![
                bits(&linear(&x, weight)?),
                bits(&linear_gelu_tanh(&x, weight)?),
                bits(&linear_residual(&residual, &x, weight)?),
                bits(&linear_geglu(&x, weight)?),
                bits(&linear_gated_gelu_tanh(&x, weight, weight)?),
            ])
        };
        assert!(all(&quantized).unwrap() == all(&values).unwrap(), "{form:?}");
    }
}
