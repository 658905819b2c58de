//! Ranges, parts and orders of quantised tensors have the bits of the whole.

use std::path::Path;

use half::bf16;

use crate::naming::Layout;
use crate::stored::Stored;
use crate::{Checkpoint, ElementType};

/// The quantised tensors of the fixture at `path`.
fn tensors(path: &str) -> Vec<(String, Stored)> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let checkpoint = Checkpoint::open_file(fixtures.join(path)).unwrap();
    let names: Vec<String> = checkpoint.tensors().map(|(name, _)| name.to_owned()).collect();
    let tensors = names.into_iter().map(|name| {
        let stored = checkpoint.stored(&name).unwrap().clone();
        (name, stored)
    });
    tensors.filter(|(_, stored)| stored.quantized.is_some()).collect()
}

/// The bits of the values from `first` on, which are those of `bfloat16` values too.
fn bits(stored: &Stored, first: usize, count: usize) -> Vec<u32> {
    let mut wide = vec![0.0; count];
    stored.fill(&mut wide, first, |value: f32| value).unwrap();
    let mut narrow = vec![bf16::ZERO; count];
    stored.fill(&mut narrow, first, bf16::from_f32).unwrap();
    let rounded = wide.iter().map(|&value| bf16::from_f32(value).to_bits());
    assert!(narrow.iter().map(|value| value.to_bits()).eq(rounded));
    wide.into_iter().map(f32::to_bits).collect()
}

fn check(path: &str) -> usize {
    let tensors = tensors(path);
    for (name, stored) in &tensors {
        let shape = &stored.header.shape;
        let count: usize = shape.iter().product();
        let whole = bits(stored, 0, count);
        for (first, end) in [
            (0, 1),
            (1, 2),
            (5, 40),
            (31, 33),
            (100, 300),
            (255, 257),
            (count - 1, count),
        ] {
            let (first, end) = (first.min(count), end.min(count));
            assert!(
                bits(stored, first, end - first) == whole[first..end],
                "{name}: {first}..{end}"
            );
        }
        let row = count / shape[0];
        for index in 0..shape[0] {
            let of = shape[0];
            let part = stored.laid_out(Layout::Part { index, of }).unwrap();
            assert_eq!(part.header.shape[1..], shape[1..]);
            let expected = &whole[index * row..(index + 1) * row];
            assert!(bits(&part, 0, row) == expected, "{name}: row {index}");
            assert!(
                bits(&part, row / 2, row - row / 2) == expected[row / 2..],
                "{name}: row {index}"
            );
            assert!(part.header.offset + part.header.bytes <= stored.source.length());
        }
        if let Some(swapped) = stored.laid_out(Layout::HalvesSwapped) {
            let (first, second) = whole.split_at(count / 2);
            assert!(
                bits(&swapped, 0, count) == [second, first].concat(),
                "{name}: swapped"
            );
        }
        if let Some(turned) = stored.laid_out(Layout::Transposed) {
            let expected: Vec<u32> = (0..count)
                .map(|place| whole[place % shape[0] * row + place / shape[0]])
                .collect();
            assert!(bits(&turned, 0, count) == expected, "{name}: transposed");
        }
    }
    tensors.len()
}

#[test]
fn any_part_of_blocks_of_ggml_is_read() {
    assert_eq!(check("gguf/types.gguf"), 13);
}

/// A tensor of several pieces, which several threads decode.
#[test]
fn long_tensors_are_read_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let (rows, columns) = (70, 32 * 1000);
    let block = |index: usize| {
        let scale = half::f16::from_f32(1.0 + (index % 1000) as f32);
        let quants = (0..32).map(move |place| ((index * 7 + place) % 251) as u8);
        scale.to_le_bytes().into_iter().chain(quants)
    };
    let bytes: Vec<u8> = (0..rows * columns / 32).flat_map(block).collect();
    std::fs::write(&path, &bytes).unwrap();
    let header = crate::TensorHeader {
        element_type: ElementType::Q8_0,
        shape: vec![rows, columns],
        offset: 0,
        bytes: bytes.len() as u64,
    };
    let source = crate::source::Source::open(path).unwrap();
    let stored = Stored::new(header, std::sync::Arc::new(source));
    let value = |place: usize| {
        let block = place / 32;
        let scale = 1.0 + (block % 1000) as f32;
        scale * f32::from(((block * 7 + place % 32) % 251) as u8 as i8)
    };
    for (first, count) in [(0, rows * columns), (1_048_570, 70_000), (65_530, 1_100_000)] {
        let mut values = vec![0.0; count];
        stored.fill(&mut values, first, |value: f32| value).unwrap();
        let wrong = values
            .iter()
            .enumerate()
            .find(|&(index, &found)| found != value(first + index));
        assert_eq!(wrong, None, "{first} and {count} on");
    }
    assert!(stored.is_finite().unwrap());
}

