//! [`RunProgress`]: how far a run has come, from its events, and how that is written.

use std::time::{Duration, Instant};

use sd_pipeline::plan::{Plan, StagePlan};
use sd_pipeline::{BlockCount, Bytes, Event, StageProgress};
use serde_json::{Value, json};

use super::bar::bar;
use super::durations::{clock, rough};
use crate::activity::Place;

/// A step that takes less than this is over before its blocks can be read.
const SLOW_STEP: Duration = Duration::from_secs(2);
/// The part of the pace that the newest step has.
const NEWEST: f64 = 0.3;

/// How far a run has come.
#[derive(Debug)]
pub(crate) struct RunProgress {
    planned: PlannedTimes,
    /// Images of the run, and those that are saved.
    images: usize,
    saved: usize,
    /// Steps of all images and model passes, and those that are done.
    steps: usize,
    steps_done: usize,
    /// Seconds of a step, from the steps of this process.
    pace: Option<f64>,
    /// How much of its predicted time the device took to encode the prompt, if that was less.
    faster: f64,
    stage: Option<RunningStage>,
}

/// The stage that runs.
#[derive(Debug)]
struct RunningStage {
    name: String,
    begun: Instant,
    progress: StageProgress,
    /// When the last step ended, and the blocks until then.
    step_begun: Instant,
    blocks_before: BlockCount,
}

/// The times that the plan predicts, in seconds; zero where it does not.
#[derive(Debug, Default, Clone, Copy)]
struct PlannedTimes {
    /// The text encoders.
    encode: f64,
    /// Everything else before the first step.
    before: f64,
    /// All steps.
    steps: f64,
    /// Everything after the last step.
    after: f64,
}

impl PlannedTimes {
    fn of(plan: &Plan) -> Self {
        let mut times = Self::default();
        for StagePlan { name, duration, .. } in &plan.stages {
            let seconds = duration.map_or(0.0, |duration| duration.as_secs_f64());
            match name.as_str() {
                "denoise" | "refine" => times.steps += seconds,
                "decode" | "refiner decode" | "upscale" => times.after += seconds,
                name if name.starts_with("text_encoder") => times.encode += seconds,
                _ => times.before += seconds,
            }
        }
        times
    }
}

/// The time that is left.
#[derive(Debug, Clone, Copy, PartialEq)]
enum TimeLeft {
    /// As the plan predicts.
    Planned(Duration),
    /// From the steps so far.
    Measured(Duration),
}

impl RunProgress {
    /// A run that begins.
    pub(crate) fn new() -> Self {
        Self {
            planned: PlannedTimes::default(),
            images: 1,
            saved: 0,
            steps: 0,
            steps_done: 0,
            pace: None,
            faster: 1.0,
            stage: None,
        }
    }

    /// Takes note of an event that happens `now`.
    pub(crate) fn observe(&mut self, event: &Event<'_>, now: Instant) {
        match event {
            // The first stage of a run, or of the next of several.
            Event::Stage {
                stage: "open",
                progress,
            } => {
                *self = Self::new();
                self.stage = Some(RunningStage::new("open", *progress, now));
            }
            // The prompts of several runs, before the first of them.
            Event::Stage {
                stage: stage @ "encode prompts",
                progress,
            } => {
                *self = Self::new();
                self.stage = Some(RunningStage::new(stage, *progress, now));
            }
            Event::Planned { plan } => {
                self.planned = PlannedTimes::of(plan);
                self.images = plan.groups.images;
                self.steps = plan.groups.steps();
            }
            Event::Resumed {
                steps_done, steps, ..
            } => (self.steps_done, self.steps) = (*steps_done, *steps),
            Event::Stage { stage, progress } => {
                if let Some(encoding) = self.encoding(now) {
                    self.faster = encoding.faster(self.planned.encode);
                }
                self.stage = Some(RunningStage::new(stage, *progress, now));
            }
            Event::Step { duration, .. } => {
                self.steps_done += 1;
                self.steps = self.steps.max(self.steps_done);
                let newest = duration.as_secs_f64();
                self.pace = Some(match self.pace {
                    Some(pace) => pace + NEWEST * (newest - pace),
                    None => newest,
                });
                if let Some(stage) = &mut self.stage {
                    stage.step_begun = now;
                    stage.blocks_before = stage.progress.blocks();
                }
            }
            Event::Saved(_) => self.saved += 1,
            _ => {}
        }
    }

