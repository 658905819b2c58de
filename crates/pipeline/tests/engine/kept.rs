//! The cache for the next request: it is used, and changes neither images nor predictions.

use std::fs::File;
use std::time::SystemTime;

use sd_pipeline::scheduler::SamplerChoice;
use sd_pipeline::{Bytes, ControlChoice, ControlKind, Engine, ImageSize, LoraChoice, RefinerChoice, Request};

use crate::generated::{Generated, generate, generate_alone, request};
use crate::models;
use crate::reference::{fixtures, model};

/// Predictions of small runs may be too high by this.
const SMALL: u64 = 24 << 20;

/// Asserts that the results of `request` equal those of a fresh engine, without reading a block again.
fn must_be_as_fresh_without_reading_a_block(generated: &Generated, request: &Request) {
    must_be_as_alone(generated, request);
    let fresh = generate(&mut Engine::new().keep_loaded(), request);
    assert!(generated.images == fresh.images);
    assert!(fresh.read_in("denoise") > 0);
    assert_eq!(generated.read_in("denoise"), 0, "{generated:?}");
    // Headers are read each time.
    let refiner = request.refiner.iter().map(|refiner| &refiner.model);
    let decoders = refiner.chain([&request.model]).map(models::decoder_bytes);
    assert_eq!(
        fresh.read_in("decode") - generated.read_in("decode"),
        decoders.sum::<u64>(),
        "{generated:?}, {fresh:?}"
    );
}

fn must_be_as_alone(generated: &Generated, request: &Request) {
    assert!(
        generated.images == generate_alone(request).images,
        "what was kept changed a pixel of {}",
        request.model.name
    );
}

pub(crate) fn a_second_request_reads_no_resident_block_again() {
    for path in models::ALL {
        let mut engine = Engine::new().keep_loaded();
        let first = generate(&mut engine, &request(model(path), 1));
        for stage in ["encode", "denoise", "decode"] {
            assert!(first.read_in(stage) > 0, "{path}: {stage}: {first:?}");
        }
        assert!(engine.loaded_bytes() > Bytes(0));
        let again = request(model(path), 2);
        let second = generate(&mut engine, &again);
        must_be_as_fresh_without_reading_a_block(&second, &again);
        // The same prompt is not encoded again.
        assert_eq!(second.read_in("encode"), 0, "{path}: {second:?}");
        assert!(second.images != first.images);
        // An engine without a cache reads everything for every request.
        let mut forgetful = Engine::new();
        for _ in 0..2 {
            let generated = generate(&mut forgetful, &again);
            assert_eq!(generated.read_in("denoise"), first.read_in("denoise"), "{path}");
            assert_eq!(forgetful.loaded_bytes(), Bytes(0));
        }
    }
}

/// `request` with prompts of its own.
fn with_other_prompts(request: Request, number: u64) -> Request {
    Request {
        prompt: format!("a photo of cat {number}"),
        negative_prompt: Some(format!("a dog {number}")),
        ..request
    }
}

pub(crate) fn a_second_request_with_another_prompt_reads_no_text_encoder_again() {
    for path in models::ALL {
        let mut engine = Engine::new().keep_loaded();
        let first = generate(&mut engine, &with_other_prompts(request(model(path), 1), 1));
        for number in 2..4 {
            let other = with_other_prompts(request(model(path), 1), number);
            let generated = generate(&mut engine, &other);
            // Rows of the tables are read each time.
            assert_eq!(
                first.read_in("encode") - generated.read_in("encode"),
                models::encoder_bytes(&other.model),
                "{path}: {first:?}, {generated:?}"
            );
            assert_eq!(generated.read_in("denoise"), 0, "{path}: {generated:?}");
            must_be_as_alone(&generated, &other);
        }
        // Of a prompt that the request before had, not even rows.
        let same_negative = Request {
            // As many tokens as the one before.
            prompt: "a photo of cat 7".to_owned(),
            ..with_other_prompts(request(model(path), 1), 3)
        };
        let both = generate(&mut engine, &with_other_prompts(request(model(path), 1), 3));
        let one = generate(&mut engine, &same_negative);
        assert_eq!(both.read_in("encode"), 0, "{path}: {both:?}");
        assert!(one.read_in("encode") > 0, "{path}: {one:?}");
        assert!(
            one.read_in("encode") < first.read_in("encode") - models::encoder_bytes(&same_negative.model),
            "{path}: {first:?}, {one:?}"
        );
        must_be_as_alone(&one, &same_negative);
    }
}

