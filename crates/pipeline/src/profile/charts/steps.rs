//! The chart of the duration of each denoising step.

use super::{Paper, line, rectangle, rounded};
use crate::profile::markup::{Element, element};
use crate::profile::{Step, units};

/// The most bars; with more steps a bar is the mean of several.
const MOST_BARS: usize = 120;

const PAPER: Paper = Paper {
    width: 540.0,
    height: 220.0,
    left: 62.0,
    right: 530.0,
    top: 16.0,
    bottom: 190.0,
};

/// The chart of `steps`, or None if there are none.
pub(in crate::profile) fn steps(steps: &[Step]) -> Option<Element> {
    let median = median(steps)?;
    let bars: Vec<Bar> = steps
        .chunks(steps.len().div_ceil(MOST_BARS))
        .filter_map(Bar::of)
        .collect();
    let most = bars.iter().map(|bar| bar.seconds).fold(median, f64::max);
    let up = PAPER.up(1.05 * most);
    let ticks = up.ticks(4, 1.0);
    let description = format!(
        "{} steps, half of them took less than {}",
        steps.len(),
        units::time(median)
    );
    let mut svg = PAPER
        .svg("steps", &description)
        .child(PAPER.value_axis(up, &ticks, units::tick));
    let each = (PAPER.right - PAPER.left) / bars.len() as f64;
    let gap = if each > 6.0 { 2.0 } else { 0.0 };
    svg = svg.children(bars.iter().enumerate().map(|(index, bar)| {
        let (left, top) = (PAPER.left + index as f64 * each, up.coordinate(bar.seconds));
        rectangle(left + gap / 2.0, top, each - gap, PAPER.bottom - top)
            .with(
                "class",
                if bar.image.is_multiple_of(2) {
                    "step"
                } else {
                    "step other"
                },
            )
            .with("rx", rounded((each / 8.0).min(2.0)))
            .child(element("title").text(&bar.tip))
    }));
    let y = up.coordinate(median);
    svg = svg.child(line(PAPER.left, PAPER.bottom, PAPER.right, PAPER.bottom).with("class", "axis"));
    svg = svg.child(line(PAPER.left, y, PAPER.right, y).with("class", "median"));
    let name = |x: f64, class: &str, text: String| {
        let at = element("text")
            .with("x", rounded(x))
            .with("y", rounded(PAPER.bottom + 17.0));
        at.with("class", class).text(text)
    };
    svg = svg.child(name(PAPER.left, "tick", "first step".to_owned()));
    Some(svg.child(name(PAPER.right, "tick end", format!("last of {}", steps.len()))))
}

/// The median time, or None if there are no steps.
pub(in crate::profile) fn median(steps: &[Step]) -> Option<f64> {
    let mut times: Vec<f64> = steps.iter().map(|step| step.seconds).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

/// One step, or the mean of consecutive steps.
struct Bar {
    image: usize,
    seconds: f64,
    tip: String,
}

impl Bar {
    fn of(steps: &[Step]) -> Option<Self> {
        let (first, last) = (steps.first()?, steps.last()?);
        let seconds = steps.iter().map(|step| step.seconds).sum::<f64>() / steps.len() as f64;
        let name = |step: &Step| format!("image {}, step {}", step.image + 1, step.step);
        let tip = if steps.len() == 1 {
            format!("{}: {}", name(first), units::time(seconds))
        } else {
            format!(
                "{} to {}: {} on average",
                name(first),
                name(last),
                units::time(seconds)
            )
        };
        Some(Self {
            image: first.image,
            seconds,
            tip,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(index: usize) -> Step {
        Step {
            image: index / 4,
            step: index % 4 + 1,
            seconds: 0.1 * (index + 1) as f64,
        }
    }

    #[test]
    fn every_step_has_a_bar_until_there_are_too_many() {
        let bars = |count: usize| {
            let all: Vec<Step> = (0..count).map(step).collect();
            steps(&all).map(|svg| svg.to_string().matches("<rect").count())
        };
        assert_eq!(bars(0), None);
        assert_eq!(bars(1), Some(1));
        assert_eq!(bars(MOST_BARS), Some(MOST_BARS));
        assert!(bars(10 * MOST_BARS + 1).is_some_and(|count| count <= MOST_BARS));
    }

    #[test]
    fn steps_are_named_with_their_times() {
        let svg = steps(&[step(0), step(5)])
            .map(|svg| svg.to_string())
            .unwrap_or_default();
        assert!(
            svg.contains("image 1, step 1: 100 ms") && svg.contains("image 2, step 2: 600 ms"),
            "{svg}"
        );
        assert_eq!(median(&[step(2), step(0), step(1)]), Some(step(1).seconds));
    }
}
