//! Images of the user: opened by their headers, then decoded upright at a given size, whatever their file
//! names.
//!
//! Opening an image reads only its header, which determines the memory of decoding it, so that a run can plan
//! for it. Decoding passes row by row to the consumer.

mod jpeg;
mod mask;
mod orientation;
mod pieces;
mod png;
mod resampled;
mod rows;
#[cfg(test)]
mod tests;
mod webp;

use std::io::{self, BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use crate::image_size::ImageSize;
use crate::save::RgbImage;
use crate::{Error, Result};
use mask::{MaskRows, ResampledMask};
use orientation::Orientation;
use resampled::Resampled;
use rows::Rows;

/// The most pixels of an image, as in Pillow.
const MOST_PIXELS: u64 = 178_956_970;
/// The most bytes of metadata that are read.
const LARGEST_METADATA: u64 = 1 << 18;
/// The message for a file that has changed, or whose parts disagree.
const OTHER_SIZE: &str = "it is of another size than its header says";
/// The message for a file that its decoder panics on.
const DECODER_FAILED: &str = "its decoder failed: the file is damaged";
/// The message for a truncated file.
const CUT: &str = "the file is truncated: it ends in the middle of the image";

/// An image with a parsed header.
#[derive(Debug, Clone)]
pub struct SourceImage {
    path: PathBuf,
    stored: Stored,
}

/// The contents of a file's header.
#[derive(Debug, Clone)]
struct Stored {
    /// The stored width and height, before orientation.
    sides: (usize, usize),
    orientation: Orientation,
    /// The peak bytes of decoding its rows.
    decoding_bytes: u64,
    coding: Coding,
}

/// The format of an image, with what its decoder needs.
#[derive(Debug, Clone)]
enum Coding {
    Png(png::Png),
    Jpeg(jpeg::Jpeg),
    WebP(webp::WebP),
}

impl Stored {
    fn open(path: &Path) -> std::result::Result<Self, String> {
        // Pipes, for example, cannot be read twice, and may never end.
        let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("it is not a file".to_owned());
        }
        let mut file = BufReader::new(sd_files::open(path).map_err(|error| error.to_string())?);
        let mut start = Vec::new();
        let read = file.by_ref().take(12).read_to_end(&mut start);
        read.map_err(|error| error.to_string())?;
        file.rewind().map_err(|error| error.to_string())?;
        let [riff, webp] = webp::SIGNATURES;
        if start.starts_with(png::SIGNATURE) {
            file.seek_relative(png::SIGNATURE.len() as i64)
                .map_err(|error| error.to_string())?;
            png::open(&mut file, metadata.len())
        } else if start.starts_with(jpeg::SIGNATURE) {
            jpeg::open(&mut file)
        } else if start.starts_with(riff) && start.ends_with(webp) {
            webp::open(&mut file, metadata.len())
        } else {
            Err("it is neither a PNG, a JPEG nor a WebP file".to_owned())
        }
    }
}

impl SourceImage {
    /// Opens the image at `path`, a PNG, JPEG or WebP file, which is recognised by magic bytes. No pixel is
    /// read.
    ///
    /// # Errors
    /// It cannot be read, is no such image, or is truncated.
    pub fn open(path: &Path) -> Result<Self> {
        match Stored::open(path) {
            Ok(stored) => Ok(Self {
                path: path.to_owned(),
                stored,
            }),
            Err(reason) => Err(Error::BadImage {
                path: path.to_owned(),
                reason,
            }),
        }
    }

    /// Width and height of the upright image in pixels.
    pub fn sides(&self) -> (usize, usize) {
        self.stored.orientation.upright(self.stored.sides)
    }

    /// The default size of image-to-image: the image's own, rounded down to a valid size.
    pub(crate) fn nearest_size(&self) -> Option<ImageSize> {
        let (width, height) = self.sides();
        let down = |side: usize| side / ImageSize::STEP * ImageSize::STEP;
        ImageSize::new(down(width), down(height)).ok()
    }

    /// The upright image at `size`, without alpha. Another size is resampled as in Pillow (Lanczos, three
    /// lobes).
    ///
    /// # Errors
    /// The file is damaged, or has changed.
    pub fn at(&self, size: ImageSize) -> Result<RgbImage> {
        let mut rows = Resampled::new(self.stored.sides, self.stored.orientation, size);
        self.read(&mut rows)?;
        Ok(rows.finish())
    }

