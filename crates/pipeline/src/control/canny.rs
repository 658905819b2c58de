//! Canny edge detection, equal to OpenCV's `Canny(image, low, high)` in every pixel.
//!
//! Canny, "A Computational Approach to Edge Detection", 1986. Like OpenCV it does not smooth the image first.
//! Gradients are those of the 3x3 Sobel filters in the channel that changes most, and their magnitude is the
//! L1 norm.

use crate::save::RgbImage;

/// The tangent of 22.5 degrees in fixed point.
const TANGENT: i64 = 13573;
const TANGENT_BITS: u32 = 15;

/// The edges of `image`, white on black. A pixel is on an edge if its gradient is a local maximum in the
/// gradient's direction, and greater than `high`, or greater than `low` and next to an edge. ControlNets are
/// trained with 100 and 200.
pub fn canny(image: &RgbImage, low: i32, high: i32) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let gradients = Gradients::of(image);
    let mut marks = vec![Mark::None; width * height];
    let mut marked = 0;
    for y in 0..height {
        for x in 0..width {
            let size = gradients.at(x, y).size();
            if size > low && gradients.is_ridge(x, y) {
                marked += 1;
                marks[y * width + x] = if size > high { Mark::Edge } else { Mark::Candidate };
            }
        }
    }
    drop(gradients);
    // Each pixel is pushed once at most, so the capacity suffices. An image has fewer than 2^32 pixels.
    let mut open: Vec<u32> = Vec::with_capacity(marked);
    let edges = marks.iter().enumerate().filter(|(_, mark)| **mark == Mark::Edge);
    open.extend(edges.map(|(index, _)| index as u32));
    while let Some(index) = open.pop() {
        let (x, y) = (index as usize % width, index as usize / width);
        for near_y in y.saturating_sub(1)..(y + 2).min(height) {
            for near_x in x.saturating_sub(1)..(x + 2).min(width) {
                let index = near_y * width + near_x;
                if marks[index] == Mark::Candidate {
                    marks[index] = Mark::Edge;
                    open.push(index as u32);
                }
            }
        }
    }
    drop(open);
    let mut pixels = Vec::with_capacity(3 * marks.len());
    pixels.extend(
        marks
            .iter()
            .flat_map(|mark| [if *mark == Mark::Edge { 255 } else { 0 }; 3]),
    );
    RgbImage::new(width, height, pixels)
}

/// The peak bytes of the edge detection for an image of `pixels`, beside the image and its edges.
pub(crate) fn bytes(pixels: u64) -> u64 {
    let marks = size_of::<Mark>() as u64;
    pixels * (marks + size_of::<Gradient>().max(size_of::<u32>()) as u64)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    /// On an edge if a neighbour is on one.
    Candidate,
    Edge,
}

/// The horizontal and vertical gradient.
#[derive(Debug, Clone, Copy, Default)]
struct Gradient {
    right: i16,
    down: i16,
}

impl Gradient {
    fn size(self) -> i32 {
        i32::from(self.right.abs()) + i32::from(self.down.abs())
    }
}

#[derive(Debug)]
struct Gradients {
    width: usize,
    height: usize,
    values: Vec<Gradient>,
}

impl Gradients {
    /// The border pixels are replicated.
    fn of(image: &RgbImage) -> Self {
        let (width, height) = (image.width(), image.height());
        let pixels = image.pixels();
        let mut values = Vec::with_capacity(width * height);
        for y in 0..height {
            let rows = [y.saturating_sub(1), y, (y + 1).min(height - 1)];
            for x in 0..width {
                let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
                let mut largest = Gradient::default();
                for channel in 0..3 {
                    let value = |row: usize, column: usize| {
                        i16::from(pixels[3 * (rows[row] * width + columns[column]) + channel])
                    };
                    let column = |column| value(0, column) + 2 * value(1, column) + value(2, column);
                    let row = |row| value(row, 0) + 2 * value(row, 1) + value(row, 2);
                    let gradient = Gradient {
                        right: column(2) - column(0),
                        down: row(2) - row(0),
                    };
                    if channel == 0 || gradient.size() > largest.size() {
                        largest = gradient;
                    }
                }
                values.push(largest);
            }
        }
        Self {
            width,
            height,
            values,
        }
    }

    fn at(&self, x: usize, y: usize) -> Gradient {
        self.values[y * self.width + x]
    }

    /// The magnitude of the gradient at an offset from a pixel; 0 outside the image.
    fn size(&self, x: usize, y: usize, right: isize, down: isize) -> i32 {
        let pixel = x.checked_add_signed(right).zip(y.checked_add_signed(down));
        match pixel.filter(|&(x, y)| x < self.width && y < self.height) {
            Some((x, y)) => self.at(x, y).size(),
            None => 0,
        }
    }

    /// Whether the gradient is a local maximum in its direction, quantised to 45 degrees. Of two equal ones
    /// that are not diagonal the first counts.
    fn is_ridge(&self, x: usize, y: usize) -> bool {
        let Gradient { right, down } = self.at(x, y);
        let size = self.at(x, y).size();
        let (across, along) = (i64::from(right.abs()), i64::from(down.abs()) << TANGENT_BITS);
        let small = across * TANGENT;
        // The tangent of 67.5 degrees is 2 more.
        let large = small + (across << (TANGENT_BITS + 1));
        if along < small {
            size > self.size(x, y, -1, 0) && size >= self.size(x, y, 1, 0)
        } else if along > large {
            size > self.size(x, y, 0, -1) && size >= self.size(x, y, 0, 1)
        } else {
            let step = if (right ^ down) < 0 { -1 } else { 1 };
            size > self.size(x, y, -step, -1) && size > self.size(x, y, step, 1)
        }
    }
}
