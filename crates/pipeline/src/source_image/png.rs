//! PNG files: headers, and pixels row by row.
//!
//! The decoder sees only the chunks that pixels depend on; nothing else is inflated, stored or trusted.

use std::fs::File;
use std::io::{BufReader, Read};

use png::{BitDepth, ColorType, Decoder, DecodingError, Info, Limits, Transformations};

use super::orientation::Orientation;
use super::pieces::{ByteRanges, Pieces};
use super::rows::{Row, Rows};
use super::{CUT, Coding, LARGEST_METADATA, OTHER_SIZE, Stored, checked_sides, end_of_file};

/// The magic bytes.
pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Bytes of a chunk beside its data: length, type and checksum.
const AROUND_DATA: u64 = 12;
/// The most pieces of a file. No program interleaves so many chunks.
const MOST_PIECES: usize = 1 << 16;
/// Memory of the decoder beside rows: tables and inflate buffers.
const DECODER: u64 = 768 << 10;

/// What is needed to decode a PNG file.
#[derive(Debug, Clone)]
pub(super) struct Png {
    pieces: ByteRanges,
}

/// The fields of the IHDR chunk.
struct Header {
    sides: (usize, usize),
    /// Bits per pixel.
    bits: u64,
    is_indexed: bool,
    is_interlaced: bool,
}

impl Header {
    fn read(data: [u8; 13]) -> Result<Self, String> {
        let side = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        let samples = match data[9] {
            0 | 3 => 1,
            2 => 3,
            4 => 2,
            6 => 4,
            other => return Err(format!("PNG has no colour type {other}")),
        };
        Ok(Self {
            sides: checked_sides(side(0).into(), side(4).into())?,
            bits: samples * u64::from(data[8]),
            is_indexed: data[9] == 3,
            is_interlaced: data[12] != 0,
        })
    }

    /// Bytes of decoding, with the rows that are passed on.
    fn decoding_bytes(&self) -> u64 {
        let (width, height) = (self.sides.0 as u64, self.sides.1 as u64);
        let row = (width * self.bits).div_ceil(8) + 1;
        let whole = if self.is_interlaced { row * height } else { 0 };
        DECODER + 13 * row + 4 * width + whole
    }
}

/// Parses the chunks of `file`, which starts with the signature.
pub(super) fn open(file: &mut BufReader<File>, length: u64) -> Result<Stored, String> {
    let mut pieces = ByteRanges::default();
    let mut at = SIGNATURE.len() as u64;
    pieces.push(0..at);
    let (mut header, mut exif, mut xmp): (Option<Header>, _, _) = (None, None, None);
    let (mut has_palette, mut has_pixels) = (false, false);
    loop {
        let mut head = [0; 8];
        file.read_exact(&mut head).map_err(end_of_file)?;
        let [a, b, c, d, name @ ..] = head;
        let size = u64::from(u32::from_be_bytes([a, b, c, d]));
        let end = at + AROUND_DATA + size;
        if end > length {
            return Err(CUT.to_owned());
        }
        let mut data = Data {
            file: &mut *file,
            size,
        };
        let is_first = header.is_none();
        let is_needed = match &name {
            b"IHDR" if is_first => {
                let data = data
                    .take(13)?
                    .try_into()
                    .map_err(|_| "its header is truncated".to_owned())?;
                header = Some(Header::read(data)?);
                true
            }
            _ if is_first => return Err("its header is not in front".to_owned()),
            b"IHDR" => return Err("it has two headers".to_owned()),
            b"PLTE" if has_palette => return Err("it has two palettes".to_owned()),
            b"PLTE" => {
                if size == 0 || size > 3 * 256 || !size.is_multiple_of(3) {
                    return Err(format!("a palette of {size} bytes is none of colours of 3 bytes"));
                }
                has_palette = true;
                true
            }
            b"IDAT" => {
                has_pixels = true;
                true
            }
            b"tRNS" | b"IEND" => true,
            b"eXIf" if exif.is_none() => {
                exif = Some(data.take(LARGEST_METADATA)?);
                false
            }
            b"iTXt" if xmp.is_none() => {
                xmp = of_text(&data.take(LARGEST_METADATA)?);
                false
            }
            _ => false,
        };
        let left = data.size + 4;
        file.seek_relative(left as i64)
            .map_err(|error| error.to_string())?;
        if is_needed {
            pieces.push(at..end);
        }
        if pieces.len() > MOST_PIECES {
            return Err("it lies in too many pieces".to_owned());
        }
        at = end;
        if &name == b"IEND" {
            break;
        }
    }
    let header = header.ok_or("it has no header")?;
    if header.is_indexed && !has_palette {
        return Err("it has no palette".to_owned());
    }
    if !has_pixels {
        return Err("there are no pixels in it".to_owned());
    }
    Ok(Stored {
        sides: header.sides,
        orientation: Orientation::of(exif.as_deref(), xmp.as_deref()),
        decoding_bytes: header.decoding_bytes(),
        coding: Coding::Png(Png { pieces }),
    })
}

