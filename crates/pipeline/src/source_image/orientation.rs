//! The orientation of an image: that of EXIF, or of XMP if there is none.

/// The TIFF tag of the orientation.
const TAG: u16 = 0x0112;
/// Bytes of a directory entry.
const ENTRY: usize = 12;

/// The transform from stored pixels to the upright image: flips of rows and columns first, then a
/// transposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Orientation {
    /// Columns are flipped.
    pub(super) mirrored: bool,
    /// Rows are flipped.
    pub(super) upside_down: bool,
    /// Rows and columns are exchanged.
    pub(super) transposed: bool,
}

impl Orientation {
    /// The orientation of the EXIF `code`. Invalid codes are upright.
    fn of_code(code: u32) -> Self {
        let [mirrored, upside_down, transposed] = match code {
            2 => [true, false, false],
            3 => [true, true, false],
            4 => [false, true, false],
            5 => [false, false, true],
            6 => [false, true, true],
            7 => [true, true, true],
            8 => [true, false, true],
            _ => [false; 3],
        };
        Self {
            mirrored,
            upside_down,
            transposed,
        }
    }

    /// The orientation in `exif` (a TIFF file, with or without `Exif` before it), else in `xmp`, as in
    /// Pillow's `exif_transpose`.
    pub(super) fn of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Self {
        let code = exif.and_then(of_exif).or_else(|| xmp.and_then(of_xmp));
        code.map(Self::of_code).unwrap_or_default()
    }

    /// The upright sides of an image with these stored sides.
    pub(super) fn upright(self, (width, height): (usize, usize)) -> (usize, usize) {
        if self.transposed {
            (height, width)
        } else {
            (width, height)
        }
    }

    /// The upright position of a stored pixel.
    pub(super) fn upright_position(
        self,
        (x, y): (usize, usize),
        (width, height): (usize, usize),
    ) -> (usize, usize) {
        let x = if self.mirrored { width - 1 - x } else { x };
        let y = if self.upside_down { height - 1 - y } else { y };
        if self.transposed { (y, x) } else { (x, y) }
    }
}

/// The code in the first directory of `exif`.
fn of_exif(exif: &[u8]) -> Option<u32> {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let is_little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| -> Option<u16> {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if is_little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    };
    let long = |at: usize| -> Option<u32> {
        let bytes = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if is_little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    };
    let directory = long(4)? as usize;
    let entries = usize::from(short(directory)?);
    let entry = (0..entries)
        .map(|index| directory + 2 + ENTRY * index)
        .find(|&entry| short(entry) == Some(TAG))?;
    let value = entry + 8;
    match short(entry + 2)? {
        1 => tiff.get(value).copied().map(u32::from),
        3 => short(value).map(u32::from),
        4 => long(value),
        _ => None,
    }
}

/// The digit after `tiff:Orientation`, as an attribute or an element.
fn of_xmp(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len())
        .enumerate()
        .filter(|(_, window)| *window == NAME)
        .find_map(|(at, _)| {
            let rest = &xmp[at + NAME.len()..];
            let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
            char::from(*value.first()?).to_digit(10)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_exif_may_be_wrong() {
        let mut exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
        let turned = Orientation::of_code(6);
        assert_eq!(Orientation::of(Some(&exif), None), turned);
        assert_eq!(
            Orientation::of(Some(&[b"Exif\0\0", &exif[..]].concat()), None),
            turned
        );
        for end in 0..20 {
            assert_eq!(
                Orientation::of(Some(&exif[..end]), None),
                Orientation::default(),
                "{end}"
            );
        }
        exif[4..8].fill(0xff);
        assert_eq!(Orientation::of(Some(&exif), None), Orientation::default());
    }

    #[test]
    fn xmp_counts_where_exif_says_nothing() {
        let attribute: &[u8] = b"<rdf:Description tiff:Orientation=\"8\"/>";
        let element: &[u8] = b"<tiff:Orientation>3</tiff:Orientation>";
        assert_eq!(Orientation::of(None, Some(attribute)), Orientation::of_code(8));
        assert_eq!(Orientation::of(Some(b""), Some(element)), Orientation::of_code(3));
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x02\0\0\0\0\0\0\0";
        assert_eq!(
            Orientation::of(Some(exif), Some(element)),
            Orientation::of_code(2)
        );
    }
}