    /// What the run does, in one line.
    pub(crate) fn text(&self, place: Place, now: Instant) -> String {
        let Some(stage) = &self.stage else {
            return "starting".to_owned();
        };
        let left = match self.time_left(now) {
            Some(TimeLeft::Planned(left)) => format!(", about {} left", rough(left)),
            Some(TimeLeft::Measured(left)) => format!(", {} left", clock(left)),
            None => String::new(),
        };
        let elapsed = clock(now.saturating_duration_since(stage.begun));
        let doing = doing(&stage.name);
        if !stage.has_steps() {
            let work = stage.work().map_or_else(String::new, |work| format!(" {work},"));
            return format!("{doing}:{work} {elapsed}{left}");
        }
        let bar = match place {
            Place::StatusLine => format!("{} ", bar(self.steps_done as u64, self.steps as u64)),
            Place::Line => String::new(),
        };
        let image = match self.images {
            1 => String::new(),
            images => format!(", image {} of {images}", (self.saved + 1).min(images)),
        };
        let pace = self
            .pace
            .map_or_else(String::new, |pace| format!(", {pace:.2} s/step"));
        let (done, all) = (self.steps_done, self.steps);
        let step = stage.step(now, done + 1);
        // A narrow terminal cuts the end.
        format!("{doing}: {bar}{done}/{all} steps{left}{image}{step}{pace}")
    }

    /// The same for a program.
    pub(crate) fn json(&self, now: Instant) -> Option<Value> {
        let stage = self.stage.as_ref()?;
        let blocks = stage.progress.blocks();
        let left = self.time_left(now).map(|left| match left {
            TimeLeft::Planned(left) | TimeLeft::Measured(left) => left.as_secs_f64(),
        });
        Some(json!({
            "event": "progress",
            "stage": stage.name,
            "seconds": now.saturating_duration_since(stage.begun).as_secs_f64(),
            "blocks_done": blocks.done,
            "blocks": blocks.begun,
            "bytes_read": stage.progress.bytes_read(),
            "bytes": stage.progress.expected_bytes(),
            "steps_done": self.steps_done,
            "steps": self.steps,
            "seconds_left": left,
        }))
    }

    /// The time until all images are saved, if the plan predicts it or steps have shown it.
    fn time_left(&self, now: Instant) -> Option<TimeLeft> {
        let stage = self.stage.as_ref()?;
        let planned = self.planned;
        let steps = self.steps.max(1) as f64;
        let steps_left = (self.steps - self.steps_done) as f64;
        let encoding = self.encoding(now);
        // A disk makes the encoding slower than predicted, but only the device makes it faster.
        let faster = encoding.map_or(self.faster, |encoding| encoding.faster(planned.encode));
        let planned_step = faster * planned.steps / steps;
        let pace = self.pace.or_else(|| stage.pace_of_blocks(now));
        if pace.is_none() && planned_step == 0.0 {
            return None;
        }
        let step = pace.unwrap_or(planned_step);
        let of_step = match stage.has_steps() {
            true => now
                .saturating_duration_since(stage.step_begun)
                .as_secs_f64()
                .min(step),
            false => 0.0,
        };
        let of_steps = (step * steps_left - of_step).max(0.0);
        // What the device takes longer for steps than predicted, it takes longer for the other stages too.
        let ratio = match planned_step > 0.0 {
            true => (step / planned_step).clamp(0.1, 10.0),
            false => 1.0,
        };
        let elapsed = now.saturating_duration_since(stage.begun).as_secs_f64();
        let (encode, before) = (planned.encode, faster * planned.before);
        let before = match (pace, stage.name.as_str()) {
            (Some(_), _) => 0.0,
            (None, "open") => (encode + before - elapsed).max(0.0),
            (None, "encode") => {
                let planned = || (encode - elapsed).max(0.0);
                encoding.map_or_else(planned, |encoding| encoding.left()) + before
            }
            (None, _) => (before - elapsed).max(0.0),
        };
        let images = self.images.max(1) as f64;
        let an_image = ratio * faster * planned.after / images;
        let images_left = self.images.saturating_sub(self.saved) as f64;
        let of_image = match stage.name.as_str() {
            "decode" | "upscale" => elapsed.min(an_image),
            _ => 0.0,
        };
        let seconds = before + of_steps + (an_image * images_left - of_image).max(0.0);
        let left = Duration::try_from_secs_f64(seconds).ok()?;
        match pace {
            Some(_) if steps_left == 0.0 && planned.after == 0.0 => None,
            Some(_) => Some(TimeLeft::Measured(left)),
            None => Some(TimeLeft::Planned(left)),
        }
    }
}

impl RunProgress {
    /// The encoding of the prompt, if that is the stage and enough of it is done.
    fn encoding(&self, now: Instant) -> Option<Encoding> {
        let stage = self.stage.as_ref().filter(|stage| stage.name == "encode")?;
        let expected = stage.progress.expected_bytes()?;
        Encoding::of(
            stage.progress.blocks(),
            stage.progress.bytes_read(),
            expected,
            now.saturating_duration_since(stage.begun),
        )
    }
}

