//! Tests against Pillow's results, and with truncated and damaged files.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;

use safetensors::SafeTensors;

use super::*;
use crate::upscale::lanczos3;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/source_images")
}

/// Width, height and bytes of Pillow's results, by the name of the file and of the result.
fn expected() -> BTreeMap<(String, String), (usize, usize, Vec<u8>)> {
    let bytes = fs::read(folder().join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |(name, tensor): (&str, safetensors::tensor::TensorView<'_>)| {
        let (file, what) = name.split_once('/').unwrap();
        let sides = (tensor.shape()[1], tensor.shape()[0]);
        (
            (file.to_owned(), what.to_owned()),
            (sides.0, sides.1, tensor.data().to_vec()),
        )
    };
    tensors.iter().map(entry).collect()
}

/// The names of all valid files.
fn files() -> Vec<String> {
    let names = expected().into_keys().map(|(file, _)| file);
    let mut names: Vec<String> = names.collect();
    names.dedup();
    names
}

fn open(name: &str) -> SourceImage {
    SourceImage::open(&folder().join(name)).unwrap()
}

/// The tolerance against Pillow's bytes: decoders of lossy formats round differently.
fn tolerance(name: &str) -> u8 {
    match name.rsplit_once('.').unwrap().1 {
        "png" => 0,
        _ if name.starts_with("subsampled") || name.starts_with("cmyk") => 4,
        "jpg" => 3,
        _ if name.starts_with("lossy") => 2,
        _ => 0,
    }
}

#[track_caller]
fn assert_near(found: &[u8], expected: &[u8], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let most = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
    let most = most.unwrap_or_default();
    assert!(most <= tolerance(name), "{name}: {most} of 255 apart");
}

#[test]
fn images_are_those_of_pillow_upright_and_resampled() {
    let expected = expected();
    for name in files() {
        let source = open(&name);
        let (width, height, colours) = &expected[&(name.clone(), "colours".to_owned())];
        assert_eq!(source.sides(), (*width, *height), "{name}");
        if let Ok(size) = ImageSize::new(*width, *height) {
            assert_near(source.at(size).unwrap().pixels(), colours, &name);
        }
        let (_, _, small) = &expected[&(name.clone(), "small".to_owned())];
        let size = ImageSize::new(16, 16).unwrap();
        assert_near(source.at(size).unwrap().pixels(), small, &name);
    }
}

#[test]
fn masks_are_those_of_the_webui_and_of_diffusers() {
    let expected = expected();
    for name in files() {
        let (_, _, mask) = &expected[&(name.clone(), "mask".to_owned())];
        let found: Vec<u8> = open(&name).mask().unwrap().into_iter().map(u8::from).collect();
        let different = found.iter().zip(mask).filter(|(a, b)| a != b).count();
        // Pixels of middle brightness may round to either side.
        let most = if tolerance(&name) > 0 { mask.len() / 50 } else { 0 };
        assert!(
            found.len() == mask.len() && different <= most,
            "{name}: {different}"
        );
    }
}

#[test]
fn rows_in_any_orientation_are_resampled_as_the_whole_upright_image() {
    let pixel = |at: usize| (at * at % 251) as u8 ^ (at / 7) as u8;
    for (width, height) in [(45, 31), (16, 16), (200, 37)] {
        let stored: Vec<[u8; 3]> = (0..width * height)
            .map(|at| [1, 2, 3].map(|channel| pixel(at * channel)))
            .collect();
        for code in 0..8 {
            let orientation = Orientation {
                mirrored: code & 1 > 0,
                upside_down: code & 2 > 0,
                transposed: code & 4 > 0,
            };
            let sides = orientation.upright((width, height));
            let mut upright = vec![[0; 3]; width * height];
            for (at, colour) in stored.iter().enumerate() {
                let (x, y) = orientation.upright_position((at % width, at / width), (width, height));
                upright[y * sides.0 + x] = *colour;
            }
            let upright = RgbImage::new(sides.0, sides.1, upright.into_flattened());
            for (to_width, to_height) in [(16, 16), (16, 48), (96, 16), (48, 208)] {
                let size = ImageSize::new(to_width, to_height).unwrap();
                let mut rows = Resampled::new((width, height), orientation, size);
                for (index, colours) in stored.chunks_exact(width).enumerate() {
                    let mut row = rows::Row::new(width, false);
                    for (x, colour) in colours.iter().enumerate() {
                        row.set(x, *colour, u8::MAX);
                    }
                    rows.take(index, &row);
                }
                let whole = lanczos3(&upright, to_width, to_height);
                assert!(
                    rows.finish() == whole,
                    "{width}x{height} to {size}, {orientation:?}"
                );
            }
        }
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let truncated = tempfile::tempdir().unwrap();
    let path = truncated.path().join("truncated");
    for name in files() {
        let whole = fs::read(folder().join(&name)).unwrap();
        for length in (0..whole.len())
            .rev()
            .step_by(23)
            .chain(whole.len() - 4..whole.len())
        {
            fs::write(&path, &whole[..length]).unwrap();
            let error = SourceImage::open(&path)
                .and_then(|source| source.mask())
                .unwrap_err();
            assert!(
                matches!(error, Error::BadImage { .. }),
                "{name}, {length} bytes: {error:?}"
            );
        }
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.png");
    let reason = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        match SourceImage::open(&path).and_then(|source| source.mask()) {
            Err(Error::BadImage { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reason(b"no image").contains("neither a PNG, a JPEG nor a WebP file"));
    assert!(reason(b"").contains("neither"));
    let palette = fs::read(super::tests::folder().join("bad-palette.png")).unwrap();
    assert!(reason(&palette).contains("a palette of 4 bytes"));
    let file = |name: &str| fs::read(super::tests::folder().join(name)).unwrap();
    let mut empty = file("colour-8.png");
    empty[16..20].fill(0);
    assert!(reason(&empty).contains("it has no pixels: it is 0x16"));
    let mut vast = file("colour-8.png");
    vast[16..24].fill(0x7f);
    assert!(reason(&vast).contains("too many pixels"));
    let mut flat = file("flat.jpg");
    let frame = frame_of(&flat);
    flat[frame + 5..frame + 7].fill(0);
    assert!(reason(&flat).contains("it has no pixels"));
    assert!(matches!(
        SourceImage::open(folder.path()),
        Err(Error::BadImage { .. })
    ));
}

/// The position of the frame header of a JPEG file.
fn frame_of(bytes: &[u8]) -> usize {
    let at = bytes
        .windows(4)
        .position(|bytes| matches!(bytes, [0xff, 0xc0 | 0xc2, 0, 17]));
    at.unwrap()
}

#[test]
fn damaged_files_are_refused_or_read_and_never_panic() {
    const CHANGED_COPIES: usize = 40;
    let changed = tempfile::tempdir().unwrap();
    let path = changed.path().join("changed");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for name in files() {
        let whole = fs::read(folder().join(&name)).unwrap();
        for _ in 0..CHANGED_COPIES {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len());
                match random.below(5) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                    2 => {
                        let end = (at + 1 + random.below(12)).min(bytes.len());
                        bytes.drain(at..end);
                    }
                    3 => {
                        let end = (at + 1 + random.below(12)).min(bytes.len());
                        bytes.extend_from_within(at..end);
                    }
                    _ => bytes[at] = random.below(256) as u8,
                }
            }
            if name.ends_with("png") {
                mend_checksums(&mut bytes);
            }
            fs::write(&path, &bytes).unwrap();
            let Ok(source) = SourceImage::open(&path) else {
                continue;
            };
            if source.bytes_as_mask() > 64 << 20 {
                continue;
            }
            if let Err(error) = source.mask() {
                let reason = error.to_string();
                assert!(!reason.contains(DECODER_FAILED), "{name}: {bytes:02x?}");
            }
        }
    }
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Fixes the checksums of the chunks of a PNG file, so that changed data is read.
fn mend_checksums(bytes: &mut [u8]) {
    let mut at = png::SIGNATURE.len();
    while let Some(head) = bytes.get(at..at + 4) {
        let size = u32::from_be_bytes(head.try_into().unwrap()) as usize;
        let Some(end) = size.checked_add(at + 8).filter(|end| end + 4 <= bytes.len()) else {
            return;
        };
        let mut sum = u32::MAX;
        for &byte in &bytes[at + 4..end] {
            sum ^= u32::from(byte);
            for _ in 0..8 {
                sum = if sum & 1 > 0 {
                    sum >> 1 ^ 0xedb8_8320
                } else {
                    sum >> 1
                };
            }
        }
        bytes[end..end + 4].copy_from_slice(&(!sum).to_be_bytes());
        at = end + 4;
    }
}

#[test]
fn an_image_is_recognised_by_magic_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.txt");
    let write = |colour: ::png::ColorType, (width, height): (u32, u32), bytes: &[u8]| {
        let mut encoder = ::png::Encoder::new(File::create(&path).unwrap(), width, height);
        encoder.set_color(colour);
        encoder.write_header().unwrap().write_image_data(bytes).unwrap();
        SourceImage::open(&path).unwrap()
    };
    let pixels = (0..40 * 33).flat_map(|at| [if at % 40 < 20 { 0 } else { 255 }, 7, 7]);
    let source = write(::png::ColorType::Rgb, (40, 33), &pixels.collect::<Vec<u8>>());
    let size = source.nearest_size().unwrap();
    assert_eq!((size.width(), size.height()), (32, 32));
    assert_eq!(source.at(size).unwrap().pixels()[..3], [0, 7, 7]);
    let mask = write(::png::ColorType::Grayscale, (2, 1), &[127, 128]);
    assert_eq!(mask.mask().unwrap(), [false, true]);
    // The mask is resampled like its image: the edge stays where it was.
    let half =
        |bytes: [u8; 2]| (0..40 * 33).flat_map(move |at| [if at % 40 < 20 { bytes[0] } else { bytes[1] }]);
    let halves: Vec<bool> = (0..32 * 32).map(|at| at % 32 >= 16).collect();
    let mask = write(
        ::png::ColorType::Grayscale,
        (40, 33),
        &half([0, 255]).collect::<Vec<u8>>(),
    );
    assert_eq!(mask.mask_at(size).unwrap(), halves);
    let transparent: Vec<u8> = half([0, 255]).flat_map(|alpha| [9, alpha]).collect();
    let mask = write(::png::ColorType::GrayscaleAlpha, (40, 33), &transparent);
    assert_eq!(mask.mask_at(size).unwrap(), halves);
    fs::write(&path, "no image").unwrap();
    let error = SourceImage::open(&path).unwrap_err();
    assert!(matches!(error, Error::BadImage { .. }), "{error:?}");
}

#[test]
fn black_and_white_are_the_ends() {
    let image = RgbImage::new(1, 1, vec![0, 255, 51]);
    let values = image.to_tensor().unwrap().flatten_all().unwrap();
    assert_eq!(values.to_vec1::<f32>().unwrap(), [-1.0, 1.0, -0.6]);
}
