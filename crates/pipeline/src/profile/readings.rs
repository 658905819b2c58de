//! The table of a run's readings.

use sd_memory::{Bytes, Reading};

use super::markup::{Element, element, table_head};
use super::units;

/// The most readings of a page, in the table and as marks.
pub(super) const MOST: usize = 200;

/// The table of the first of `readings`.
pub(super) fn table(readings: &[Reading]) -> Element {
    let counted = readings.iter().any(|reading| reading.allocated > Bytes(0));
    let on_device = readings.iter().any(|reading| reading.device.is_some());
    let heads = [
        ("Point", true),
        ("At", true),
        ("Process", true),
        ("Allocated", counted),
        ("On the device", on_device),
        ("Machine has left", true),
        ("Given back by a cleanup", true),
    ];
    let rows = readings
        .iter()
        .take(MOST)
        .map(|reading| row(reading, counted, on_device));
    element("table")
        .child(table_head(heads))
        .child(element("tbody").children(rows))
}

fn row(reading: &Reading, counted: bool, on_device: bool) -> Element {
    let cell = |text: String| element("td").text(text);
    let mut row = element("tr")
        .child(element("th").with("scope", "row").text(&reading.label))
        .child(cell(units::time(reading.seconds)))
        .child(cell(reading.memory.process.to_string()));
    if counted {
        row = row.child(cell(reading.allocated.to_string()));
    }
    if on_device {
        let used = reading.device.map_or(Bytes(0), |device| device.used);
        row = row.child(cell(used.to_string()));
    }
    let given_back = reading.given_back.map(|bytes| bytes.to_string());
    row.child(cell(reading.memory.system_available.to_string()))
        .child(cell(given_back.unwrap_or_default()))
}
