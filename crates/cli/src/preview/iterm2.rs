//! The inline images of iTerm2: a file in base64.

/// What draws `png` at the cursor, `rows` high.
pub(super) fn sequence(png: &str, rows: usize) -> Vec<u8> {
    format!("\x1b]1337;File=inline=1;height={rows};preserveAspectRatio=1:{png}\x07").into_bytes()
}
