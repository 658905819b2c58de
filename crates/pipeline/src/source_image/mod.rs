//! Images that the user names: known by their headers, then read, whatever they are called, upright and at a size.
//!
//! An image is opened by its header alone, which says what reading it will take, so that a run can plan for it. Reading goes
//! row by row from the decoder into what is made of the image.

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

use crate::request::ImageSize;
use crate::save::RgbImage;
use crate::{Error, Result};
use mask::{MaskRows, ResampledMask};
use orientation::Orientation;
use resampled::Resampled;
use rows::Rows;

/// The most pixels that an image may have. Pillow, too, refuses more than that.
const MOST_PIXELS: u64 = 178_956_970;
/// Bytes of what a file says beside its pixels that are looked at.
const LARGEST_METADATA: u64 = 1 << 18;
/// What is said of a file that is no longer what it was, or whose parts do not agree.
const OTHER_SIZE: &str = "it is of another size than its header says";
/// What is said of a file that its decoder did not withstand.
const DECODER_FAILED: &str = "its decoder failed: the file is damaged";
/// What is said of a file that is not all there.
const CUT: &str = "the file is cut: it ends in the middle of the image";

/// An image of which the header is known.
#[derive(Debug, Clone)]
pub struct SourceImage {
    path: PathBuf,
    stored: Stored,
}

/// What a file's header says.
#[derive(Debug, Clone)]
struct Stored {
    /// Width and height as they are stored.
    sides: (usize, usize),
    orientation: Orientation,
    /// The most bytes that reading its rows takes.
    decoding_bytes: u64,
    coding: Coding,
}

/// The format of an image, with what its decoder has to know.
#[derive(Debug, Clone)]
enum Coding {
    Png(png::Png),
    Jpeg(jpeg::Jpeg),
    WebP(webp::WebP),
}

impl Stored {
    fn open(path: &Path) -> std::result::Result<Self, String> {
        // Others, pipes say, cannot be read twice, or never end.
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
    /// Opens the image at `path`: a PNG, JPEG or WebP file, by what it holds. No pixel is read.
    ///
    /// # Errors
    /// It cannot be read, is no such image, or is not all there.
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

    /// The sides of the upright image in pixels: width and height.
    pub fn sides(&self) -> (usize, usize) {
        self.stored.orientation.upright(self.stored.sides)
    }

    /// The size to generate at where the user names none: the image's own, down to the nearest that is a size.
    pub(crate) fn nearest_size(&self) -> Option<ImageSize> {
        let (width, height) = self.sides();
        let down = |side: usize| side / ImageSize::STEP * ImageSize::STEP;
        ImageSize::new(down(width), down(height)).ok()
    }

    /// The upright image at `size`, in colour; opacity is left out. What is another size is resampled as Pillow does it
    /// (Lanczos, three lobes).
    ///
    /// # Errors
    /// The file is damaged, or no longer what it was.
    pub fn at(&self, size: ImageSize) -> Result<RgbImage> {
        let mut rows = Resampled::new(self.stored.sides, self.stored.orientation, size);
        self.read(&mut rows)?;
        Ok(rows.finish())
    }

    /// The most bytes that [`at`](Self::at) takes beside the image that it gives.
    pub fn bytes_at(&self, size: ImageSize) -> u64 {
        self.stored.decoding_bytes + Resampled::bytes(self.stored.sides, self.stored.orientation, size)
    }

    /// The upright image as a mask, pixel by pixel: true where it is brighter than half, or where it is opaque if some of it
    /// is transparent.
    ///
    /// # Errors
    /// The file is damaged, or no longer what it was.
    pub fn mask(&self) -> Result<Vec<bool>> {
        let mut rows = MaskRows::new(self.stored.sides, self.stored.orientation);
        self.read(&mut rows)?;
        Ok(rows.finish())
    }

    /// The same at `size`, resampled like the image that the mask belongs to.
    ///
    /// # Errors
    /// The file is damaged, or no longer what it was.
    pub fn mask_at(&self, size: ImageSize) -> Result<Vec<bool>> {
        if self.sides() == (size.width(), size.height()) {
            return self.mask();
        }
        let mut rows = ResampledMask::new(self.stored.sides, self.stored.orientation, size);
        self.read(&mut rows)?;
        Ok(rows.finish())
    }

    /// The most bytes that [`mask`](Self::mask) takes, with the mask that it gives.
    pub fn bytes_as_mask(&self) -> u64 {
        let (width, height) = self.stored.sides;
        self.stored.decoding_bytes + MaskRows::bytes((width * height) as u64)
    }

    /// The most bytes that [`mask_at`](Self::mask_at) takes, with the mask that it gives.
    pub fn bytes_as_mask_at(&self, size: ImageSize) -> u64 {
        if self.sides() == (size.width(), size.height()) {
            return self.bytes_as_mask();
        }
        let Stored {
            sides, orientation, ..
        } = self.stored;
        self.stored.decoding_bytes + ResampledMask::bytes(sides, orientation, size)
    }

    /// Hands all rows to `rows`.
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
        // What headers can show is refused before. A decoder that stumbles over the rest must not take the run with it.
        let read = catch_unwind(AssertUnwindSafe(read));
        let read = read.unwrap_or_else(|_| Err(DECODER_FAILED.to_owned()));
        read.map_err(|reason| Error::BadImage {
            path: self.path.clone(),
            reason,
        })
    }
}

/// Rows that are counted, so that none is missing and none is more than there is room for.
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

/// The sides of an image that has pixels, and not too many.
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

/// What is said of a file that could not be read on.
fn end_of_file(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CUT.to_owned(),
        _ => error.to_string(),
    }
}

impl RgbImage {
    /// The image as an autoencoder takes it: `[1, 3, height, width]`, values from -1 to 1.
    ///
    /// # Errors
    /// There is no memory for it.
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
