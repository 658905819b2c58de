//! EXIF data that holds one text: the tag UserComment, where stable-diffusion-webui writes its parameters.
//!
//! CIPA DC-008, "Exchangeable image file format for digital still cameras: Exif Version 2.32", 2019.

/// The tag of the pointer to the EXIF directory.
const EXIF_DIRECTORY: u16 = 0x8769;
/// The tag of the text.
const USER_COMMENT: u16 = 0x9286;
/// The type of one number of 32 bits.
const LONG: u16 = 4;
/// The type of bytes whose meaning their beginning tells.
const UNDEFINED: u16 = 7;
/// The beginning of a comment in UTF-16, here in the byte order of the file.
const UNICODE: &[u8; 8] = b"UNICODE\0";
/// Bytes of a directory with one entry: count, entry, no next directory.
const DIRECTORY: u32 = 2 + 12 + 4;
/// Where the first directory begins: after the header.
const FIRST: u32 = 8;
/// The beginning of the segment of a JPEG file that holds EXIF data.
const SEGMENT: &[u8; 6] = b"Exif\0\0";
/// The most bytes of a JPEG segment beside its length.
const LONGEST_SEGMENT: usize = (1 << 16) - 1 - 2;

/// The EXIF data with the comment `text`.
pub(super) fn data(text: &str) -> Vec<u8> {
    let mut comment = UNICODE.to_vec();
    comment.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    // Big-endian, as piexif writes it.
    let mut data = b"MM\0\x2a".to_vec();
    data.extend(FIRST.to_be_bytes());
    let mut directory = |tag: u16, kind: u16, count: u32, value: u32| {
        data.extend(1u16.to_be_bytes());
        data.extend(tag.to_be_bytes());
        data.extend(kind.to_be_bytes());
        data.extend(count.to_be_bytes());
        data.extend(value.to_be_bytes());
        data.extend(0u32.to_be_bytes());
    };
    directory(EXIF_DIRECTORY, LONG, 1, FIRST + DIRECTORY);
    directory(
        USER_COMMENT,
        UNDEFINED,
        comment.len() as u32,
        FIRST + 2 * DIRECTORY,
    );
    data.extend(comment);
    data
}

/// The JPEG segment with the comment `text`, if it is not too long for one.
pub(super) fn segment(text: &str) -> Option<Vec<u8>> {
    let segment = [SEGMENT.as_slice(), &data(text)].concat();
    (segment.len() <= LONGEST_SEGMENT).then_some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_where_the_directories_point() {
        let data = data("größe 猫 🐈");
        let long = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap()) as usize;
        let exif = long(8 + 10);
        assert_eq!(&data[exif + 2..exif + 4], USER_COMMENT.to_be_bytes());
        let (count, start) = (long(exif + 6), long(exif + 10));
        assert_eq!(start + count, data.len());
        let comment = &data[start..];
        assert_eq!(&comment[..8], UNICODE);
        let units: Vec<u16> = comment[8..]
            .chunks(2)
            .map(|unit| u16::from_be_bytes([unit[0], unit[1]]))
            .collect();
        assert_eq!(String::from_utf16(&units).unwrap(), "größe 猫 🐈");
    }

    #[test]
    fn text_that_is_too_long_has_no_segment() {
        assert!(segment(&"a".repeat(30_000)).is_some());
        assert!(segment(&"a".repeat(33_000)).is_none());
    }
}
