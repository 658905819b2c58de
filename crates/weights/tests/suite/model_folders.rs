//! Model folders: PyTorch files, variants, files that are not weights, and the folder as a model source.

use std::fs;
use std::path::Path;

use candle_core::Device;
use sd_weights::{
    Checkpoint, Error, MODEL_INDEX, ModelFolder, ModelSource, Residency, SourcePart, Vocabulary,
    WeightOptions, WeightType, Weights,
};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 3438354725\n";
const PAGE: &str = "<!doctype html>\n<html lang=\"en\"><title>Sign in</title></html>\n";

/// A folder with the files of one network.
fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, ModelFolder) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("network")).unwrap();
    for (name, bytes) in files {
        fs::write(directory.path().join("network").join(name), bytes).unwrap();
    }
    let folder = ModelFolder::on_disk(directory.path());
    (directory, folder)
}

fn torch(name: &str) -> Vec<u8> {
    fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/torch")
            .join(name),
    )
    .unwrap()
}

/// The values of a tensor of every checkpoint of the fixtures.
fn table(checkpoint: Checkpoint) -> Vec<f32> {
    let options = WeightOptions::new(Device::Cpu, WeightType::F32, Residency::Resident);
    let tensor = Weights::new(checkpoint, options)
        .tensor("table", &[6, 5])
        .unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn weights_that_pytorch_wrote_are_read_where_there_are_no_others() {
    let (state, expected) = (torch("state.pth"), torch("expected.safetensors"));
    let (_directory, plain) = folder(&[("model.safetensors", &expected)]);
    let expected = table(plain.checkpoint("network").unwrap());
    for name in [
        "diffusion_pytorch_model.bin",
        "pytorch_model.bin",
        "pytorch_model.fp16.bin",
    ] {
        let (_directory, folder) = folder(&[(name, &state)]);
        assert_eq!(table(folder.checkpoint("network").unwrap()), expected, "{name}");
        let identity = folder.weights_identity("network").unwrap();
        assert_eq!(identity.len(), 1);
        // It is known by what its pickle says, not by every weight.
        assert!(identity[0].modified.is_some());
    }
    let shard = "pytorch_model-00001-of-00001.bin";
    let index = serde_json::json!({ "weight_map": { "table": shard } }).to_string();
    let (_directory, sharded) = folder(&[
        ("pytorch_model.bin.index.json", index.as_bytes()),
        (shard, &state),
    ]);
    let checkpoint = sharded.checkpoint("network").unwrap();
    assert_eq!(checkpoint.tensors().count(), 1);
    assert_eq!(table(checkpoint), expected);
    assert_eq!(sharded.weights_identity("network").unwrap().len(), 2);
}

#[test]
fn of_several_variants_the_documented_one_is_taken() {
    let expected = torch("expected.safetensors");
    // From the best to the last; what is not to be taken is no file of weights.
    let order = [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.bf16.safetensors",
        "diffusion_pytorch_model.fp32.safetensors",
        "diffusion_pytorch_model.own-name.safetensors",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.non_ema.safetensors",
    ];
    for first in 0..order.len() {
        let files: Vec<(&str, &[u8])> = order[first..]
            .iter()
            .enumerate()
            .map(|(place, name)| (*name, if place == 0 { &expected[..] } else { b"other" }))
            .collect();
        let (_directory, folder) = folder(&files);
        let checkpoint = folder.checkpoint("network").unwrap();
        assert!(
            checkpoint.place().ends_with(order[first]),
            "{}",
            checkpoint.place().display()
        );
    }
}

#[test]
fn the_error_of_a_folder_without_weights_lists_its_files() {
    let (_directory, folder) = folder(&[
        ("model.onnx", b""),
        ("flax_model.msgpack", b""),
        ("README.md", b""),
    ]);
    let error = folder.checkpoint("network").unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::MissingWeights { .. }), "{error:?}");
    for part in [
        "diffusion_pytorch_model.safetensors",
        "pytorch_model.bin",
        "; there is flax_model.msgpack, model.onnx)",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn pointers_and_web_pages_are_named_for_what_they_are() {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let (_directory, pointer) = folder(&[(name, POINTER.as_bytes())]);
        let error = pointer.checkpoint("network").unwrap_err();
        assert!(
            matches!(
                error,
                Error::GitLfsPointer {
                    bytes: Some(3_438_354_725),
                    ..
                }
            ),
            "{error:?}"
        );
        let (_directory, page) = folder(&[(name, PAGE.as_bytes())]);
        assert!(matches!(
            page.checkpoint("network").unwrap_err(),
            Error::WebPage { .. }
        ));
    }
    let (_directory, texts) = folder(&[
        ("config.json", POINTER.as_bytes()),
        ("merges.txt", PAGE.as_bytes()),
    ]);
    let json = texts
        .json::<serde_json::Value>("network/config.json")
        .unwrap_err();
    assert!(matches!(json, Error::GitLfsPointer { .. }), "{json:?}");
    assert!(matches!(
        texts.bytes("network/merges.txt"),
        Err(Error::WebPage { .. })
    ));
}

