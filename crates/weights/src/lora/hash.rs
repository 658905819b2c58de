//! The hash by which other programs know a LoRA file.

use sha2::{Digest, Sha256};

use crate::Result;
use crate::source::Source;

/// Bytes that are read at a time.
const STRETCH: u64 = 1 << 20;
/// Hexadecimal digits that are written of a hash.
const DIGITS: usize = 12;
/// Where kohya's trainer keeps the hash in a header.
const KEPT: &str = "sshs_model_hash";

/// The first twelve digits of what stable-diffusion-webui writes as a LoRA's hash (and civitai calls AutoV3): the SHA-256 of
/// a safetensors file without its header, which begins at `data`; of another file (`data` 0) that of all its bytes. Where the
/// header's `metadata` has the hash, it is taken from there.
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
