//! The chart of memory over time: curves of the process and its allocations, bands for stages, marks for
//! readings.

use std::collections::BTreeSet;

use sd_memory::{Bytes, Reading, Sample};

use super::marks::{self, ROW};
use super::{Paper, area, byte_tick, byte_ticks, curve, line, rectangle, rounded};
use crate::profile::markup::{Element, element};
use crate::profile::scale::Scale;
use crate::profile::{Profile, readings, stages, units};

const WIDTH: f64 = 1080.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 944.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 340.0;
/// The y position of the first row of labels.
const LABELS: f64 = BOTTOM + 46.0;
/// The height of the strip with the stages' names.
const STRIP: f64 = 24.0;
/// A limit higher than this multiple of the curves is only named: drawing it would flatten them.
const FAR: f64 = 2.0;

/// The chart of `profile`.
pub(in crate::profile) fn memory(profile: &Profile) -> Element {
    let timeline = &profile.timeline;
    let highest = highest(profile);
    let drawn = |limit: Bytes| limit.0 as f64 <= FAR * highest.0 as f64;
    let limits = [profile.budget, profile.predicted_peak]
        .into_iter()
        .flatten()
        .filter(|&limit| drawn(limit));
    let most = limits.chain([highest]).max().unwrap_or_default();

    let readings = &timeline.readings[..timeline.readings.len().min(readings::MOST)];
    let across = Scale::new(timeline.seconds, LEFT, RIGHT);
    let labels = labels(readings, across);
    let rows = labels
        .iter()
        .filter_map(|label| label.row)
        .max()
        .map_or(0, |row| row + 1);
    let paper = Paper {
        width: WIDTH,
        height: LABELS + rows as f64 * ROW,
        left: LEFT,
        right: RIGHT,
        top: TOP,
        bottom: BOTTOM,
    };
    let up = paper.up(1.04 * most.0 as f64);

    let mut svg = paper.svg("memory", &description(profile));
    svg = with_data(svg, profile);
    svg = svg.child(gradient()).child(bands(profile, across));
    svg = svg.child(paper.value_axis(up, &byte_ticks(up, most), byte_tick));
    svg = svg.child(curves(&timeline.samples, timeline.seconds, across, up));
    svg = svg.child(paper.time_axis(across));
    svg = svg.child(stage_peaks(profile, across, up));
    svg = svg.child(limit_lines(profile, up, drawn));
    svg.child(marks(readings, &labels, across, up))
}

/// The highest value of any curve.
fn highest(profile: &Profile) -> Bytes {
    let samples = profile.timeline.samples.iter();
    let curves = samples.map(|sample| sample.resident.max(sample.allocated).max(sample.device));
    let stages = profile
        .timeline
        .stages
        .iter()
        .map(|stage| stage.resident_peak.max(stage.allocated_peak));
    curves
        .chain(stages)
        .chain([profile.timeline.peak])
        .max()
        .unwrap_or_default()
}

/// The chart as text, for screen readers.
fn description(profile: &Profile) -> String {
    let timeline = &profile.timeline;
    let mut text = format!(
        "Memory over {}: the process has at most {} resident",
        units::time(timeline.seconds),
        timeline.peak
    );
    if let Some(stage) = timeline.stages.iter().max_by_key(|stage| stage.resident_peak) {
        text.push_str(&format!(", in the stage {}", stage.name));
    }
    if let Some(budget) = profile.budget {
        text.push_str(&format!("; its budget is {budget}"));
    }
    if let Some(predicted) = profile.predicted_peak {
        text.push_str(&format!("; {predicted} were predicted"));
    }
    text.push_str(". The tables below have the figures.");
    text
}