/// The unread rest of a chunk's data.
struct Data<'a> {
    file: &'a mut BufReader<File>,
    size: u64,
}

impl Data<'_> {
    /// Reads at most `most` bytes.
    fn take(&mut self, most: u64) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.size.min(most) as usize];
        self.file.read_exact(&mut bytes).map_err(end_of_file)?;
        self.size -= bytes.len() as u64;
        Ok(bytes)
    }
}

/// The XMP of an iTXt chunk, if it is that and not compressed.
fn of_text(data: &[u8]) -> Option<Vec<u8>> {
    let text = data.strip_prefix(b"XML:com.adobe.xmp\0\0\0")?;
    Some(text.to_vec())
}

impl Png {
    /// Decodes the image in `file`, of these sides, and passes its rows to `rows`.
    pub(super) fn decode(
        &self,
        file: BufReader<File>,
        (width, height): (usize, usize),
        rows: &mut dyn Rows,
    ) -> Result<(), String> {
        let pieces = Pieces::new(file, &self.pieces).map_err(|error| error.to_string())?;
        // The size of rows is planned for.
        let mut decoder = Decoder::new_with_limits(pieces, Limits { bytes: usize::MAX });
        decoder.set_transformations(Transformations::IDENTITY);
        let mut reader = decoder.read_info().map_err(reason)?;
        if (reader.info().width as usize, reader.info().height as usize) != (width, height) {
            return Err(OTHER_SIZE.to_owned());
        }
        let samples = Samples::of(reader.info())?;
        let mut row = Row::new(width, samples.has_alpha());
        if reader.info().interlaced {
            let line = reader.info().raw_row_length() - 1;
            let size = reader.output_buffer_size().ok_or("it is too large")?;
            let mut whole = vec![0; size];
            reader.next_frame(&mut whole).map_err(reason)?;
            for (index, bytes) in whole.chunks_exact(line).enumerate() {
                samples.read(bytes, &mut row);
                rows.take(index, &row);
            }
            return Ok(());
        }
        let mut index = 0;
        while let Some(bytes) = reader.next_row().map_err(reason)? {
            samples.read(bytes.data(), &mut row);
            rows.take(index, &row);
            index += 1;
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

/// How the bytes of a row are converted, as in Pillow: of 16-bit samples the upper byte is used.
struct Samples {
    colour: ColorType,
    bits: usize,
    palette: Vec<u8>,
    /// The alpha of each palette entry, or else the transparent colour, in as many bytes as a pixel.
    transparency: Option<Vec<u8>>,
}

impl Samples {
    fn of(info: &Info<'_>) -> Result<Self, String> {
        let bits = match info.bit_depth {
            BitDepth::One => 1,
            BitDepth::Two => 2,
            BitDepth::Four => 4,
            BitDepth::Eight => 8,
            BitDepth::Sixteen => 16,
        };
        let transparency = info.trns.as_deref().map(<[u8]>::to_vec);
        let samples = match info.color_type {
            ColorType::Grayscale => 1,
            ColorType::Rgb => 3,
            _ => 0,
        };
        if transparency
            .as_ref()
            .is_some_and(|key| key.len() < samples * usize::div_ceil(bits, 8))
        {
            return Err("its transparent colour is truncated".to_owned());
        }
        Ok(Self {
            colour: info.color_type,
            bits,
            palette: info.palette.as_deref().map(<[u8]>::to_vec).unwrap_or_default(),
            transparency,
        })
    }

    fn has_alpha(&self) -> bool {
        matches!(self.colour, ColorType::GrayscaleAlpha | ColorType::Rgba) || self.transparency.is_some()
    }

    /// Converts a row of `bytes`.
    fn read(&self, bytes: &[u8], row: &mut Row) {
        match self.colour {
            ColorType::Grayscale => self.gray(bytes, row),
            ColorType::Indexed => self.indexed(bytes, row),
            ColorType::Rgb => self.wide::<3>(bytes, row, |sample| (sample, u8::MAX)),
            ColorType::GrayscaleAlpha => self.wide::<2>(bytes, row, |[gray, alpha]| ([gray; 3], alpha)),
            ColorType::Rgba => self.wide::<4>(bytes, row, |[red, green, blue, alpha]| {
                ([red, green, blue], alpha)
            }),
        }
    }

    /// Samples of up to 16 bits, the first in the most significant bits of a byte.
    fn samples<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = u16> + use<'a> {
        let bits = self.bits;
        let a_byte = (8 / bits).max(1);
        let (bytes_each, mask) = (bits.div_ceil(8), u16::MAX >> (16 - bits));
        bytes.chunks_exact(bytes_each).flat_map(move |bytes| {
            let value = bytes.iter().fold(0, |value, &byte| value << 8 | u16::from(byte));
            (0..a_byte).rev().map(move |index| value >> (index * bits) & mask)
        })
    }

    fn gray(&self, bytes: &[u8], row: &mut Row) {
        let key = self.transparency.as_ref();
        let key = key.map(|key| match self.bits {
            16 => u16::from_be_bytes([key[0], key[1]]),
            _ => key[0].into(),
        });
        let brightness = |sample: u16| match self.bits {
            16 => (sample >> 8) as u8,
            bits => (sample * 255 / (u16::MAX >> (16 - bits))) as u8,
        };
        for (index, sample) in self.samples(bytes).take(row.width()).enumerate() {
            let alpha = if key == Some(sample) { 0 } else { u8::MAX };
            row.set(index, [brightness(sample); 3], alpha);
        }
    }

    /// An index outside the palette is black.
    fn indexed(&self, bytes: &[u8], row: &mut Row) {
        for (index, sample) in self.samples(bytes).take(row.width()).enumerate() {
            let sample = usize::from(sample);
            let colour = self
                .palette
                .as_chunks()
                .0
                .get(sample)
                .copied()
                .unwrap_or_default();
            let alpha = self.transparency.as_ref().and_then(|alphas| alphas.get(sample));
            row.set(index, colour, alpha.copied().unwrap_or(u8::MAX));
        }
    }

    /// Pixels of `N` samples of one or two bytes.
    fn wide<const N: usize>(&self, bytes: &[u8], row: &mut Row, pixel: impl Fn([u8; N]) -> ([u8; 3], u8)) {
        let size = self.bits / 8;
        // Only colours without alpha have a transparent colour.
        let key = self.transparency.as_deref().filter(|_| N == 3);
        for (index, bytes) in bytes.chunks_exact(N * size).take(row.width()).enumerate() {
            let (colour, alpha) = pixel(std::array::from_fn(|sample| bytes[sample * size]));
            let is_key = key.is_some_and(|key| bytes == &key[..bytes.len()]);
            row.set(index, colour, if is_key { 0 } else { alpha });
        }
    }
}
