//! The texts in which programs write an image's settings: text chunks of PNG files, EXIF of JPEG and WebP files.

use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::{LONGEST_TEXT, cut, exif};

/// The magic bytes of a PNG file.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The magic bytes of a JPEG file.
const JPEG: &[u8] = b"\xff\xd8\xff";
/// The magic bytes of a WebP file, with four bytes of length between them.
const WEBP: [&[u8]; 2] = [b"RIFF", b"WEBP"];
/// The most chunks or segments of a file that are looked at.
const MOST_PARTS: usize = 1 << 16;
/// The longest keyword of a PNG's text, with the byte after it.
const LONGEST_KEYWORD: u64 = 80;
/// The largest EXIF that is read, in bytes.
const LARGEST_EXIF: u64 = 1 << 20;

/// What an image says in the places where programs write settings.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// The `parameters` text of stable-diffusion-webui.
    pub(super) parameters: Option<String>,
    /// The graph of ComfyUI.
    pub(super) graph: Option<String>,
    /// A program whose form is known and not read.
    pub(super) foreign: Option<&'static str>,
}

impl Texts {
    /// Takes the text of a PNG's chunk with this `keyword`.
    fn take(&mut self, keyword: &[u8], text: String) {
        let place = match keyword {
            b"parameters" => &mut self.parameters,
            b"prompt" => &mut self.graph,
            _ => return,
        };
        place.get_or_insert(text);
    }

    /// Whether it has the text of this `keyword`.
    fn has(&self, keyword: &[u8]) -> bool {
        match keyword {
            b"parameters" => self.parameters.is_some(),
            b"prompt" => self.graph.is_some(),
            _ => false,
        }
    }

    /// Takes the comment in `exif`.
    fn take_exif(&mut self, exif: &[u8]) {
        let Some(comment) = exif::user_comment(exif) else {
            return;
        };
        if comment.trim_start().starts_with('{') {
            self.foreign.get_or_insert("a program that writes JSON into EXIF");
        } else if self.parameters.is_none() {
            self.parameters = Some(comment);
        }
    }
}

/// The texts of the image at `path`, which begins with `start`.
///
/// # Errors
/// It is no such image, or truncated.
pub(super) fn read(path: &Path, start: &[u8]) -> Result<Texts, String> {
    let file = sd_files::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    of_image(&mut BufReader::new(file), length, start)
}

/// As [`read`], of an image in memory.
///
/// # Errors
/// It is no such image, or truncated.
pub(super) fn of_bytes(image: &[u8]) -> Result<Texts, String> {
    let mut file = BufReader::new(Cursor::new(image));
    of_image(&mut file, image.len() as u64, image)
}

fn of_image(file: &mut BufReader<impl Read + Seek>, length: u64, start: &[u8]) -> Result<Texts, String> {
    if start.starts_with(PNG) {
        of_png(file, length)
    } else if start.starts_with(JPEG) {
        of_jpeg(file)
    } else if start.starts_with(WEBP[0]) && start.get(8..12) == Some(WEBP[1]) {
        of_webp(file, length)
    } else {
        Err("it is neither a PNG, a JPEG, a WebP nor a .json file".to_owned())
    }
}

fn of_png(file: &mut BufReader<impl Read + Seek>, length: u64) -> Result<Texts, String> {
    let mut texts = Texts::default();
    let mut at = skip(file, 0, PNG.len() as u64)?;
    for _ in 0..MOST_PARTS {
        let mut head = [0; 8];
        file.read_exact(&mut head).map_err(cut)?;
        let [a, b, c, d, name @ ..] = head;
        let size = u64::from(u32::from_be_bytes([a, b, c, d]));
        let data = at + 8;
        // The data and its checksum.
        let end = data + size + 4;
        if end > length {
            return Err("the file is truncated".to_owned());
        }
        match &name {
            b"IEND" => return Ok(texts),
            b"tEXt" | b"zTXt" | b"iTXt" => of_text_chunk(file, name, size, &mut texts)?,
            b"eXIf" if size <= LARGEST_EXIF => texts.take_exif(&bytes(file, size)?),
            _ => {}
        }
        let now = file.stream_position().map_err(cut)?;
        at = skip(file, now, end - now)?;
    }
    Err("it has too many chunks".to_owned())
}

