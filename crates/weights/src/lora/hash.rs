//! The hash by which other programs identify a LoRA file.

use sha2::{Digest, Sha256};

use crate::Result;
use crate::source::Source;

/// The bytes that are read at a time.
const STRETCH: u64 = 1 << 20;
/// The number of hexadecimal digits of the hash.
const DIGITS: usize = 12;
/// The metadata key under which kohya-ss stores the hash.
const KEPT: &str = "sshs_model_hash";

/// The first twelve digits of the LoRA hash of stable-diffusion-webui (AutoV3 on civitai): the SHA-256 of the
/// data of a safetensors file, which begins at `data`, or of all bytes of another file (`data` 0). Where the
/// `metadata` of the header has the hash, it is taken from there.
pub(super) fn of(
    source: &Source,
    metadata: &std::collections::BTreeMap<String, String>,
    data: u64,
) -> Result<String> {
    let is_hash = |text: &&String| {
        text.len() >= DIGITS
            && text
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
    };
    if let Some(kept) = metadata.get(KEPT).filter(is_hash) {
        return Ok(kept[..DIGITS].to_owned());
    }
    let mut hash = Sha256::new();
    let mut stretch = vec![0; STRETCH.min(source.length().saturating_sub(data)) as usize];
    let mut at = data;
    while at < source.length() {
        let bytes = &mut stretch[..STRETCH.min(source.length() - at) as usize];
        source.read_at(at, bytes)?;
        hash.update(&*bytes);
        at += bytes.len() as u64;
    }
    let digits = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    Ok(digits[..DIGITS].to_owned())
}