/// Adds the curves' values for the tooltip script.
fn with_data(svg: Element, profile: &Profile) -> Element {
    let samples = &profile.timeline.samples;
    let list = |value: &dyn Fn(&Sample) -> String| samples.iter().map(value).collect::<Vec<_>>().join(" ");
    svg.with("data-left", LEFT)
        .with("data-right", RIGHT)
        .with("data-top", TOP)
        .with("data-bottom", BOTTOM)
        .with("data-most", profile.timeline.seconds)
        .with("data-seconds", list(&|sample| format!("{:.3}", sample.seconds)))
        .with("data-resident", list(&|sample| sample.resident.0.to_string()))
        .with("data-allocated", list(&|sample| sample.allocated.0.to_string()))
        .with("data-device", list(&|sample| sample.device.0.to_string()))
}

fn gradient() -> Element {
    let stop = |offset: &str, class: &str| element("stop").with("offset", offset).with("class", class);
    let shades = element("linearGradient")
        .with("id", "shade")
        .with("x1", 0)
        .with("y1", 0)
        .with("x2", 0)
        .with("y2", 1);
    element("defs").child(
        shades
            .child(stop("0", "shade-top"))
            .child(stop("1", "shade-bottom")),
    )
}

/// The stages as bands behind the curves, with their names above if they fit.
fn bands(profile: &Profile, across: Scale) -> Element {
    let all = &profile.timeline.stages;
    let bands = all.iter().enumerate().map(|(index, stage)| {
        let (left, right) = (across.coordinate(stage.start), across.coordinate(stage.end));
        let width = right - left;
        let what = format!(
            "{}: {}, at most {} resident",
            stage.name,
            units::time(stage.end - stage.start),
            stage.resident_peak
        );
        let mut band = element("g")
            .with("class", stages::class(all, index))
            .child(element("title").text(what));
        band = band.child(rectangle(left, TOP, width, BOTTOM - TOP).with("class", "band"));
        band = band.child(
            rectangle(left, TOP - STRIP, width, STRIP - 4.0)
                .with("class", "strip")
                .with("rx", 3),
        );
        if marks::width(&stage.name) + 12.0 <= width {
            let name = element("text")
                .with("x", rounded(left + width / 2.0))
                .with("y", rounded(TOP - STRIP + 14.0));
            band = band.child(name.with("class", "band-name middle").text(&stage.name));
        }
        band
    });
    element("g").children(bands)
}

fn curves(samples: &[Sample], seconds: f64, across: Scale, up: Scale) -> Element {
    let points = |value: &dyn Fn(&Sample) -> Bytes| -> Vec<(f64, f64)> {
        let point = |sample: &Sample, at: f64| (across.coordinate(at), up.coordinate(value(sample).0 as f64));
        // The last sample extends to the end.
        let last = samples.last().map(|sample| point(sample, seconds));
        samples
            .iter()
            .map(|sample| point(sample, sample.seconds))
            .chain(last)
            .collect()
    };
    let area = area(&points(&|sample| sample.resident), BOTTOM);
    let area = element("path").with("class", "resident-area").with("d", area);
    // No curve for what is not measured.
    let path = |class: &str, value: &dyn Fn(&Sample) -> Bytes| {
        let counted = samples.iter().any(|sample| value(sample) > Bytes(0));
        counted.then(|| {
            element("path")
                .with("class", class)
                .with("d", curve(&points(value)))
        })
    };
    let paths = [
        path("resident", &|sample| sample.resident),
        path("allocated", &|sample| sample.allocated),
        path("device", &|sample| sample.device),
    ];
    element("g").child(area).children(paths.into_iter().flatten())
}

/// The peak resident memory of each stage, including peaks between two samples.
fn stage_peaks(profile: &Profile, across: Scale, up: Scale) -> Element {
    let all = &profile.timeline.stages;
    let lines = all.iter().enumerate().map(|(index, stage)| {
        let y = up.coordinate(stage.resident_peak.0 as f64);
        let ends = line(across.coordinate(stage.start), y, across.coordinate(stage.end), y)
            .with("class", "stage-peak");
        element("g").with("class", stages::class(all, index)).child(ends)
    });
    element("g").children(lines)
}

