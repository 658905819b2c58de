//! WebP files: headers and pixels. Of an animation the first frame is used.
//!
//! The decoder holds the whole image, with its YUV planes or colour table, and alpha.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use image_webp::{DecodingError, WebPDecoder};

use super::orientation::Orientation;
use super::rows::{Row, Rows};
use super::{CUT, Coding, LARGEST_METADATA, OTHER_SIZE, Stored, checked_sides, end_of_file};

/// The magic bytes, with four bytes of length between them.
pub(super) const SIGNATURES: [&[u8]; 2] = [b"RIFF", b"WEBP"];
/// Bytes of the magic bytes and the length.
const HEAD: u64 = 12;
/// Bytes of a chunk's type and length.
const CHUNK_HEAD: u64 = 8;
/// Bytes of a chunk that hold the image's size.
const HEADER: u64 = 10;
/// Memory of the decoder beside images: its Huffman tables.
const DECODER: u64 = 4 << 20;

/// What is needed to decode a WebP file: only its byte range.
#[derive(Debug, Clone)]
pub(super) struct WebP;

/// The coding of a file's pixels.
#[derive(Debug, Clone, Copy, Default)]
struct Codings {
    is_lossless: bool,
    has_alpha: bool,
    is_animated: bool,
}

impl Codings {
    /// Bytes of decoding, with the rows that are passed on, for a compressed file of `length`.
    fn decoding_bytes(self, (width, height): (usize, usize), length: u64) -> u64 {
        let pixels = (width * height) as u64;
        // YUV planes of whole 16x16 blocks.
        let planes = (width as u64 + 16) * (height as u64 + 16) * 3 / 2;
        let result = if self.has_alpha { 4 } else { 3 } * pixels;
        // The decoded Huffman codes of a lossless image take more than in the file, which is mostly pixels.
        let codes = length / 2;
        let decoded = match self {
            // Unknown coding: the image, and the canvas of an animation.
            Self {
                is_animated: true, ..
            } => 15 * pixels + planes + codes,
            // A colour table is copied, and predictors are stored by blocks.
            Self {
                is_lossless: true,
                has_alpha,
                ..
            } => (if has_alpha { 1 } else { 5 }) * pixels + codes,
            // Alpha is decoded as a lossless image.
            Self { has_alpha: true, .. } => planes + 7 * pixels + length,
            Self { .. } => planes + length,
        };
        DECODER + decoded + result + 4 * width as u64
    }
}

/// Parses the chunks of `file`, which starts with the signatures.
pub(super) fn open(file: &mut BufReader<File>, length: u64) -> Result<Stored, String> {
    let mut head = [0; HEAD as usize];
    file.read_exact(&mut head).map_err(end_of_file)?;
    let end = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]])) + CHUNK_HEAD;
    if end > length {
        return Err(CUT.to_owned());
    }
    let mut at = HEAD;
    let (mut sides, mut codings, mut exif, mut xmp) = (None, Codings::default(), None, None);
    while at + CHUNK_HEAD <= end {
        let mut head = [0; CHUNK_HEAD as usize];
        file.read_exact(&mut head).map_err(end_of_file)?;
        let [a, b, c, d, size @ ..] = head;
        let size = u64::from(u32::from_le_bytes(size));
        let next = at + CHUNK_HEAD + size.next_multiple_of(2);
        let is_first = sides.is_none();
        let most = match &[a, b, c, d] {
            b"EXIF" | b"XMP " => LARGEST_METADATA,
            _ => HEADER,
        };
        let mut data = vec![0; size.min(most).min(end - at - CHUNK_HEAD) as usize];
        file.read_exact(&mut data).map_err(end_of_file)?;
        match &[a, b, c, d] {
            b"VP8 " if is_first => sides = Some(lossy_sides(&data)?),
            b"VP8L" if is_first => {
                let (found, has_alpha) = lossless_sides(&data)?;
                sides = Some(found);
                codings.has_alpha = has_alpha;
                codings.is_lossless = true;
            }
            b"VP8X" if is_first => {
                let (found, flags) = extended_sides(&data)?;
                sides = Some(found);
                codings.is_animated = flags & 0b10 != 0;
                codings.has_alpha = flags & 0b1_0000 != 0;
            }
            _ if is_first => return Err("its header is not in front".to_owned()),
            b"VP8L" => codings.is_lossless = true,
            b"EXIF" if exif.is_none() => exif = Some(data),
            b"XMP " if xmp.is_none() => xmp = Some(data),
            _ => {}
        }
        at = next;
        file.seek(SeekFrom::Start(at))
            .map_err(|error| error.to_string())?;
    }
    let (width, height) = sides.ok_or(CUT)?;
    let sides = checked_sides(width, height)?;
    Ok(Stored {
        sides,
        orientation: Orientation::of(exif.as_deref(), xmp.as_deref()),
        decoding_bytes: codings.decoding_bytes(sides, length),
        coding: Coding::WebP(WebP),
    })
}

fn lossy_sides(data: &[u8]) -> Result<(u64, u64), String> {
    match *data {
        [_, _, _, 0x9d, 0x01, 0x2a, a, b, c, d, ..] => {
            let side = |low, high| u64::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Ok((side(a, b), side(c, d)))
        }
        _ => Err("its header is none of WebP's".to_owned()),
    }
}

fn lossless_sides(data: &[u8]) -> Result<((u64, u64), bool), String> {
    match *data {
        [0x2f, a, b, c, d, ..] => {
            let bits = u64::from(u32::from_le_bytes([a, b, c, d]));
            let side = |bits: u64| 1 + (bits & 0x3fff);
            Ok(((side(bits), side(bits >> 14)), bits >> 28 & 1 != 0))
        }
        _ => Err("its header is none of WebP's".to_owned()),
    }
}

fn extended_sides(data: &[u8]) -> Result<((u64, u64), u8), String> {
    match *data {
        [flags, _, _, _, a, b, c, d, e, f, ..] => {
            let side = |low, middle, high| 1 + u64::from(u32::from_le_bytes([low, middle, high, 0]));
            Ok(((side(a, b, c), side(d, e, f)), flags))
        }
        _ => Err("its header is truncated".to_owned()),
    }
}

impl WebP {
    /// Decodes the image in `file`, of these sides, and passes its rows to `rows`.
    pub(super) fn decode(
        &self,
        mut file: BufReader<File>,
        (width, height): (usize, usize),
        rows: &mut dyn Rows,
    ) -> Result<(), String> {
        file.rewind().map_err(|error| error.to_string())?;
        let mut decoder = WebPDecoder::new(file).map_err(reason)?;
        let has_alpha = decoder.has_alpha();
        let samples = if has_alpha { 4 } else { 3 };
        let (found_width, found_height) = decoder.dimensions();
        if (found_width as usize, found_height as usize) != (width, height) {
            return Err(OTHER_SIZE.to_owned());
        }
        let mut pixels = vec![0; samples * width * height];
        decoder.read_image(&mut pixels).map_err(reason)?;
        drop(decoder);
        let mut row = Row::new(width, has_alpha);
        for (index, bytes) in pixels.chunks_exact(samples * width).enumerate() {
            for (x, pixel) in bytes.chunks_exact(samples).enumerate() {
                let alpha = pixel.get(3).copied().unwrap_or(u8::MAX);
                row.set(x, [pixel[0], pixel[1], pixel[2]], alpha);
            }
            rows.take(index, &row);
        }
        Ok(())
    }
}

fn reason(error: DecodingError) -> String {
    match error {
        DecodingError::IoError(error) => end_of_file(error),
        other => other.to_string(),
    }
}
