//! Kitty's graphics protocol: a PNG in base64, in pieces.

/// The longest piece of base64 in one sequence.
const PIECE: usize = 4096;
/// The number under which the terminal keeps the image. An image of the same number is replaced.
const ID: u32 = 0x5d9e;

/// What draws `png` at the cursor, `rows` high.
pub(super) fn sequence(png: &str, rows: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(png.len() + png.len() / PIECE * 16 + 64);
    let count = png.len().div_ceil(PIECE);
    for (index, piece) in png.as_bytes().chunks(PIECE).enumerate() {
        let more = u8::from(index + 1 < count);
        let keys = match index {
            // Transmit and show a PNG, without an answer and without moving the cursor.
            0 => format!("a=T,f=100,i={ID},r={rows},C=1,q=2,m={more}"),
            _ => format!("m={more}"),
        };
        bytes.extend(format!("\x1b_G{keys};").bytes());
        bytes.extend(piece);
        bytes.extend(b"\x1b\\");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_image_comes_in_pieces() {
        let text = String::from_utf8(sequence(&"A".repeat(PIECE + 4), 9)).unwrap();
        let pieces: Vec<&str> = text.split_terminator("\x1b\\").collect();
        assert_eq!(pieces.len(), 2);
        assert!(
            pieces[0].starts_with("\x1b_Ga=T,f=100,i=23966,r=9,C=1,q=2,m=1;AAAA"),
            "{text}"
        );
        assert_eq!(pieces[1], "\x1b_Gm=0;AAAA");
    }
}
