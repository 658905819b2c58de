//! The stages of a run: their colours and their table.

use sd_memory::{Bytes, Stage};

use super::markup::{Element, element, table_head};
use super::{Profile, units};

/// The number of stage colours.
const COLOURS: usize = 6;

/// The CSS class of the stage at `index`: stages with the same name share a colour.
pub(super) fn class(stages: &[Stage], index: usize) -> String {
    let mut names: Vec<&str> = Vec::new();
    for stage in &stages[..=index] {
        if !names.contains(&stage.name.as_str()) {
            names.push(&stage.name);
        }
    }
    let number = names
        .iter()
        .position(|name| *name == stages[index].name)
        .unwrap_or_default();
    format!("stage-{}", number % COLOURS)
}

/// The table of the stages with the memory of each.
pub(super) fn table(profile: &Profile) -> Element {
    let stages = &profile.timeline.stages;
    let predicted = !profile.predicted_stages.is_empty();
    let read = stages.iter().any(|stage| stage.weights_read > Bytes(0));
    let on_device = stages.iter().any(|stage| stage.device_peak > Bytes(0));
    let counted = stages.iter().any(|stage| stage.allocated_peak > Bytes(0));

    let heads = [
        ("Stage", true),
        ("Begins", true),
        ("Takes", true),
        ("Resident peak", true),
        ("On the device", on_device),
        ("Predicted", predicted),
        ("Allocated peak", counted),
        ("Weights read", read),
    ];
    let head = table_head(heads);

    let rows = stages.iter().enumerate().map(|(index, stage)| {
        let takes = stage.end - stage.start;
        let share = takes / profile.timeline.seconds.max(f64::MIN_POSITIVE);
        let bar = element("span")
            .with("class", "share")
            .with("style", format!("width:{:.1}%", 100.0 * share.min(1.0)));
        let name = element("th")
            .with("scope", "row")
            .child(element("span").with("class", format!("chip {}", class(stages, index))))
            .text(&stage.name);
        let mut row = element("tr").child(name).child(cell(units::time(stage.start)));
        row = row.child(
            element("td")
                .with("class", class(stages, index))
                .text(units::time(takes))
                .child(bar),
        );
        row = row.child(cell(stage.resident_peak));
        if on_device {
            row = row.child(cell(stage.device_peak));
        }
        if predicted {
            let of_stage = profile
                .predicted_stages
                .iter()
                .find(|(name, _)| *name == stage.name);
            row = row.child(cell(
                of_stage.map_or("–".to_owned(), |(_, bytes)| bytes.to_string()),
            ));
        }
        if counted {
            row = row.child(cell(stage.allocated_peak));
        }
        if read {
            row = row.child(match stage.weights_read {
                Bytes(0) => cell("–"),
                read => cell(read),
            });
        }
        row
    });
    element("table")
        .child(head)
        .child(element("tbody").children(rows))
}

fn cell(text: impl std::fmt::Display) -> Element {
    element("td").text(text)
}
