//! Textual inversion in whole runs: a word that stands for the token embeddings of other words gives their image.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use sd_pipeline::tokenizer::Tokenizer;
use sd_pipeline::{
    DeviceChoice, EmbeddingChoice, Engine, Error, Event, GuidanceScale, ImageSize, Interrupt, ModelFolder,
    Request, TypeChoice, UserDirs,
};
use sd_weights::{Residency, WeightOptions, WeightType, Weights};

use crate::reference::{Pixels, fixtures, model};

/// The words that the vectors are those of.
const WORDS: &str = "red cat";

fn request(name: &str, prompt: &str, folder: &Path) -> Request {
    Request {
        negative_prompt: Some("blurry".to_owned()),
        steps: Some(2),
        size: Some(ImageSize::new(64, 64).unwrap().into()),
        guidance_scale: Some(GuidanceScale(4.0)),
        output: folder.join("outputs"),
        device: DeviceChoice::Cpu,
        weight_type: TypeChoice::F32,
        strict: true,
        user_dirs: UserDirs {
            state: None,
            cache: Some(folder.join("cache")),
        },
        ..Request::new(prompt, model(&format!("families/{name}")))
    }
}

/// The image of `request`, and what was left out.
fn generate(request: &Request) -> Result<(Pixels, Vec<String>), Error> {
    let mut failed = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::LeftOut { what, .. } = event {
            failed.push((*what).to_string());
        }
    };
    let saved = Engine::new().run(request, &mut observer, &Interrupt::default())?;
    Ok((Pixels::read(&saved[0].image), failed))
}

fn image(request: &Request) -> Pixels {
    let (image, failed) = generate(request).unwrap();
    assert_eq!(failed, [""; 0]);
    image
}

/// The token embeddings of `words` in a text encoder of the model `name`: `[tokens, features]`.
fn vectors(name: &str, encoder: &str, tokenizer: &str, words: &str) -> Tensor {
    let folder = ModelFolder::on_disk(fixtures().join("families").join(name));
    let ids = Tokenizer::open(&folder, tokenizer).unwrap().words(words).unwrap();
    assert!(ids.len() > 1, "{ids:?}");
    let weights = Weights::new(
        folder.checkpoint(encoder).unwrap(),
        WeightOptions::new(Device::Cpu, WeightType::F32, Residency::Streamed),
    );
    let table = "text_model.embeddings.token_embedding.weight";
    let table = if weights.contains(table) {
        table
    } else {
        &table["text_model.".len()..]
    };
    let shape = weights.shape(table).unwrap().to_vec();
    let rows: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
    weights.table(table, &shape).unwrap().rows(&rows).unwrap()
}

fn write(path: &Path, tensors: &[(&str, Tensor)]) -> EmbeddingChoice {
    let tensors: HashMap<_, _> = tensors.iter().cloned().collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
    EmbeddingChoice::of_file(path.to_owned())
}

#[test]
fn a_word_gives_the_image_of_its_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let first = |name: &str| vectors(name, "text_encoder", "tokenizer", WORDS);
    let second = vectors("sdxl", "text_encoder_2", "tokenizer_2", WORDS);
    for (name, embedding) in [
        (
            "sd15",
            write(&file("Zorb-1.safetensors"), &[("emb_params", first("sd15"))]),
        ),
        (
            "sdxl",
            write(
                &file("zorb-1.safetensors"),
                &[("clip_l", first("sdxl")), ("clip_g", second)],
            ),
        ),
    ] {
        let with = |prompt: &str, embeddings: &[&EmbeddingChoice]| {
            image(&Request {
                embeddings: embeddings.iter().map(|&embedding| embedding.clone()).collect(),
                ..request(name, prompt, folder.path())
            })
        };
        let expected = with("a photo of red cat, (red cat:1.3) art", &[]);
        let prompt = "a photo of zorb-1, (ZORB-1:1.3) art";
        assert!(with(prompt, &[&embedding]) == expected, "{name}");
        assert!(with(prompt, &[]) != expected, "{name}");
        // A word that the prompts have not changes nothing.
        assert!(
            with("a photo of red cat, (red cat:1.3) art", &[&embedding]) == expected,
            "{name}"
        );
    }
}

#[test]
fn the_word_of_the_file_counts_too_and_a_changed_file_changes_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("learned_embeds.safetensors");
    let of = |words: &str| vectors("sd15", "text_encoder", "tokenizer", words);
    let run = |prompt: &str, embedding: Option<&EmbeddingChoice>| {
        image(&Request {
            embeddings: embedding.cloned().into_iter().collect(),
            ..request("sd15", prompt, folder.path())
        })
    };
    for words in ["red cat", "old house"] {
        let embedding = write(&path, &[("<toy>", of(words))]);
        let expected = run(&format!("the {words}"), None);
        assert!(run("the <toy>", Some(&embedding)) == expected, "{words}");
        assert!(run("the learned_embeds", Some(&embedding)) == expected, "{words}");
    }
}

#[test]
fn an_embedding_of_another_model_is_left_out_and_with_strict_refused() {
    let folder = tempfile::tempdir().unwrap();
    let narrow = vectors("sdxl", "text_encoder", "tokenizer", WORDS);
    let embedding = write(&folder.path().join("zorb.safetensors"), &[("emb_params", narrow)]);
    let with = |strict, embeddings: Vec<EmbeddingChoice>| Request {
        strict,
        embeddings,
        ..request("sd15", "a zorb", folder.path())
    };
    let plain = image(&with(true, Vec::new()));
    let (found, failed) = generate(&with(false, vec![embedding.clone()])).unwrap();
    assert!(found == plain);
    assert_eq!(failed, ["the embedding `zorb`"]);
    let message = generate(&with(true, vec![embedding])).unwrap_err();
    let message = std::iter::successors(Some(&message as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    assert!(
        message.contains("12 features") && message.contains("16 features"),
        "{message}"
    );
    // One that is not there is an error in any case.
    let missing = EmbeddingChoice::of_file(PathBuf::from("/nowhere/zorb.pt"));
    let error = generate(&with(false, vec![missing])).unwrap_err();
    assert!(matches!(error, Error::NoEmbedding { .. }), "{error:?}");
}
