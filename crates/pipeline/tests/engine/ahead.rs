//! Prompts that are encoded ahead of the requests that need them.

use std::path::Path;

use sd_pipeline::{Bytes, Engine, Event, GuidanceScale, Interrupt, RefinerChoice, Request, UserDirs};

use crate::generated::{allocated, generate, generate_alone, request};
use crate::models;
use crate::reference::model;

const PROMPTS: [&str; 4] = [
    "a cat",
    "a (red:1.3) house by the sea, and a boat",
    "an old lighthouse on a cliff in a storm at night",
    // Again, which is encoded once.
    "a cat",
];

/// A request for each of `PROMPTS`, with a prompt cache in `folder`.
fn requests_of(path: &str, folder: &Path) -> Vec<Request> {
    let of = |(index, prompt): (usize, &&str)| Request {
        prompt: (*prompt).to_owned(),
        negative_prompt: Some("blurry".to_owned()),
        guidance_scale: Some(GuidanceScale(4.0)),
        user_dirs: UserDirs {
            state: None,
            cache: Some(folder.to_owned()),
        },
        ..request(model(path), index as u64)
    };
    PROMPTS.iter().enumerate().map(of).collect()
}

/// Bytes of weights that `engine` reads to encode the prompts of `requests` ahead, and how often it reads the encoders.
fn read_ahead(engine: &mut Engine, requests: &[Request]) -> (u64, usize) {
    let before = sd_weights::bytes_read();
    let mut passes = 0;
    let mut observer = |event: &Event<'_>| {
        passes += usize::from(matches!(
            event,
            Event::Stage {
                stage: "encode prompts",
                ..
            }
        ));
    };
    let requests: Vec<&Request> = requests.iter().collect();
    engine
        .encode_ahead(&requests, &mut observer, &Interrupt::default())
        .unwrap();
    (sd_weights::bytes_read() - before, passes)
}

pub(crate) fn the_encoders_are_read_once_for_all_prompts() {
    for path in models::ALL {
        for keeps in [false, true] {
            let cache = tempfile::tempdir().unwrap();
            let requests = requests_of(path, cache.path());
            let fresh = |index: usize| {
                let without = Request {
                    user_dirs: UserDirs::default(),
                    ..requests[index].clone()
                };
                generate_alone(&without)
            };
            // Of two prompts, with the same headers.
            let other_cache = tempfile::tempdir().unwrap();
            let two = &requests_of(path, other_cache.path())[1..3];
            let (of_two, _) = read_ahead(&mut Engine::new(), two);
            let of_one = fresh(2).read_in("encode");
            let mut engine = match keeps {
                true => Engine::new().keep_loaded(),
                false => Engine::new(),
            };
            let (read, passes) = read_ahead(&mut engine, &requests);
            assert_eq!(passes, 1, "{path}");
            // Tables of embeddings are read by rows. Encoders that are read again add all that one prompt reads.
            assert!(
                read < of_two + of_one * 3 / 4,
                "{path}: {read}, {of_two}, {of_one}"
            );
            for (index, request) in requests.iter().enumerate() {
                let generated = generate(&mut engine, request);
                assert_eq!(generated.read_in("encode"), 0, "{path}: {generated:?}");
                assert!(generated.images == fresh(index).images, "{path}: {index}");
            }
            // Nothing is left to be encoded.
            assert_eq!(read_ahead(&mut engine, &requests).1, 0, "{path}");
        }
    }
    // Without a folder they are kept in memory; a refiner has encoders of its own.
    let mut requests = requests_of("families/sdxl", Path::new(""));
    for request in &mut requests {
        request.user_dirs = UserDirs::default();
        request.refiner = Some(RefinerChoice {
            steps: 10,
            ..RefinerChoice::new(model("families/refiner"))
        });
    }
    let alone: Vec<_> = requests
        .iter()
        .map(|request| generate_alone(request).images)
        .collect();
    let mut engine = Engine::new().keep_loaded();
    let (_, passes) = read_ahead(&mut engine, &requests);
    assert_eq!(passes, 2);
    for (request, alone) in requests.iter().zip(&alone) {
        let generated = generate(&mut engine, request);
        assert_eq!(generated.read_in("encode"), 0, "{generated:?}");
        assert!(generated.images == *alone);
    }
}

pub(crate) fn a_small_budget_encodes_fewer_prompts_at_once() {
    let cache = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut requests = requests_of("models/tiny-large", cache.path());
    let model = models::with_large_transformer(folder.path());
    for request in &mut requests {
        request.model = model.clone();
    }
    let smallest = sd_pipeline::plan(&requests[2]).unwrap().smallest_budget;
    let before = allocated();
    for request in &mut requests {
        request.memory = Some(smallest);
    }
    let mut engine = Engine::new();
    let (_, passes) = read_ahead(&mut engine, &requests);
    assert!(passes >= 1, "the transformer needs more than all prompts");
    assert!(sd_weights::bytes_read() > 0 && Bytes(allocated()) < Bytes(before + (1 << 20)));
    for request in &requests {
        let generated = generate(&mut engine, request);
        assert_eq!(generated.read_in("encode"), 0, "{generated:?}");
        let alone = Request {
            user_dirs: UserDirs::default(),
            ..request.clone()
        };
        assert!(generated.images == generate_alone(&alone).images);
    }
    // Where nothing fits beside one prompt, the run encodes it.
    for request in &mut requests {
        request.memory = Some(Bytes(1 << 20));
        request.user_dirs = UserDirs::default();
    }
    assert_eq!(read_ahead(&mut engine, &requests).1, 0);
}