#[test]
fn a_quantised_network_is_refused_by_the_methods_name() {
    let weights = torch("expected.safetensors");
    for (settings, method) in [
        (
            r#"{"quant_method": "quanto", "weights_dtype": "int4"}"#,
            "quanto (int4)",
        ),
        (r#"{"quant_method": "torchao"}"#, "torchao"),
        (r#"{"bits": 8}"#, "a method without a name"),
    ] {
        let config = format!(r#"{{"quantization_config": {settings}}}"#);
        let files: [(&str, &[u8]); 2] = [
            ("config.json", config.as_bytes()),
            ("model.safetensors", &weights),
        ];
        let (_directory, quantised) = folder(&files);
        let error = quantised.checkpoint("network").unwrap_err();
        assert!(
            matches!(&error, Error::Quantized { method: found, .. } if found == method),
            "{error:?}"
        );
    }
    let files: [(&str, &[u8]); 2] = [
        ("config.json", br#"{"quantization_config": null}"#),
        ("model.safetensors", &weights),
    ];
    let (_directory, plain) = folder(&files);
    assert!(plain.checkpoint("network").is_ok());
}

#[test]
fn a_folder_is_a_model_source() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("model_index.json", "{}");
    write("vae/config.json", "[1]");
    write("scheduler/scheduler_config.json", "[2]");
    write("tokenizer/vocab.json", "{}");
    write("tokenizer/merges.txt", "a b");
    write("tokenizer_3/tokenizer.json", "{}");
    write("tokenizer_3/tokenizer_config.json", "[3]");
    let source: &dyn ModelSource = &ModelFolder::on_disk(directory.path());
    assert!(source.exists() && source.has_config(MODEL_INDEX) && !source.has_config("unet"));
    for (component, expected) in [("vae", [1]), ("scheduler", [2])] {
        let config: [u32; 1] = source.config(component).unwrap().json().unwrap();
        assert_eq!(config, expected);
    }
    assert!(matches!(source.config("unet"), Err(Error::MissingFile { .. })));
    let clip = source.tokenizer("tokenizer").unwrap();
    assert!(clip.config.is_none());
    assert!(matches!(clip.vocabulary, Vocabulary::BytePairs { merges, .. } if merges.bytes == b"a b"));
    let t5 = source.tokenizer("tokenizer_3").unwrap();
    assert!(t5.config.is_some() && matches!(t5.vocabulary, Vocabulary::Tokenizer(_)));
    assert!(source.tokenizer("tokenizer_2").is_err());
    assert_eq!(source.vocabulary_bytes("tokenizer"), 2 + 3);
    assert_eq!(source.vocabulary_bytes("tokenizer_2"), 0);
    let paths = |part| -> Vec<String> {
        let files = source.identity(part).unwrap().into_iter();
        files.map(|file| file.path).collect()
    };
    let absolute = |path: &str| directory.path().join(path).to_string_lossy().into_owned();
    assert_eq!(
        paths(SourcePart::Tokenizer("tokenizer")),
        ["tokenizer/vocab.json", "tokenizer/merges.txt"].map(absolute)
    );
    assert_eq!(
        paths(SourcePart::Config("scheduler")),
        [absolute("scheduler/scheduler_config.json")]
    );
    assert!(paths(SourcePart::Config("unet")).is_empty());
    assert!(source.identity(SourcePart::Weights("vae")).is_err());
}