/// Reads a text chunk with `size` bytes of data, if its keyword is wanted.
fn of_text_chunk(
    file: &mut BufReader<impl Read + Seek>,
    name: [u8; 4],
    size: u64,
    texts: &mut Texts,
) -> Result<(), String> {
    let start = bytes(file, size.min(LONGEST_KEYWORD))?;
    let Some(end) = start.iter().position(|&byte| byte == 0) else {
        return Ok(());
    };
    let keyword = &start[..end];
    match keyword {
        b"parameters" | b"prompt" => {}
        b"invokeai_metadata" | b"invokeai_graph" | b"sd-metadata" | b"Dream" => {
            texts.foreign.get_or_insert("InvokeAI");
            return Ok(());
        }
        _ => return Ok(()),
    }
    if size > LONGEST_TEXT {
        return Err(format!(
            "its text `{}` is longer than the {LONGEST_TEXT} bytes that are read",
            String::from_utf8_lossy(keyword)
        ));
    }
    if texts.has(keyword) {
        // The first counts, as in other readers.
        return Ok(());
    }
    let mut data = start[end + 1..].to_vec();
    data.extend(bytes(file, size - start.len() as u64)?);
    let text = match &name {
        b"tEXt" => latin1(&data),
        // A byte for the method, of which there is one.
        b"zTXt" => latin1(&inflated(data.get(1..).unwrap_or_default())?),
        _ => {
            let damaged = || "its text chunk is damaged".to_owned();
            let [is_compressed, _, ref rest @ ..] = data[..] else {
                return Err(damaged());
            };
            // The language and the translated keyword, each with a zero after it.
            let mut parts = rest.splitn(3, |&byte| byte == 0);
            let text = parts.nth(2).ok_or_else(damaged)?;
            let text = match is_compressed {
                0 => text.to_vec(),
                _ => inflated(text)?,
            };
            String::from_utf8(text).map_err(|_| "its text is not UTF-8".to_owned())?
        }
    };
    let keyword = keyword.to_vec();
    texts.take(&keyword, text);
    Ok(())
}

fn latin1(bytes: &[u8]) -> String {
    // Some programs write UTF-8 where PNG has Latin-1.
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// The zlib stream `data` without its compression.
fn inflated(data: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = ZlibDecoder::new(data)
        .take(LONGEST_TEXT + 1)
        .read_to_end(&mut text);
    read.map_err(|error| format!("its compressed text is damaged: {error}"))?;
    if text.len() as u64 > LONGEST_TEXT {
        return Err(format!(
            "its compressed text is longer than the {LONGEST_TEXT} bytes that are read"
        ));
    }
    Ok(text)
}

fn of_jpeg(file: &mut BufReader<impl Read + Seek>) -> Result<Texts, String> {
    const EXIF: u8 = 0xe1;
    const SCAN: u8 = 0xda;
    const END: u8 = 0xd9;
    let mut texts = Texts::default();
    skip(file, 0, 2)?;
    for _ in 0..MOST_PARTS {
        let [mark, mut marker] = array(file)?;
        if mark != 0xff {
            return Err("its segments are damaged".to_owned());
        }
        while marker == 0xff {
            [marker] = array(file)?;
        }
        // Metadata comes before the pixels.
        if matches!(marker, SCAN | END) {
            return Ok(texts);
        }
        let size = u64::from(u16::from_be_bytes(array(file)?));
        let Some(size) = size.checked_sub(2) else {
            return Err("its segments are damaged".to_owned());
        };
        let data = bytes(file, size)?;
        if marker == EXIF && data.starts_with(exif::START) {
            texts.take_exif(&data);
        }
    }
    Err("it has too many segments".to_owned())
}

fn of_webp(file: &mut BufReader<impl Read + Seek>, length: u64) -> Result<Texts, String> {
    let mut texts = Texts::default();
    let mut at = skip(file, 0, 12)?;
    for _ in 0..MOST_PARTS {
        if at + 8 > length {
            return Ok(texts);
        }
        let head: [u8; 8] = array(file)?;
        let [a, b, c, d, size @ ..] = head;
        let size = u64::from(u32::from_le_bytes(size));
        let end = at + 8 + size.next_multiple_of(2);
        if [a, b, c, d] == *b"EXIF" {
            if size > LARGEST_EXIF {
                return Err(format!(
                    "its EXIF is longer than the {LARGEST_EXIF} bytes that are read"
                ));
            }
            texts.take_exif(&bytes(file, size)?);
        }
        let now = file.stream_position().map_err(cut)?;
        if end > length {
            return Ok(texts);
        }
        at = skip(file, now, end - now)?;
    }
    Err("it has too many chunks".to_owned())
}

/// Skips `count` bytes from `at`. Returns the position after them.
fn skip(file: &mut BufReader<impl Read + Seek>, at: u64, count: u64) -> Result<u64, String> {
    file.seek_relative(count as i64).map_err(cut)?;
    Ok(at + count)
}

fn array<const COUNT: usize>(file: &mut impl Read) -> Result<[u8; COUNT], String> {
    let mut bytes = [0; COUNT];
    file.read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

/// The next `count` bytes.
fn bytes(file: &mut impl Read, count: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(count).read_to_end(&mut bytes).map_err(cut)?;
    match bytes.len() as u64 == count {
        true => Ok(bytes),
        false => Err("the file is truncated".to_owned()),
    }
}
