//! The release of an engine's cache; nothing is left behind.

use std::fs;

use sd_pipeline::scheduler::SamplerChoice;
use sd_pipeline::{Bytes, Engine, Error, Event, ImageSize, Interrupt, Request};

use crate::generated::{allocated, generate, generate_alone, request, try_to_generate};
use crate::models;
use crate::reference::{model, model_in};

/// The tolerance of allocated bytes: less than a block, and than the smallest autoencoder.
const SLACK: u64 = 8 << 10;
/// The same of moments between which many threads ended, whose places in the queues of the thread pool are freed later:
/// a small part of the smallest model.
const QUEUES: u64 = 48 << 10;

/// Asserts that the allocated bytes `now` do not exceed those of `before`.
fn must_not_grow(before: u64, now: u64, what: &str) {
    assert!(now <= before + SLACK, "{what}: {before} bytes, and {now} later");
}

/// Releases what `engine` keeps, and holds what is left to what was allocated `before` its first request.
fn must_release(mut engine: Engine, before: u64) {
    assert!(engine.loaded_bytes().0 > 2 * QUEUES);
    engine.release();
    assert_eq!(engine.loaded_bytes(), Bytes(0));
    let now = allocated();
    assert!(
        now <= before + QUEUES,
        "{before} bytes, and {now} after the release"
    );
}

pub(crate) fn another_model_s_request_gives_everything_back_first() {
    for (one, other) in [
        (models::ALL[0], models::ALL[1]),
        (models::ALL[1], models::ALL[2]),
        (models::ALL[2], models::ALL[0]),
    ] {
        let first_bytes = allocated();
        let alone = generate_alone(&request(model(other), 1)).allocated_at_start - first_bytes;
        let mut engine = Engine::new().keep_loaded();
        generate(&mut engine, &request(model(one), 1));
        assert!(engine.loaded_bytes().0 > 2 * SLACK, "{one}");
        let generated = generate(&mut engine, &request(model(other), 1));
        let after = generated.allocated_at_start - first_bytes;
        must_not_grow(alone, after, &format!("{other} after {one}"));
        assert!(generated.read_in("denoise") > 0);
    }
}

pub(crate) fn nothing_grows_from_request_to_request() {
    const ROUNDS: u64 = 3;
    let kinds = [
        (0, (64, 64), Some("ddim")),
        (0, (96, 64), Some("euler-a")),
        (1, (64, 64), None),
        (2, (64, 96), None),
    ];
    let request_of = |kind: usize, round: u64| {
        let (index, (width, height), sampler) = kinds[kind];
        let sampler: Option<SamplerChoice> = sampler.map(|name: &str| name.parse().unwrap());
        Request {
            size: Some(ImageSize::new(width, height).unwrap().into()),
            sampler: sampler.map(|choice| choice.sampler),
            prompt: format!("a photo of cat {round}"),
            ..request(model(models::ALL[index]), round)
        }
    };
    for kind in 0..kinds.len() {
        generate_alone(&request_of(kind, 0));
    }
    let baseline = allocated();
    let mut engine = Engine::new().keep_loaded();
    let mut left = vec![Vec::new(); kinds.len()];
    for round in 0..ROUNDS {
        for (kind, left) in left.iter_mut().enumerate() {
            generate(&mut engine, &request_of(kind, round));
            left.push(allocated());
        }
    }
    eprintln!("{baseline} bytes before, and after each request {left:?}");
    for left in &left {
        for &now in left {
            must_not_grow(left[0], now, "the same kind of request");
        }
    }
    must_release(engine, baseline);
}

pub(crate) fn ten_prompts_leave_what_the_first_has_left() {
    for path in models::ALL {
        let of_prompt = |number: u64| Request {
            prompt: format!("a photo of cat {number}"),
            ..request(model(path), 1)
        };
        generate_alone(&of_prompt(0));
        let baseline = allocated();
        let mut engine = Engine::new().keep_loaded();
        generate(&mut engine, &of_prompt(0));
        let (loaded, first) = (engine.loaded_bytes(), allocated());
        for number in 1..10 {
            generate(&mut engine, &of_prompt(number));
            assert_eq!(engine.loaded_bytes(), loaded, "{path}");
            must_not_grow(first, allocated(), "another prompt");
        }
        must_release(engine, baseline);
    }
}

pub(crate) fn an_interrupted_request_leaves_the_engine_usable() {
    for path in models::ALL {
        let request = request(model(path), 1);
        let expected = generate_alone(&request).images;
        let baseline = allocated();
        let mut engine = Engine::new().keep_loaded();
        generate(&mut engine, &request);
        let complete = allocated();
        let mut left = Vec::new();
        for _ in 0..3 {
            let interrupt = Interrupt::default();
            let (outcome, _) = try_to_generate(&mut engine, &request, &interrupt, |event| {
                if matches!(event, Event::Step { step: 2, .. }) {
                    interrupt.raise();
                }
            });
            assert!(matches!(outcome, Err(Error::Interrupted)), "{outcome:?}");
            left.push(allocated());
        }
        // The next request uses what it had loaded.
        let next = generate(&mut engine, &request);
        assert_eq!(next.read_in("denoise"), 0);
        assert!(next.images == expected, "{path}");
        eprintln!(
            "{path}: {baseline} bytes before, {complete} after a request, {left:?} after interrupted ones"
        );
        for left in left {
            must_not_grow(complete, left, "after an interrupted request");
        }
        must_release(engine, baseline);
    }
}

pub(crate) fn a_failed_request_leaves_the_engine_usable() {
    for path in models::ALL {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        let good = request(model(path), 1);
        let bad = request(models::copy_of(path, &place), 1);
        let weights = place.join("vae/diffusion_pytorch_model.safetensors");
        let mut bytes = fs::read(&weights).unwrap();
        let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[data..].fill(0xff);
        fs::write(&weights, bytes).unwrap();
        let expected = generate_alone(&good).images;

        let baseline = allocated();
        let mut engine = Engine::new().keep_loaded();
        for _ in 0..3 {
            let (outcome, _) = try_to_generate(&mut engine, &bad, &Interrupt::default(), |_| {});
            assert!(matches!(outcome, Err(Error::NotFinite { .. })), "{outcome:?}");
            assert_eq!(engine.loaded_bytes(), Bytes(0));
            must_not_grow(baseline, allocated(), "after a failed request");
        }
        assert!(generate(&mut engine, &good).images == expected, "{path}");
        // A request that fails at once takes nothing from the loaded model.
        let missing = request(model_in(&folder.path().join("missing"), "missing"), 1);
        let (outcome, _) = try_to_generate(&mut engine, &missing, &Interrupt::default(), |_| {});
        assert!(outcome.is_err());
        let next = generate(&mut engine, &good);
        assert_eq!(next.read_in("denoise"), 0);
        assert!(next.images == expected, "{path}");
    }
}