pub(crate) fn text_encoders_stay_only_where_everything_fits() {
    let folder = tempfile::tempdir().unwrap();
    let model = models::with_large_transformer(&folder.path().join("model"));
    let encoders = models::encoder_bytes(&model);
    let plan = sd_pipeline::plan(&request(model.clone(), 1)).unwrap();
    let (whole, smallest) = (plan.predicted_peak.0, plan.smallest_budget.0);
    // How much less the last request reads than the first.
    let mut saved = Vec::new();
    for budget in [smallest, whole, whole + encoders / 2, whole + (64 << 20)] {
        let mut engine = Engine::new().keep_loaded();
        let mut reads = Vec::new();
        for number in 1..4 {
            let of_budget = Request {
                memory: Some(Bytes(budget)),
                ..with_other_prompts(request(model.clone(), 1), number)
            };
            let generated = generate(&mut engine, &of_budget);
            must_be_as_alone(&generated, &of_budget);
            assert!(generated.predicted_peak <= generated.budget, "{generated:?}");
            assert!(
                generated.allocated_peak <= generated.predicted_peak.0,
                "{budget}: {generated:?}"
            );
            assert!(engine.loaded_bytes().0 <= budget);
            reads.push(generated.read_in("encode"));
        }
        saved.push(reads[0] - reads[2]);
    }
    // Where there is room for the networks alone, they stay rather than the encoders.
    assert_eq!(saved, [0, 0, 0, encoders]);
}

pub(crate) fn other_settings_of_the_same_model_use_its_blocks() {
    for path in models::ALL {
        let mut engine = Engine::new().keep_loaded();
        generate(&mut engine, &request(model(path), 1));
        let sampler: Option<SamplerChoice> = (!path.contains("large")).then(|| "dpm++2m".parse().unwrap());
        let other = Request {
            prompt: "a red circle".to_owned(),
            size: Some(ImageSize::new(96, 64).unwrap().into()),
            sampler: sampler.map(|choice| choice.sampler),
            steps: Some(2),
            images: 2,
            ..request(model(path), 3)
        };
        let generated = generate(&mut engine, &other);
        must_be_as_fresh_without_reading_a_block(&generated, &other);
        assert!(generated.read_in("encode") > 0);
    }
    // A LoRA file changes the weights, and so does another scale.
    let mut engine = Engine::new().keep_loaded();
    let with_lora = |scale: f64| Request {
        loras: vec![LoraChoice {
            name: "kohya".to_owned(),
            file: fixtures().join("conditioned/loras/kohya.safetensors"),
            scale,
            text_scale: scale,
        }],
        ..request(model("families/sd15"), 1)
    };
    let plain = request(model("families/sd15"), 1);
    for (request, reads) in [
        (&plain, true),
        (&with_lora(0.8), true),
        (&with_lora(0.8), false),
        (&with_lora(0.5), true),
        (&plain, true),
        (&plain, false),
    ] {
        let generated = generate(&mut engine, request);
        assert_eq!(generated.read_in("denoise") > 0, reads, "{:?}", request.loras);
        must_be_as_alone(&generated, request);
    }
}

