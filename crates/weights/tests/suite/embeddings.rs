//! Files of textual inversion. `tools/reference/make_textual_inversion.py` writes them.

use std::path::PathBuf;

use sd_weights::{EmbeddingFile, Error, ModelPart, Result};

const ENCODER: ModelPart = ModelPart::TextEncoder;
const SECOND: ModelPart = ModelPart::TextEncoder2;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/embeddings")
        .join(name)
}

fn open(name: &str) -> Result<EmbeddingFile> {
    EmbeddingFile::open(&path(name))
}

#[test]
fn every_layout_gives_the_same_vectors() {
    let kohya = open("kohya.safetensors").unwrap();
    let vectors = kohya.read(ENCODER).unwrap();
    assert_eq!((kohya.word(), kohya.count(ENCODER), vectors.len()), (None, 2, 48));
    assert!(vectors.iter().any(|&value| value != 0.0));
    for name in ["half.safetensors", "webui.pt"] {
        let file = open(name).unwrap();
        assert_eq!((file.word(), file.count(ENCODER)), (None, 2), "{name}");
        assert_eq!(file.read(ENCODER).unwrap(), vectors, "{name}");
    }
    let [safe, torch] = ["learned_embeds.safetensors", "learned_embeds.bin"].map(|name| {
        let file = open(name).unwrap();
        assert_eq!(
            (file.word(), file.count(ENCODER)),
            (Some("<cat-toy>"), 1),
            "{name}"
        );
        file.read(ENCODER).unwrap()
    });
    assert_eq!(safe, torch);
    assert_eq!(safe.len(), 24);
    let both = open("xl.safetensors").unwrap();
    assert_eq!(both.read(ENCODER).unwrap(), vectors);
    assert_eq!(both.read(SECOND).unwrap().len(), 2 * 32);
}

#[test]
fn files_fit_models_with_their_encoders_and_widths() {
    let one = open("kohya.safetensors").unwrap();
    let both = open("xl.safetensors").unwrap();
    for (file, encoders, fits) in [
        (&one, vec![(ENCODER, 24)], true),
        // The refiner of Stable Diffusion XL has the second encoder alone.
        (&one, vec![(SECOND, 24)], true),
        (&one, vec![(ENCODER, 32)], false),
        (&one, vec![(ENCODER, 24), (SECOND, 24)], false),
        (&both, vec![(ENCODER, 24), (SECOND, 32)], true),
        (&both, vec![(ENCODER, 24)], true),
        (&both, vec![(SECOND, 32)], true),
        (&both, vec![(ENCODER, 24), (SECOND, 24)], false),
        (&both, vec![(ModelPart::TextEncoder3, 24)], false),
    ] {
        match file.check(&encoders) {
            Ok(()) => assert!(fits, "{encoders:?}"),
            Err(Error::EmbeddingDoesNotFit { .. }) => assert!(!fits, "{encoders:?}"),
            Err(error) => panic!("{error:?}"),
        }
    }
    let message = one.check(&[(ENCODER, 32)]).unwrap_err().to_string();
    assert!(
        message.contains("24 features") && message.contains("32 features"),
        "{message}"
    );
}

#[test]
fn other_files_are_refused_by_name() {
    let lora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lora/kohya.safetensors");
    let error = EmbeddingFile::open(&lora).unwrap_err();
    assert!(matches!(error, Error::NotEmbedding { .. }), "{error:?}");
    let error = open("two-words.safetensors").unwrap_err();
    assert!(
        matches!(error, Error::NotEmbedding { tensors: 2, .. }),
        "{error:?}"
    );
    for name in ["cube.safetensors", "too-many.safetensors"] {
        let error = open(name).unwrap_err();
        assert!(matches!(error, Error::BadEmbedding { .. }), "{name}: {error:?}");
    }
    let error = open("whole-numbers.safetensors").unwrap_err();
    assert!(matches!(error, Error::UnsupportedType { .. }), "{error:?}");
    let error = open("nan.safetensors").unwrap().read(ENCODER).unwrap_err();
    assert!(matches!(error, Error::BadEmbedding { .. }), "{error:?}");
    let error = open("missing.safetensors").unwrap_err();
    assert!(matches!(error, Error::MissingFile { .. }), "{error:?}");
}
