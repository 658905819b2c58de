//! Requests of small models, and measurements of their runs.

use std::fmt;

use sd_pipeline::{Bytes, DeviceChoice, Engine, Error, Event, ImageSize, Interrupt, ModelChoice, Request};

use crate::models;
use crate::reference::Pixels;

/// A request for one small image of `model`.
pub(crate) fn request(model: ModelChoice, seed: u64) -> Request {
    Request {
        seeds: seed.into(),
        steps: Some(3),
        size: Some(ImageSize::new(64, 64).unwrap().into()),
        device: DeviceChoice::Cpu,
        // A part that is left out must be an error.
        strict: true,
        ..Request::new("a photo of a cat", model)
    }
}

/// The measurements of a request.
#[derive(Default)]
pub(crate) struct Generated {
    pub(crate) images: Vec<Pixels>,
    /// Bytes of weights that each stage read, in order.
    read: Vec<(String, u64)>,
    /// The peak of allocated bytes.
    pub(crate) allocated_peak: u64,
    /// The allocated bytes after planning, before a weight was read.
    pub(crate) allocated_at_start: u64,
    pub(crate) predicted_peak: Bytes,
    pub(crate) budget: Bytes,
    pub(crate) resident_blocks: usize,
}

impl fmt::Debug for Generated {
    /// Without the images.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Generated")
            .field("read", &self.read)
            .field("allocated_peak", &self.allocated_peak)
            .field("predicted_peak", &self.predicted_peak)
            .finish_non_exhaustive()
    }
}

impl Generated {
    /// Bytes of weights that stages called `name` read together. There must be at least one.
    pub(crate) fn read_in(&self, name: &str) -> u64 {
        let mut stages = self.read.iter().filter(|(stage, _)| stage == name).peekable();
        assert!(stages.peek().is_some(), "no stage {name} in {:?}", self.read);
        stages.map(|(_, bytes)| bytes).sum()
    }
}

/// Runs `request` with `engine`.
pub(crate) fn try_to_generate(
    engine: &mut Engine,
    request: &Request,
    interrupt: &Interrupt,
    mut also: impl FnMut(&Event<'_>),
) -> (Result<(), Error>, Generated) {
    let folder = tempfile::tempdir().unwrap();
    let request = Request {
        output: folder.path().to_owned(),
        ..request.clone()
    };
    let mut generated = Generated::default();
    let mut observer = |event: &Event<'_>| {
        also(event);
        match event {
            Event::Planned { plan } => {
                generated.predicted_peak = plan.predicted_peak;
                generated.budget = plan.budget;
                generated.resident_blocks = plan.resident_blocks;
                generated.allocated_at_start = sd_weights::allocated_bytes();
            }
            Event::Measured { timeline } => {
                let stages = timeline.stages.iter();
                generated.read = stages
                    .clone()
                    .map(|stage| (stage.name.clone(), stage.weights_read.0))
                    .collect();
                generated.allocated_peak = stages.map(|stage| stage.allocated_peak.0).max().unwrap_or(0);
            }
            _ => {}
        }
    };
    let saved = engine.run(&request, &mut observer, interrupt);
    let outcome = saved.map(|saved| {
        generated.images = saved.iter().map(|saved| Pixels::read(&saved.image)).collect();
    });
    (outcome, generated)
}

/// Runs `request`, which must succeed, with `engine`.
pub(crate) fn generate(engine: &mut Engine, request: &Request) -> Generated {
    let (outcome, generated) = try_to_generate(engine, request, &Interrupt::default(), |_| {});
    outcome.unwrap_or_else(|error| panic!("{}: {error}", request.model.name));
    generated
}

/// Runs `request` with its own engine.
pub(crate) fn generate_alone(request: &Request) -> Generated {
    generate(&mut Engine::new(), request)
}

/// Runs a request for every model, each with a fresh engine.
pub(crate) fn warm_up() {
    for path in models::ALL {
        let request = request(crate::reference::model(path), 0);
        generate_alone(&request);
        generate_alone(&Request {
            size: Some(ImageSize::new(128, 64).unwrap().into()),
            ..request
        });
    }
}

/// The allocated bytes.
pub(crate) fn allocated() -> u64 {
    sd_pipeline::memory::cleanup_memory(true);
    sd_weights::allocated_bytes()
}
