//! JPEG files: headers and pixels.
//!
//! The decoder sees only the segments of the image itself, without profiles, thumbnails and further images.
//! It decodes the whole image at once, so its memory follows from the size and the sampling of each
//! component.

use std::fs::File;
use std::io::{BufRead, BufReader};

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::orientation::Orientation;
use super::pieces::{ByteRanges, Pieces};
use super::rows::{Row, Rows};
use super::{CUT, Coding, OTHER_SIZE, Stored, checked_sides};

/// The magic bytes.
pub(super) const SIGNATURE: &[u8] = b"\xff\xd8\xff";
/// The most pieces of a file: scans, and a few tables between them.
const MOST_PIECES: usize = 1 << 12;
/// Memory of the decoder beside the image and its rows.
const DECODER: u64 = 256 << 10;
const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// What is needed to decode a JPEG file.
#[derive(Debug, Clone)]
pub(super) struct Jpeg {
    pieces: ByteRanges,
    is_gray: bool,
}

/// The fields of the frame header.
#[derive(Debug)]
struct Frame {
    sides: (usize, usize),
    is_progressive: bool,
    /// The horizontal and vertical sampling of each component.
    components: Vec<(u64, u64)>,
}

impl Frame {
    fn read(marker: u8, segment: &[u8]) -> Result<Self, String> {
        let is_progressive = match marker {
            0xc0 | 0xc1 => false,
            0xc2 => true,
            _ => return Err("JPEG files of this coding (lossless or arithmetic) cannot be read".to_owned()),
        };
        let &[
            precision,
            height_high,
            height_low,
            width_high,
            width_low,
            count,
            ref components @ ..,
        ] = segment
        else {
            return Err("its header is truncated".to_owned());
        };
        if precision != 8 {
            return Err(format!("JPEG files of {precision} bits a sample cannot be read"));
        }
        let side = |high, low| u64::from(u16::from_be_bytes([high, low]));
        let components = components.as_chunks::<3>().0;
        if components.len() != usize::from(count) || !matches!(count, 1 | 3 | 4) {
            return Err(format!("JPEG files of {count} components cannot be read"));
        }
        let sampling = |&[_, sampling, _]: &[u8; 3]| match (sampling >> 4, sampling & 15) {
            (across @ 1..=4, down @ 1..=4) => Ok((u64::from(across), u64::from(down))),
            _ => Err("the sampling of a component is none that JPEG has".to_owned()),
        };
        Ok(Self {
            sides: checked_sides(side(width_high, width_low), side(height_high, height_low))?,
            is_progressive,
            components: components.iter().map(sampling).collect::<Result<_, _>>()?,
        })
    }

    fn is_gray(&self) -> bool {
        self.components.len() == 1
    }

    /// Bytes of decoding, with the rows that are passed on. `is_whole`: one scan has all components.
    fn decoding_bytes(&self, is_whole: bool) -> u64 {
        let (width, height) = (self.sides.0 as u64, self.sides.1 as u64);
        let result = if self.is_gray() { 1 } else { 3 } * width * height;
        let most = |side: fn(&(u64, u64)) -> u64| self.components.iter().map(side).max().unwrap_or(1);
        let (across, down) = (most(|sampling| sampling.0), most(|sampling| sampling.1));
        // A single component has only blocks of its own size.
        let sampled = |&(of_across, of_down): &(u64, u64)| match self.components.len() {
            1 => (width.div_ceil(8), height.div_ceil(8)),
            _ => (
                width.div_ceil(8 * across) * of_across,
                height.div_ceil(8 * down) * of_down,
            ),
        };
        // 64 16-bit coefficients per block.
        let coefficients: u64 = self
            .components
            .iter()
            .map(sampled)
            .map(|(x, y)| 128 * x * y)
            .sum();
        // Each component at the image's width, the last line of blocks, and both upsampled.
        let line = 2 * (width + 8 * across) * 8 * down;
        DECODER
            + result
            + if is_whole && !self.is_progressive {
                0
            } else {
                coefficients
            }
            + 6 * line * self.components.len() as u64
            + 4 * width
    }
}

/// Reads a file sequentially and tracks the position.
struct Walk<'a> {
    file: &'a mut BufReader<File>,
    at: u64,
}