    /// The peak bytes of [`at`](Self::at) beside its result.
    pub fn bytes_at(&self, size: ImageSize) -> u64 {
        self.stored.decoding_bytes + Resampled::bytes(self.stored.sides, self.stored.orientation, size)
    }

    /// The upright image as a mask: true for pixels brighter than half, or for opaque ones if some are
    /// transparent.
    ///
    /// # Errors
    /// The file is damaged, or has changed.
    pub fn mask(&self) -> Result<Vec<bool>> {
        let mut rows = MaskRows::new(self.stored.sides, self.stored.orientation);
        self.read(&mut rows)?;
        Ok(rows.finish())
    }

    /// The mask at `size`, resampled like the image that it belongs to.
    ///
    /// # Errors
    /// The file is damaged, or has changed.
    pub fn mask_at(&self, size: ImageSize) -> Result<Vec<bool>> {
        if self.sides() == (size.width(), size.height()) {
            return self.mask();
        }
        let mut rows = ResampledMask::new(self.stored.sides, self.stored.orientation, size);
        self.read(&mut rows)?;
        Ok(rows.finish())
    }

    /// The peak bytes of [`mask`](Self::mask), with its result.
    pub fn bytes_as_mask(&self) -> u64 {
        let (width, height) = self.stored.sides;
        self.stored.decoding_bytes + MaskRows::bytes((width * height) as u64)
    }

    /// The peak bytes of [`mask_at`](Self::mask_at), with its result.
    pub fn bytes_as_mask_at(&self, size: ImageSize) -> u64 {
        if self.sides() == (size.width(), size.height()) {
            return self.bytes_as_mask();
        }
        let Stored {
            sides, orientation, ..
        } = self.stored;
        self.stored.decoding_bytes + ResampledMask::bytes(sides, orientation, size)
    }

    /// Passes all rows to `rows`.
    fn read(&self, rows: &mut dyn Rows) -> Result<()> {
        let Stored { sides, coding, .. } = &self.stored;
        let read = || {
            let file = BufReader::new(sd_files::open(&self.path).map_err(|error| error.to_string())?);
            let mut rows = Counted { rows, left: sides.1 };
            match coding {
                Coding::Png(png) => png.decode(file, *sides, &mut rows),
                Coding::Jpeg(jpeg) => jpeg.decode(file, *sides, &mut rows),
                Coding::WebP(webp) => webp.decode(file, *sides, &mut rows),
            }?;
            if rows.left > 0 {
                Err(CUT.to_owned())
            } else {
                Ok(())
            }
        };
        // Errors that the header shows are found before. A decoder that panics on the rest must not end the
        // run.
        let read = catch_unwind(AssertUnwindSafe(read));
        let read = read.unwrap_or_else(|_| Err(DECODER_FAILED.to_owned()));
        read.map_err(|reason| Error::BadImage {
            path: self.path.clone(),
            reason,
        })
    }
}

/// Counts the rows, so that none is missing and none is out of bounds.
struct Counted<'a> {
    rows: &'a mut dyn Rows,
    left: usize,
}

impl Rows for Counted<'_> {
    fn take(&mut self, index: usize, row: &rows::Row) {
        if self.left > 0 {
            self.left -= 1;
            self.rows.take(index, row);
        }
    }
}

/// The sides of an image that has pixels, but not too many.
fn checked_sides(width: u64, height: u64) -> std::result::Result<(usize, usize), String> {
    if width == 0 || height == 0 {
        return Err(format!("it has no pixels: it is {width}x{height}"));
    }
    match width.checked_mul(height) {
        Some(..=MOST_PIXELS) => Ok((width as usize, height as usize)),
        _ => Err(format!(
            "{width}x{height} are too many pixels: {MOST_PIXELS} at the most are read"
        )),
    }
}

/// The message for an error of reading.
fn end_of_file(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CUT.to_owned(),
        _ => error.to_string(),
    }
}

impl RgbImage {
    /// The image as the VAE takes it: `[1, 3, height, width]`, with values from -1 to 1.
    ///
    /// # Errors
    /// The device is out of memory.
    pub(crate) fn to_tensor(&self) -> Result<Tensor> {
        let values: Vec<f32> = self
            .pixels()
            .iter()
            .map(|&byte| f32::from(byte) / 127.5 - 1.0)
            .collect();
        let rows = Tensor::from_vec(values, (self.height(), self.width(), 3), &Device::Cpu)?;
        Ok(rows.permute((2, 0, 1))?.contiguous()?.unsqueeze(0)?)
    }
}
