//! The charts, each one SVG.

mod marks;
mod memory;
mod steps;
mod weights;

use sd_memory::Bytes;

use super::markup::{Element, element};
use super::scale::Scale;
use super::units;

pub(super) use memory::memory;
pub(super) use steps::{median, steps};
pub(super) use weights::weights;

/// A chart and its plot area.
#[derive(Debug, Clone, Copy)]
struct Paper {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Paper {
    /// An empty chart with `description` as its text alternative.
    fn svg(self, class: &str, description: &str) -> Element {
        element("svg")
            .with("class", class)
            .with("viewBox", format!("0 0 {} {}", self.width, self.height))
            .with("role", "img")
            .with("aria-label", description)
    }

    fn across(self, most: f64) -> Scale {
        Scale::new(most, self.left, self.right)
    }

    fn up(self, most: f64) -> Scale {
        Scale::new(most, self.bottom, self.top)
    }

    /// The time axis at the bottom.
    fn time_axis(self, scale: Scale) -> Element {
        let names = scale
            .ticks(8, units::unit_of(scale.most()))
            .into_iter()
            .map(|seconds| {
                let at = element("text")
                    .with("x", rounded(scale.coordinate(seconds)))
                    .with("y", rounded(self.bottom + 17.0));
                at.with("class", "tick middle").text(units::tick(seconds))
            });
        let line = line(self.left, self.bottom, self.right, self.bottom).with("class", "axis");
        element("g").child(line).children(names)
    }

    /// The value axis at the left, with grid lines labelled by `name`.
    fn value_axis(self, scale: Scale, ticks: &[f64], name: impl Fn(f64) -> String) -> Element {
        let rows = ticks.iter().map(|&value| {
            let y = scale.coordinate(value);
            let text = element("text")
                .with("x", rounded(self.left - 8.0))
                .with("y", rounded(y + 4.0));
            element("g")
                .child(line(self.left, y, self.right, y).with("class", "grid"))
                .child(text.with("class", "tick end").text(name(value)))
        });
        element("g").children(rows)
    }
}

/// A coordinate, rounded to a tenth.
fn rounded(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0")
        .map_or_else(|| text.clone(), str::to_owned)
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64) -> Element {
    element("line")
        .with("x1", rounded(x1))
        .with("y1", rounded(y1))
        .with("x2", rounded(x2))
        .with("y2", rounded(y2))
}

fn rectangle(left: f64, top: f64, width: f64, height: f64) -> Element {
    element("rect")
        .with("x", rounded(left))
        .with("y", rounded(top))
        .with("width", rounded(width.max(0.0)))
        .with("height", rounded(height.max(0.0)))
}

/// A path through `points`, from left to right.
fn curve(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (index, &(x, y)) in points.iter().enumerate() {
        path.push(if index == 0 { 'M' } else { 'L' });
        path.push_str(&rounded(x));
        path.push(' ');
        path.push_str(&rounded(y));
    }
    path
}

/// The area between a curve and the line at `bottom`.
fn area(points: &[(f64, f64)], bottom: f64) -> String {
    match (points.first(), points.last()) {
        (Some(first), Some(last)) => {
            let bottom = rounded(bottom);
            format!(
                "{}L{} {bottom}L{} {bottom}Z",
                curve(points),
                rounded(last.0),
                rounded(first.0)
            )
        }
        _ => String::new(),
    }
}

/// The ticks of an axis of bytes, and their labels without trailing zeros.
fn byte_ticks(scale: Scale, most: Bytes) -> Vec<f64> {
    let unit = [1_u64 << 30, 1 << 20, 1 << 10]
        .into_iter()
        .find(|&unit| most.0 >= unit)
        .unwrap_or(1);
    scale.ticks(5, unit as f64)
}

fn byte_tick(value: f64) -> String {
    let text = Bytes(value.round() as u64).to_string();
    if value == 0.0 {
        "0".to_owned()
    } else {
        text.replacen(".0", "", 1)
    }
}
