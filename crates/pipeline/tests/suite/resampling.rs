//! Lanczos resampling against Pillow, and Canny edges against OpenCV, byte by byte.

use std::path::Path;

use safetensors::SafeTensors;
use sd_pipeline::control::canny;
use sd_pipeline::save::RgbImage;
use sd_pipeline::upscale::lanczos3;

fn fixture() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/resampling.safetensors");
    std::fs::read(path).unwrap()
}

fn image(tensors: &SafeTensors<'_>, name: &str) -> RgbImage {
    let tensor = tensors.tensor(name).unwrap();
    RgbImage::new(tensor.shape()[1], tensor.shape()[0], tensor.data().to_vec())
}

#[test]
fn images_are_resampled_as_pillow_does() {
    let bytes = fixture();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let before = image(&tensors, "picture");
    for (width, height) in [(97, 64), (45, 71), (20, 13), (45, 64), (160, 31)] {
        let expected = image(&tensors, &format!("resized_{width}x{height}"));
        assert!(lanczos3(&before, width, height) == expected, "{width}x{height}");
    }
    assert!(lanczos3(&before, before.width(), before.height()) == before);
    let grey = RgbImage::new(2, 1, vec![77; 6]);
    assert_eq!(lanczos3(&grey, 5, 4).pixels(), [77; 60]);
}

#[test]
fn edges_are_those_that_opencv_finds() {
    let bytes = fixture();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for (source, low, high, edges) in [
        ("picture", 100, 200, "edges"),
        ("large", 100, 200, "edges_of_large"),
        ("large", 20, 60, "edges_of_more"),
    ] {
        let expected: Vec<u8> = tensors
            .tensor(edges)
            .unwrap()
            .data()
            .iter()
            .flat_map(|&edge| [edge; 3])
            .collect();
        let found = canny(&image(&tensors, source), low, high);
        let different = found
            .pixels()
            .iter()
            .zip(&expected)
            .filter(|(a, b)| a != b)
            .count();
        assert_eq!(different, 0, "bytes of {edges}");
    }
    // A single pixel has no edges.
    assert_eq!(
        canny(&RgbImage::new(1, 1, vec![255; 3]), 100, 200).pixels(),
        [0; 3]
    );
}