#[test]
fn any_part_of_tensors_with_scales_beside_them_is_read() {
    assert_eq!(check("quantized/float8.safetensors"), 2);
    assert_eq!(check("quantized/scaled_fp8.safetensors"), 2);
    assert_eq!(check("quantized/bitsandbytes.safetensors"), 6);
    assert_eq!(check("quantized/comfy.safetensors"), 9);
    assert_eq!(check("quantized/bfl.safetensors"), 2);
    assert_eq!(check("quantized/quanto.safetensors"), 2);
}

/// The number of tensors of the fixture at `path` whose rows are held quantised, after a comparison of their values
/// to the bit.
fn check_held(path: &str) -> usize {
    let mut held = 0;
    for (name, stored) in tensors(path) {
        let parts = (0..stored.header.shape[0]).filter_map(|index| {
            let of = stored.header.shape[0];
            stored.laid_out(Layout::Part { index, of })
        });
        let swapped = stored.laid_out(Layout::HalvesSwapped);
        assert!(
            stored
                .laid_out(Layout::Transposed)
                .is_none_or(|turned| turned.held_rows().is_none())
        );
        for stored in parts.chain(swapped).chain([stored.clone()]) {
            let Some(rows) = stored.held_rows() else { continue };
            // What was there before does not matter.
            let mut bytes = vec![0xa5; rows.bytes()];
            stored.fill_rows(0, &mut bytes).unwrap();
            // Parts of it are the same rows.
            for (first, count) in [(0, 1), (1, 3), (rows.rows / 2, 2), (rows.rows / 3, rows.rows)] {
                let first = first.min(rows.rows);
                let count = count.min(rows.rows - first);
                let mut part = vec![0xa5; count * rows.row_bytes];
                stored.fill_rows(first, &mut part).unwrap();
                assert!(part == bytes[first * rows.row_bytes..][..part.len()], "{name}");
            }
            let columns = stored.header.shape[1];
            let mut values = vec![0.0; rows.rows * columns];
            for (row, values) in bytes.chunks(rows.row_bytes).zip(values.chunks_mut(columns)) {
                rows.quantization.decode(row, 0, values);
            }
            let found: Vec<u32> = values.into_iter().map(f32::to_bits).collect();
            assert!(found == bits(&stored, 0, found.len()), "{name}: {rows:?}");
        }
        held += usize::from(stored.held_rows().is_some());
    }
    held
}

#[test]
fn the_largest_quantised_matrix_of_those_that_are_wanted_is_found() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/types.gguf");
    let checkpoint = crate::Checkpoint::open_file(path).unwrap();
    let held = |name: &str| checkpoint.held_rows(name).is_some();
    let values = |name: &str| checkpoint.header(name).unwrap().shape.iter().product::<usize>();
    let names = || {
        checkpoint
            .tensors()
            .map(|(name, _)| name)
            .filter(|&name| held(name))
    };
    let largest = names().map(values).max().unwrap();
    assert_eq!(checkpoint.largest_held_rows(|_| true), largest);
    for wanted in names() {
        assert_eq!(
            checkpoint.largest_held_rows(|name| name == wanted),
            values(wanted)
        );
    }
    assert_eq!(checkpoint.largest_held_rows(|name| !held(name)), 0);
}

#[test]
fn rows_that_are_held_quantised_have_the_values_of_the_tensor() {
    assert_eq!(check_held("gguf/types.gguf"), 12);
    // Its tensors are no matrices.
    assert_eq!(check_held("quantized/float8.safetensors"), 0);
    assert_eq!(check_held("quantized/scaled_fp8.safetensors"), 2);
    assert_eq!(check_held("quantized/bitsandbytes.safetensors"), 4);
    assert_eq!(check_held("quantized/comfy.safetensors"), 7);
    assert_eq!(check_held("quantized/bfl.safetensors"), 2);
    assert_eq!(check_held("quantized/quanto.safetensors"), 2);
}
