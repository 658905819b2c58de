//! [`DevicesProgress`]: how far all devices have come, for the status line.

use std::time::Duration;

use serde_json::Value;

use crate::activity::Place;
use crate::progress::{bar, clock};

/// How far all devices have come.
#[derive(Debug, Default)]
pub(super) struct DevicesProgress {
    /// Images of all devices, and those that are saved.
    images: usize,
    saved: usize,
    devices: Vec<DeviceProgress>,
}

/// How far one device has come.
#[derive(Debug, Default, Clone)]
struct DeviceProgress {
    stage: String,
    steps_done: u64,
    steps: u64,
    seconds_left: Option<f64>,
    has_ended: bool,
}

impl DevicesProgress {
    /// That of so many `devices` and `images`, of which nothing is done.
    pub(super) fn new(devices: usize, images: usize) -> Self {
        Self {
            images,
            saved: 0,
            devices: vec![DeviceProgress::default(); devices],
        }
    }

    /// Takes note of an event of `device`.
    pub(super) fn observe(&mut self, device: usize, event: &Value) {
        let Some(progress) = self.devices.get_mut(device) else {
            return;
        };
        match event["event"].as_str() {
            Some("stage") => progress.stage = event["stage"].as_str().unwrap_or_default().to_owned(),
            Some("progress") => {
                progress.steps_done = event["steps_done"].as_u64().unwrap_or(0);
                progress.steps = event["steps"].as_u64().unwrap_or(0);
                progress.seconds_left = event["seconds_left"].as_f64();
            }
            Some("saved") => self.saved += 1,
            _ => {}
        }
    }

    /// Takes note of the end of `device`.
    pub(super) fn end(&mut self, device: usize) {
        if let Some(progress) = self.devices.get_mut(device) {
            progress.has_ended = true;
        }
    }

    /// What is done, in one line.
    pub(super) fn text(&self, place: Place) -> String {
        let running = || self.devices.iter().filter(|device| !device.has_ended);
        let (done, all) = (self.saved, self.images);
        let bar = match place {
            Place::StatusLine => format!("{} ", bar(done as u64, all as u64)),
            Place::Line => String::new(),
        };
        // The run ends with its slowest device.
        let mut left = running().map(|device| device.seconds_left);
        let left = left.try_fold(0.0_f64, |most, seconds| Some(most.max(seconds?)));
        let left = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let left = left.filter(|left| !left.is_zero());
        let left = left.map_or_else(String::new, |left| format!(", {} left", clock(left)));
        let devices: Vec<String> = running()
            .map(|device| match device.stage.as_str() {
                "" => "starting".to_owned(),
                "denoise" | "refine" => format!("{}/{} steps", device.steps_done, device.steps),
                stage => stage.to_owned(),
            })
            .collect();
        format!(
            "{bar}{done}/{all} images{left}; the devices: {}",
            devices.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_line_tells_of_all_devices() {
        let mut progress = DevicesProgress::new(2, 8);
        assert_eq!(
            progress.text(Place::Line),
            "0/8 images; the devices: starting, starting"
        );
        progress.observe(0, &json!({ "event": "stage", "stage": "denoise" }));
        progress.observe(
            0,
            &json!({ "event": "progress", "steps_done": 3, "steps": 28, "seconds_left": 65.2 }),
        );
        // Nothing is known of the other one.
        progress.observe(1, &json!({ "event": "stage", "stage": "encode" }));
        assert_eq!(
            progress.text(Place::Line),
            "0/8 images; the devices: 3/28 steps, encode"
        );
        progress.observe(1, &json!({ "event": "progress", "seconds_left": 70.0 }));
        progress.observe(0, &json!({ "event": "saved" }));
        assert_eq!(
            progress.text(Place::Line),
            "1/8 images, 1:10 left; the devices: 3/28 steps, encode"
        );
        progress.end(1);
        assert_eq!(
            progress.text(Place::Line),
            "1/8 images, 1:05 left; the devices: 3/28 steps"
        );
    }
}
