//! The comment of the user in EXIF, in which stable-diffusion-webui writes its text in JPEG and WebP files.

/// What precedes EXIF in a JPEG file, and in some WebP files.
pub(super) const START: &[u8] = b"Exif\0\0";
/// The TIFF tag of the directory of EXIF.
const EXIF_DIRECTORY: u16 = 0x8769;
/// The tag of the comment in that directory.
const USER_COMMENT: u16 = 0x9286;
/// Bytes of a directory entry.
const ENTRY: usize = 12;

/// A TIFF file in memory.
struct Tiff<'a> {
    bytes: &'a [u8],
    is_little: bool,
}

/// The value of an entry: the bytes that it takes if it has one byte each.
struct Value {
    count: usize,
    at: usize,
}

impl Tiff<'_> {
    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(match self.is_little {
            true => u16::from_le_bytes(bytes),
            false => u16::from_be_bytes(bytes),
        })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        let value = match self.is_little {
            true => u32::from_le_bytes(bytes),
            false => u32::from_be_bytes(bytes),
        };
        usize::try_from(value).ok()
    }

    /// The entry `tag` of the directory at `directory`.
    fn entry(&self, directory: usize, tag: u16) -> Option<Value> {
        let entries = usize::from(self.short(directory)?);
        let first = directory.checked_add(2)?;
        let at = (0..entries)
            .map_while(|index| first.checked_add(ENTRY * index))
            .find(|&at| self.short(at) == Some(tag))?;
        Some(Value {
            count: self.long(at + 4)?,
            at: at + 8,
        })
    }
}

/// The comment of the user in `exif`: a TIFF file, with or without `Exif` before it. None if there is none, or if
/// it cannot be read.
pub(super) fn user_comment(exif: &[u8]) -> Option<String> {
    let bytes = exif.strip_prefix(START).unwrap_or(exif);
    let is_little = match bytes.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let tiff = Tiff { bytes, is_little };
    let directory = tiff.entry(tiff.long(4)?, EXIF_DIRECTORY)?;
    let comment = tiff.entry(tiff.long(directory.at)?, USER_COMMENT)?;
    // Up to four bytes are in the entry itself, and a comment has eight of its character code.
    let start = tiff.long(comment.at)?;
    let data = bytes.get(start..start.checked_add(comment.count)?)?;
    let (code, text) = data.split_at_checked(8)?;
    let text = match code {
        b"UNICODE\0" => utf16(text, is_little),
        _ => String::from_utf8_lossy(text).into_owned(),
    };
    let text = text.trim_end_matches('\0');
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// UTF-16. The standard leaves its byte order open: stable-diffusion-webui writes big endian in files of either order,
/// others the order of the file. Most letters have a zero in the upper byte, which shows it.
fn utf16(bytes: &[u8], is_little: bool) -> String {
    let (pairs, _) = bytes.as_chunks::<2>();
    let (pairs, marked) = match pairs {
        [[0xfe, 0xff], rest @ ..] => (rest, Some(false)),
        [[0xff, 0xfe], rest @ ..] => (rest, Some(true)),
        _ => (pairs, None),
    };
    let zeros = |at: usize| pairs.iter().filter(|pair| pair[at] == 0).count();
    let is_little = marked.unwrap_or(match zeros(0).cmp(&zeros(1)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Equal => is_little,
    });
    let units = pairs.iter().map(|&pair| match is_little {
        true => u16::from_le_bytes(pair),
        false => u16::from_be_bytes(pair),
    });
    char::decode_utf16(units)
        .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}
