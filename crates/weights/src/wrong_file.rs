//! Recognises files that are often mistaken for weights: git-lfs pointers, and the web page that a server
//! sends instead of a download.

use std::path::Path;

use crate::Error;

/// The number of bytes at the start of a file that are examined.
pub(crate) const LOOKED_AT: usize = 512;
/// The first line of a git-lfs pointer. <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
/// The specification limits pointers to less than this length.
const LONGEST_POINTER: u64 = 1024;

/// The error for the file at `path` if it is a pointer or a page. `start` are its first bytes, `length` its
/// length.
pub(crate) fn recognise(path: &Path, start: &[u8], length: u64) -> Option<Error> {
    if start.starts_with(POINTER) && length < LONGEST_POINTER {
        return Some(Error::GitLfsPointer {
            file: path.to_owned(),
            bytes: pointed_bytes(start),
        });
    }
    is_web_page(start).then(|| Error::WebPage {
        file: path.to_owned(),
    })
}

/// The size of the real file, from the pointer.
fn pointed_bytes(pointer: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(pointer).ok()?;
    let size = text.lines().find_map(|line| line.strip_prefix("size "))?;
    size.trim().parse().ok()
}

fn is_web_page(start: &[u8]) -> bool {
    let start = start
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(start)
        .trim_ascii_start();
    let begins = |with: &[u8]| {
        start
            .get(..with.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(with))
    };
    begins(b"<!doctype html") || begins(b"<html") || begins(b"<head") || begins(b"<?xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(start: &[u8]) -> Option<Error> {
        recognise(Path::new("file"), start, start.len() as u64)
    }

    #[test]
    fn pointers_and_pages_are_recognised_by_magic_bytes() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438354725\n";
        assert!(matches!(
            recognised(pointer),
            Some(Error::GitLfsPointer {
                bytes: Some(3_438_354_725),
                ..
            })
        ));
        assert!(matches!(
            recognised(&pointer[..43]),
            Some(Error::GitLfsPointer { bytes: None, .. })
        ));
        for page in [
            &b"<!DOCTYPE html>\n<html class=\"\">"[..],
            b"\xef\xbb\xbf\r\n <HTML>",
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
        ] {
            assert!(matches!(recognised(page), Some(Error::WebPage { .. })));
        }
        for other in [
            &b""[..],
            b"{}",
            b"<",
            b"\x80\x02",
            b"PK\x03\x04",
            b"version https://",
        ] {
            assert!(recognised(other).is_none());
        }
    }
}
