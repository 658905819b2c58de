//! SentencePiece's normalisation table (`precompiled_charsmap`): a double-array trie, and the texts that its
//! leaves point to.
//!
//! Layout: the length of the trie in bytes (32 bits, little endian), its 32-bit units, and zero-terminated
//! texts. A unit is laid out as in Darts-clone: the label in the lowest byte, a leaf flag in bit 8, and the
//! offset in the others. The `spm_precompiled` crate follows the table without bounds checks.

/// Checks that every path through the table stays in bounds and ends at a valid text.
///
/// # Errors
/// It does not; the error says why.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let damaged = |what: &str| format!("its precompiled_charsmap {what}");
    let too_short = || damaged("ends too soon");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(too_short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (trie, texts) = rest.split_at_checked(length).ok_or_else(too_short)?;
    let (units, []) = trie.as_chunks::<4>() else {
        return Err(damaged("has a trie of no whole number of units"));
    };
    let texts = str::from_utf8(texts).map_err(|_| damaged("has texts that are not UTF-8"))?;
    let unit = |index: usize| units.get(index).map(|unit| u32::from_le_bytes(*unit) as usize);
    let outside = || damaged("leads out of itself");
    let mut is_seen = vec![false; units.len()];
    let mut nodes = vec![0];
    while let Some(node) = nodes.pop() {
        let found = unit(node).ok_or_else(outside)?;
        let offset = (found >> 10) << ((found & 1 << 9) >> 6);
        let children = node ^ offset;
        // The root's leaf is never used.
        if node != 0 && found >> 8 & 1 == 1 {
            let value = unit(children).ok_or_else(outside)? & ((1 << 31) - 1);
            if !texts.is_char_boundary(value) {
                return Err(damaged("points into the middle of a letter"));
            }
        }
        for label in 1..=usize::from(u8::MAX) {
            let child = children ^ label;
            let found = unit(child).ok_or_else(outside)?;
            if found & (1 << 31 | 0xff) == label && !std::mem::replace(&mut is_seen[child], true) {
                nodes.push(child);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    fn table(units: &[u32], texts: &str) -> Vec<u8> {
        let mut bytes = (4 * units.len() as u32).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend_from_slice(texts.as_bytes());
        bytes
    }

    #[test]
    fn that_of_t5_is_whole() {
        let file = include_str!("../../../tests/fixtures/models/tiny-large/tokenizer_3/tokenizer.json");
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        let table = file["normalizer"]["precompiled_charsmap"].as_str().unwrap();
        let table = BASE64_STANDARD.decode(table).unwrap();
        assert_eq!(check(&table), Ok(()));
        assert!(check(&table[..table.len() / 2]).is_err());
    }

    #[test]
    fn paths_that_leave_the_table_are_found() {
        // The root leads to a child `a` with a leaf.
        let leaf = 256;
        let mut units = [0; 512];
        units[0] = 256 << 10;
        units[256 ^ 0x61] = 0x61 | 1 << 8 | 0x61 << 10;
        assert_eq!(check(&table(&units, "b\0")), Ok(()));
        let broken = |index: usize, unit: u32, texts: &str| {
            let mut units = units;
            units[index] = unit;
            check(&table(&units, texts)).unwrap_err()
        };
        assert!(broken(0, 300 << 10 | 1 << 9, "b\0").contains("leads out"));
        assert!(broken(256 ^ 0x61, 0x61 | 512 << 10, "b\0").contains("leads out"));
        // The offset of the text.
        assert!(broken(leaf, 1, "ä\0").contains("middle"));
        assert!(broken(leaf, 9, "b\0").contains("middle"));
        for short in [&b""[..], b"\x04\0\0", b"\x04\0\0\0", b"\x01\0\0\0a", b"\0\0\0\0"] {
            assert!(check(short).is_err(), "{short:?}");
        }
    }
}