/// Lines for budget, predicted and measured peak, labelled in the margin.
fn limit_lines(profile: &Profile, up: Scale, drawn: impl Fn(Bytes) -> bool) -> Element {
    const APART: f64 = 15.0;
    let limits = [
        ("budget", profile.budget),
        ("predicted", profile.predicted_peak),
        ("peak", Some(profile.timeline.peak)),
    ];
    let mut limits: Vec<(&str, Bytes)> = limits
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit?)))
        .collect();
    limits.sort_by_key(|&(_, limit)| std::cmp::Reverse(limit));
    let mut next = f64::NEG_INFINITY;
    let lines = limits.into_iter().map(|(name, limit)| {
        let y = up.coordinate(limit.0 as f64);
        let text_y = (y + 4.0).max(next);
        next = text_y + APART;
        let text = element("text")
            .with("x", rounded(RIGHT + 10.0))
            .with("y", rounded(text_y));
        let mut group = element("g").with("class", format!("limit {name}"));
        if drawn(limit) {
            let tip = format!("{name}: {limit}");
            group = group.child(line(LEFT, y, RIGHT + 6.0, y).child(element("title").text(tip)));
            group.child(text.text(format!("{name} {limit}")))
        } else {
            group.child(text.text(format!("{name} {limit} ↑")))
        }
    });
    let lines: Vec<Element> = lines.collect();
    element("g").children(lines)
}

/// A reading's label below the axis.
struct Label<'a> {
    x: f64,
    text: &'a str,
    row: Option<usize>,
}

/// A label for each reading. Of readings with the same name only the first gets a row.
fn labels(readings: &[Reading], across: Scale) -> Vec<Label<'_>> {
    let mut labels: Vec<Label<'_>> = readings
        .iter()
        .map(|reading| Label {
            x: across.coordinate(reading.seconds),
            text: &reading.label,
            row: None,
        })
        .collect();
    let mut seen = BTreeSet::new();
    let mut shown: Vec<&mut Label<'_>> = labels
        .iter_mut()
        .filter(|label| seen.insert(label.text))
        .collect();
    let wanted: Vec<(f64, &str)> = shown.iter().map(|label| (label.x, label.text)).collect();
    for (label, row) in shown.iter_mut().zip(marks::rows(&wanted)) {
        label.row = row;
    }
    labels
}

/// Readings as discs, those after a cleanup as triangles, with lines to their labels.
fn marks(readings: &[Reading], labels: &[Label<'_>], across: Scale, up: Scale) -> Element {
    let marks = readings.iter().zip(labels).map(|(reading, label)| {
        let (x, y) = (
            across.coordinate(reading.seconds),
            up.coordinate(reading.memory.process.0 as f64),
        );
        let mut tip = format!(
            "{}, {}: {} resident",
            reading.label,
            units::time(reading.seconds),
            reading.memory.process
        );
        if let Some(given_back) = reading.given_back {
            tip.push_str(&format!(", {given_back} given back by a cleanup"));
        }
        let mut mark = element("g")
            .with("class", "mark")
            .child(element("title").text(tip));
        if let Some(row) = label.row {
            let label_y = LABELS + row as f64 * ROW;
            mark = mark.child(line(x, y, x, label_y).with("class", "leader"));
            let text = element("text")
                .with("x", rounded(label.x + 5.0))
                .with("y", rounded(label_y));
            mark = mark.child(text.with("class", "mark-label").text(label.text));
        }
        mark.child(match reading.given_back {
            Some(_) => {
                let path = format!("M{} {}l9 0l-4.5 8z", rounded(x - 4.5), rounded(y - 4.0));
                element("path").with("class", "cleanup").with("d", path)
            }
            None => element("circle")
                .with("class", "reading")
                .with("cx", rounded(x))
                .with("cy", rounded(y))
                .with("r", 3.5),
        })
    });
    element("g").children(marks)
}