/// How far the encoding of the prompt has come. Its encoders run one after another, and each of their weights is
/// read and used once, so that bytes tell more than blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Encoding {
    /// The part that is done.
    done: f64,
    /// Seconds that it took.
    elapsed: f64,
}

impl Encoding {
    fn of(blocks: BlockCount, read: Bytes, expected: Bytes, elapsed: Duration) -> Option<Self> {
        /// The first blocks may wait for what is read or compiled once.
        const ENOUGH: u64 = 4;
        let is_enough = blocks.done >= ENOUGH && read > Bytes(0) && expected > Bytes(0);
        is_enough.then(|| Self {
            done: (read.0 as f64 / expected.0 as f64).min(1.0),
            elapsed: elapsed.as_secs_f64(),
        })
    }

    /// Seconds until it is finished.
    fn left(self) -> f64 {
        self.elapsed * (1.0 - self.done) / self.done
    }

    /// How much of the `planned` seconds it takes, if that is less.
    fn faster(self, planned: f64) -> f64 {
        match planned > 0.0 {
            true => (self.elapsed / self.done / planned).min(1.0),
            false => 1.0,
        }
    }
}

impl RunningStage {
    fn new(name: &str, progress: StageProgress, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            begun: now,
            progress,
            step_begun: now,
            blocks_before: BlockCount::default(),
        }
    }

    fn has_steps(&self) -> bool {
        matches!(self.name.as_str(), "denoise" | "refine")
    }

    /// The bytes and the blocks of a stage without steps.
    fn work(&self) -> Option<String> {
        let (read, blocks) = (self.progress.bytes_read(), self.progress.blocks());
        let bytes = (read > Bytes(0)).then(|| match self.progress.expected_bytes() {
            Some(expected) if expected > read => format!("{read} of {expected} read"),
            _ => format!("{read} read"),
        });
        let blocks = (blocks.begun > 0).then(|| format!("{} of {} blocks", blocks.done, blocks.begun));
        match (blocks, bytes) {
            (Some(blocks), Some(bytes)) => Some(format!("{blocks}, {bytes}")),
            (blocks, bytes) => blocks.or(bytes),
        }
    }

    /// Seconds of the first step, from the blocks of its forward passes so far.
    fn pace_of_blocks(&self, now: Instant) -> Option<f64> {
        /// The first blocks may wait for what is read or compiled once.
        const ENOUGH: u64 = 8;
        let blocks = self.progress.blocks().since(self.blocks_before);
        let (done, begun) = (blocks.done, blocks.begun);
        let seconds = now.saturating_duration_since(self.step_begun).as_secs_f64();
        let is_enough = self.has_steps() && done >= ENOUGH;
        is_enough.then(|| seconds * begun as f64 / done as f64)
    }

    /// How far step `number` has come, where it takes long enough to be read.
    fn step(&self, now: Instant, number: usize) -> String {
        let blocks = self.progress.blocks().since(self.blocks_before);
        let is_slow = now.saturating_duration_since(self.step_begun) >= SLOW_STEP;
        if !is_slow || blocks.begun == 0 {
            return String::new();
        }
        format!(", step {number}: {} of {} blocks", blocks.done, blocks.begun)
    }
}

/// What a person calls the work of a stage.
fn doing(stage: &str) -> &str {
    match stage {
        "open" => "opening the model",
        "encode" => "encoding the prompt",
        "encode prompts" => "encoding the prompts of all images",
        "encode image" => "encoding the image",
        "load" => "loading the model",
        "denoise" => "denoising",
        "refine" => "refining",
        "decode" => "decoding",
        "upscale" => "upscaling",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn encoding(done: u64, read: u64, expected: u64, seconds: u64) -> Option<Encoding> {
        let blocks = BlockCount { begun: 24, done };
        let (read, expected) = (Bytes(read * GIB), Bytes(expected * GIB));
        Encoding::of(blocks, read, expected, Duration::from_secs(seconds))
    }

    #[test]
    fn the_encoding_follows_its_own_pace() {
        // Nothing is known of the first blocks.
        assert_eq!(encoding(3, 2, 10, 20), None);
        assert_eq!(encoding(8, 0, 10, 20), None);
        let quarter = encoding(8, 2, 8, 30).unwrap();
        assert_eq!(quarter.left(), 90.0);
        // More than expected is read: it ends soon.
        assert_eq!(encoding(8, 9, 8, 30).unwrap().left(), 0.0);
    }

    #[test]
    fn an_encoding_that_is_faster_than_planned_says_that_the_device_is() {
        let quarter = encoding(8, 2, 8, 30).unwrap();
        assert_eq!(quarter.faster(1200.0), 0.1);
        // A disk may be why it is slower.
        assert_eq!(quarter.faster(60.0), 1.0);
        assert_eq!(quarter.faster(0.0), 1.0);
    }
}