pub(crate) fn blocks_of_a_refiner_and_of_controlnets_are_kept() {
    let refined = |seed: u64| Request {
        refiner: Some(RefinerChoice {
            steps: 10,
            ..RefinerChoice::new(model("families/refiner"))
        }),
        images: 2,
        ..request(model("families/sdxl"), seed)
    };
    let mut engine = Engine::new().keep_loaded();
    let first = generate(&mut engine, &refined(1));
    assert!(first.read_in("denoise") > 0 && first.read_in("refine") > 0);
    let second = generate(&mut engine, &refined(2));
    must_be_as_fresh_without_reading_a_block(&second, &refined(2));
    assert_eq!(second.read_in("refine"), 0, "{second:?}");

    let controlled = |seed: u64| Request {
        controls: vec![ControlChoice {
            name: "control".to_owned(),
            folder: fixtures().join("families/control-1"),
            kind: ControlKind::Pose,
            image: fixtures().join("families/init.png"),
            scale: 0.7,
        }],
        ..request(model("families/sd15"), seed)
    };
    let mut engine = Engine::new().keep_loaded();
    generate(&mut engine, &request(model("families/sd15"), 1));
    // Only the ControlNet's blocks are new.
    let first = generate(&mut engine, &controlled(1));
    assert!(first.read_in("denoise") > 0);
    assert!(first.read_in("denoise") < generate_alone(&controlled(1)).read_in("denoise"));
    let second = generate(&mut engine, &controlled(2));
    must_be_as_fresh_without_reading_a_block(&second, &controlled(2));
}

pub(crate) fn no_budget_is_exceeded_and_no_image_changed_by_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let model = models::with_large_transformer(&folder.path().join("model"));
    let within = |memory: Option<Bytes>, images: usize| Request {
        memory,
        images,
        size: Some(ImageSize::new(128, 128).unwrap().into()),
        ..request(model.clone(), 5)
    };
    let plan = sd_pipeline::plan(&within(None, 1)).unwrap();
    let whole = plan.predicted_peak;
    let smallest = sd_pipeline::plan(&within(None, 2)).unwrap().smallest_budget;
    assert!(whole.0 > smallest.0 + (30 << 20), "{plan}");
    let middle = Bytes(smallest.0.midpoint(whole.0));
    let expected = generate_alone(&within(None, 2)).images;
    let mut engine = Engine::new().keep_loaded();
    for (memory, images) in [
        (None, 1),
        (None, 2),
        (Some(middle), 1),
        (Some(middle), 1),
        (Some(smallest), 2),
        (Some(whole), 1),
        (Some(Bytes(whole.0 + (8 << 20))), 2),
        (None, 1),
    ] {
        let generated = generate(&mut engine, &within(memory, images));
        assert!(
            generated.images[..] == expected[..images],
            "{memory:?} of {images} changed a pixel"
        );
        eprintln!(
            "within {}: {} blocks stay, {} predicted, {} allocated, {} kept",
            generated.budget,
            generated.resident_blocks,
            generated.predicted_peak,
            Bytes(generated.allocated_peak),
            engine.loaded_bytes()
        );
        assert!(generated.predicted_peak <= generated.budget);
        let predicted = generated.predicted_peak.0;
        assert!(generated.allocated_peak <= predicted, "{generated:?}");
        // The prediction includes the program itself, which the allocator does not count.
        assert!(
            predicted <= generated.allocated_peak + (34 << 20) + SMALL,
            "{generated:?}"
        );
    }
}

pub(crate) fn a_changed_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = models::copy_of("families/sd15", &folder.path().join("model"));
    let decoder = models::decoder_bytes(&model);
    let again = request(model, 1);
    let mut engine = Engine::new().keep_loaded();
    let first = generate(&mut engine, &again);
    let touch = |path: &str| {
        let file = File::options()
            .append(true)
            .open(folder.path().join("model").join(path));
        file.unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    };
    for (file, stage) in [
        ("unet/diffusion_pytorch_model.safetensors", "denoise"),
        ("vae/diffusion_pytorch_model.safetensors", "decode"),
        ("text_encoder/model.safetensors", "encode"),
    ] {
        touch(file);
        let generated = generate(&mut engine, &again);
        assert!(generated.images == first.images);
        for (of, blocks) in [
            ("denoise", first.read_in("denoise")),
            ("decode", decoder),
            ("encode", first.read_in("encode")),
        ] {
            let read_before = first.read_in(of);
            let expected = if of == stage {
                read_before
            } else {
                read_before - blocks
            };
            assert_eq!(generated.read_in(of), expected, "{of} with another {file}");
        }
    }
}
