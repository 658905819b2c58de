//! Sixel graphics: bands of six rows, in each of them one pass for each colour.

use sd_pipeline::save::RgbImage;

/// Steps of each of red, green and blue.
const LEVELS: usize = 6;
/// Pixels of a row of the terminal, the least that fonts have.
const CELL: usize = 12;
/// Rows of pixels in a band.
const BAND: usize = 6;

/// What draws `image` at the cursor, scaled so that it fits into `rows` of the terminal.
pub(super) fn sequence(image: &RgbImage, rows: usize) -> Vec<u8> {
    if image.width() * image.height() == 0 {
        return Vec::new();
    }
    // Whole bands, since terminals show the last one as a whole.
    let height = rows * CELL / BAND * BAND;
    let width = (height * image.width()).div_ceil(image.height());
    let at = |x: usize, y: usize| {
        let (x, y) = (x * image.width() / width, y * image.height() / height);
        color(&image.pixels()[3 * (y * image.width() + x)..])
    };
    // Pixels that are not drawn keep what was there.
    let mut bytes = format!("\x1bP0;1q\"1;1;{width};{height}").into_bytes();
    for color in 0..LEVELS.pow(3) {
        let part = |index: usize| 100 * index / (LEVELS - 1);
        let (red, green, blue) = (color / LEVELS / LEVELS, color / LEVELS % LEVELS, color % LEVELS);
        bytes.extend(format!("#{color};2;{};{};{}", part(red), part(green), part(blue)).bytes());
    }
    for top in (0..height).step_by(BAND) {
        // For each colour of the band, which of the six pixels of each column have it.
        let mut passes: Vec<(usize, Vec<u8>)> = Vec::new();
        for x in 0..width {
            for bit in 0..BAND {
                let color = at(x, top + bit);
                let pass = match passes.iter().position(|(known, _)| *known == color) {
                    Some(index) => &mut passes[index].1,
                    None => {
                        passes.push((color, vec![0; width]));
                        let last = passes.len() - 1;
                        &mut passes[last].1
                    }
                };
                pass[x] |= 1 << bit;
            }
        }
        for (color, columns) in passes {
            bytes.extend(format!("#{color}").bytes());
            push_run_lengths(&mut bytes, &columns);
            // Back to the first column.
            bytes.push(b'$');
        }
        // To the next band.
        bytes.push(b'-');
    }
    bytes.extend(b"\x1b\\");
    bytes
}

/// The number of the nearest colour of the palette to the pixel that `bytes` begin with.
fn color(bytes: &[u8]) -> usize {
    let level = |byte: u8| (usize::from(byte) * (LEVELS - 1) + 127) / 255;
    (level(bytes[0]) * LEVELS + level(bytes[1])) * LEVELS + level(bytes[2])
}

/// Columns as sixels, equal ones with their number.
fn push_run_lengths(bytes: &mut Vec<u8>, columns: &[u8]) {
    for run in columns.chunk_by(|left, right| left == right) {
        let sixel = b'?' + run[0];
        match run.len() {
            length @ 1..=3 => bytes.extend(std::iter::repeat_n(sixel, length)),
            length => {
                bytes.extend(format!("!{length}").bytes());
                bytes.push(sixel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_two_colours_has_two_passes_a_band() {
        // Red above blue.
        let image = RgbImage::new(1, 2, vec![255, 0, 0, 0, 0, 255]);
        let text = String::from_utf8(sequence(&image, 1)).unwrap();
        let (head, bands) = text.split_once("#215;2;100;100;100").unwrap();
        assert!(head.starts_with("\x1bP0;1q\"1;1;6;12#0;2;0;0;0"), "{head}");
        assert_eq!(bands, "#180!6~$-#5!6~$-\x1b\\");
    }

    #[test]
    fn short_runs_are_written_out() {
        let mut bytes = Vec::new();
        push_run_lengths(&mut bytes, &[1, 1, 1, 2, 0, 0, 0, 0]);
        assert_eq!(bytes, b"@@@A!4?");
    }
}