impl Walk<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let bytes = self.file.fill_buf().map_err(|error| error.to_string())?;
        let byte = *bytes.first().ok_or(CUT)?;
        self.file.consume(1);
        self.at += 1;
        Ok(byte)
    }

    /// The next marker of a segment or of the end of the image.
    fn marker(&mut self) -> Result<u8, String> {
        loop {
            let bytes = self.file.fill_buf().map_err(|error| error.to_string())?;
            if bytes.is_empty() {
                return Err(CUT.to_owned());
            }
            let before = bytes.iter().position(|&byte| byte == 0xff);
            let step = before.map_or(bytes.len(), |before| before + 1);
            self.file.consume(step);
            self.at += step as u64;
            if before.is_none() {
                continue;
            }
            let mut byte = 0xff;
            while byte == 0xff {
                byte = self.byte()?;
            }
            // 0 is a stuffed byte after 255, and restart markers are part of the data.
            if !matches!(byte, 0 | 1 | 0xd0..=0xd8) {
                return Ok(byte);
            }
        }
    }

    /// The data of the segment that starts here.
    fn segment(&mut self) -> Result<Vec<u8>, String> {
        let length = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let size = length
            .checked_sub(2)
            .ok_or("a segment is shorter than its own length")?;
        (0..size).map(|_| self.byte()).collect()
    }
}

/// Parses the segments of `file`, which starts with the signature.
pub(super) fn open(file: &mut BufReader<File>) -> Result<Stored, String> {
    let mut walk = Walk { file, at: 0 };
    walk.byte()?;
    walk.byte()?;
    let mut pieces = ByteRanges::default();
    let mut from = 0;
    let (mut frame, mut exif, mut xmp) = (None::<Frame>, None, None);
    let mut scans_all = None;
    loop {
        let marker = walk.marker()?;
        let start = walk.at - 2;
        if marker == 0xd9 {
            break;
        }
        let segment = walk.segment()?;
        let is_needed = match marker {
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                if frame.is_some() {
                    return Err("it has two headers".to_owned());
                }
                frame = Some(Frame::read(marker, &segment)?);
                true
            }
            0xda => {
                let all = frame
                    .as_ref()
                    .ok_or("its header is not in front")?
                    .components
                    .len();
                scans_all.get_or_insert(segment.first().map(|&count| usize::from(count)) == Some(all));
                true
            }
            0xe1 => {
                if let (None, Some(found)) = (&exif, segment.strip_prefix(EXIF)) {
                    exif = Some(found.to_vec());
                } else if let (None, Some(found)) = (&xmp, segment.strip_prefix(XMP)) {
                    xmp = Some(found.to_vec());
                }
                false
            }
            // APP0 and APP14: the latter gives the colour transform, and old cameras omit tables after the
            // former.
            0xe0 | 0xee => true,
            0xe2..=0xef | 0xfe => false,
            _ => true,
        };
        if !is_needed {
            pieces.push(from..start);
            from = walk.at;
        }
        if pieces.len() > MOST_PIECES {
            return Err("it lies in too many pieces".to_owned());
        }
    }
    pieces.push(from..walk.at);
    let frame = frame.ok_or("it has no header")?;
    let scans_all = scans_all.ok_or("there are no pixels in it")?;
    Ok(Stored {
        sides: frame.sides,
        orientation: Orientation::of(exif.as_deref(), xmp.as_deref()),
        decoding_bytes: frame.decoding_bytes(scans_all),
        coding: Coding::Jpeg(Jpeg {
            pieces,
            is_gray: frame.is_gray(),
        }),
    })
}

impl Jpeg {
    /// Decodes the image in `file`, of these sides, and passes its rows to `rows`.
    pub(super) fn decode(
        &self,
        file: BufReader<File>,
        (width, height): (usize, usize),
        rows: &mut dyn Rows,
    ) -> Result<(), String> {
        let pieces = Pieces::new(file, &self.pieces).map_err(|error| error.to_string())?;
        let (colours, samples) = if self.is_gray {
            (ColorSpace::Luma, 1)
        } else {
            (ColorSpace::RGB, 3)
        };
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(width)
            .set_max_height(height)
            .jpeg_set_out_colorspace(colours);
        let mut decoder = JpegDecoder::new_with_options(pieces, options);
        let mut pixels = vec![0; samples * width * height];
        decoder
            .decode_into(&mut pixels)
            .map_err(|error| error.to_string())?;
        if decoder.dimensions() != Some((width, height)) {
            return Err(OTHER_SIZE.to_owned());
        }
        drop(decoder);
        let mut row = Row::new(width, false);
        for (index, bytes) in pixels.chunks_exact(samples * width).enumerate() {
            for (x, pixel) in bytes.chunks_exact(samples).enumerate() {
                let colour = match *pixel {
                    [red, green, blue] => [red, green, blue],
                    _ => [pixel[0]; 3],
                };
                row.set(x, colour, u8::MAX);
            }
            rows.take(index, &row);
        }
        Ok(())
    }
}
