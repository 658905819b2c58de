//! Thumbnails of images, embedded in the page.

use std::io::BufReader;
use std::path::Path;

/// A thumbnail as a PNG file in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// The file's bytes.
    pub png: Vec<u8>,
}

/// The longest side of a thumbnail: twice its size on the page, for high-density screens.
const LONGEST: usize = 400;

impl Thumbnail {
    /// A thumbnail of the image at `path`, or None if it cannot be read.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let mut reader = png::Decoder::new(BufReader::new(sd_files::open(path).ok()?))
            .read_info()
            .ok()?;
        let mut pixels = vec![0; reader.output_buffer_size()?];
        let frame = reader.next_frame(&mut pixels).ok()?;
        if (frame.color_type, frame.bit_depth) != (png::ColorType::Rgb, png::BitDepth::Eight) {
            return None;
        }
        let (width, height) = (frame.width as usize, frame.height as usize);
        let factor = width.max(height).div_ceil(LONGEST).max(1);
        let small = shrunk(&pixels, width, height, factor);
        let (width, height) = (width.div_ceil(factor), height.div_ceil(factor));
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header().ok()?;
        writer.write_image_data(&small).ok()?;
        writer.finish().ok()?;
        Some(Self {
            width,
            height,
            png: file,
        })
    }

    /// The image as a `data:` URL.
    pub(super) fn data_address(&self) -> String {
        format!("data:image/png;base64,{}", base64(&self.png))
    }
}

/// Averages blocks of `factor` by `factor` pixels. Blocks at the right and bottom border may be smaller.
fn shrunk(pixels: &[u8], width: usize, height: usize, factor: usize) -> Vec<u8> {
    let (columns, rows) = (width.div_ceil(factor), height.div_ceil(factor));
    let mut small = Vec::with_capacity(3 * columns * rows);
    for row in 0..rows {
        for column in 0..columns {
            let across = column * factor..((column + 1) * factor).min(width);
            let down = row * factor..((row + 1) * factor).min(height);
            let count = (across.len() * down.len()) as u32;
            for part in 0..3 {
                let of_row = |y: usize| -> u32 {
                    across
                        .clone()
                        .map(|x| u32::from(pixels[3 * (y * width + x) + part]))
                        .sum()
                };
                let sum: u32 = down.clone().map(of_row).sum();
                small.push(((sum + count / 2) / count) as u8);
            }
        }
    }
    small
}

/// Base64 as in RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            text.push(if letter <= group.len() {
                LETTERS[(bits >> (18 - 6 * letter) & 63) as usize] as char
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        // The test vectors of RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn a_square_becomes_its_mean() {
        // Three by two pixels: the red channel is 0, 10, 50 above 20, 30, 90.
        let pixels: Vec<u8> = [0, 10, 50, 20, 30, 90]
            .iter()
            .flat_map(|&red| [red, 1, 2])
            .collect();
        assert_eq!(shrunk(&pixels, 3, 2, 2), [15, 1, 2, 70, 1, 2]);
        assert_eq!(shrunk(&pixels, 3, 2, 1), pixels);
    }

    #[test]
    fn what_is_no_image_has_no_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        assert_eq!(Thumbnail::of(&path), None);
        std::fs::write(&path, "not an image").unwrap();
        assert_eq!(Thumbnail::of(&path), None);
    }
}
