//! The smallest family: a proof that one file and one registry line are enough. It has no CLIP and no T5, and
//! its denoising network is a single value.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use sd_models::vae::{self, Scaling};
use sd_models::{Conditioned, Footprint, Load, WeightBytes, Work};
use sd_weights::{EmbeddingFile, ModelFiles, ModelSource, WeightOptions, Weights};

use super::contract::{
    Defaults, EncoderStage, EncoderWeights, Family, LatentLayout, Task, TextComponent, TextEncoders,
};
use super::{ConditioningInputs, ControlModel, ControlWeights, Denoiser, DenoiserInput, EncodedPrompt};
use crate::components::{Components, ModelIndex};
use crate::scheduler::SchedulerConfig;
use crate::tokenizer::Tokenizers;
use crate::{
    Bytes, DeviceChoice, Error, Event, ImageSize, Interrupt, ModelChoice, Recommended, Request, Result,
};

const CLASS: &str = "ToyTransformer";
const WEIGHT: &str = "gain";
/// The channels of the autoencoder, which it takes from another model.
const CHANNELS: usize = 16;

#[derive(Debug)]
struct Toy {
    text: MeanOfBytes,
}

/// The text encoder: a prompt becomes one token, the mean of its bytes.
#[derive(Debug)]
struct MeanOfBytes;

#[derive(Debug)]
struct ToyDenoiser {
    weights: Weights,
    /// One value for each prompt.
    context: Option<Tensor>,
}

pub(super) fn recognise(
    source: &dyn ModelSource,
    _index: &ModelIndex,
    _tokenizers: &Tokenizers,
) -> Result<Option<Box<dyn Family>>> {
    if !source.has_config("transformer") {
        return Ok(None);
    }
    let config: serde_json::Value = source.config("transformer")?.json()?;
    Ok((config["_class_name"] == CLASS).then(|| Box::new(Toy { text: MeanOfBytes }) as Box<dyn Family>))
}

impl Family for Toy {
    fn title(&self) -> &'static str {
        "Toy"
    }

    fn pipeline_type(&self) -> &'static str {
        "toy"
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            steps: 4,
            guidance_scale: 2.0,
            side: 64,
        }
    }

    fn trained_size(&self, _is_latent_consistency: bool) -> Option<(usize, usize)> {
        None
    }

    fn text_encoders(&self) -> &dyn TextEncoders {
        &self.text
    }

    fn text_encoders_mut(&mut self) -> &mut dyn TextEncoders {
        &mut self.text
    }

    fn component(&self) -> &'static str {
        "transformer"
    }

    fn latents(&self) -> LatentLayout {
        LatentLayout {
            in_channels: CHANNELS,
            out_channels: CHANNELS,
            patch_size: 1,
            longest_side: None,
        }
    }

    fn check(&self, _scheduler: &SchedulerConfig, _refuse: &dyn Fn(String) -> Error) -> Result<()> {
        Ok(())
    }

    fn denoiser(&self, weights: Weights, _controls: Vec<ControlWeights<'_>>) -> Result<Box<dyn Denoiser>> {
        Ok(Box::new(ToyDenoiser {
            weights,
            context: None,
        }))
    }

    fn control_mismatch(&self, control: &dyn ControlModel, _vae: &vae::Config) -> Option<String> {
        Some(control.made_for("Toy"))
    }

    fn encoding(&self, _task: Task) -> Scaling {
        Scaling::Shifted
    }
}

impl TextEncoders for MeanOfBytes {
    fn add_embedding(&mut self, _name: &str, file: &Arc<EmbeddingFile>) -> Result<()> {
        // It has no CLIP, and so no vectors to take.
        Ok(file.check(&[])?)
    }

    fn components(&self) -> Vec<TextComponent> {
        Vec::new()
    }

    fn context_features(&self) -> usize {
        1
    }

    fn pooled_features(&self) -> Option<usize> {
        None
    }

    fn tokens(&self, _prompts: &[&str]) -> Result<usize> {
        Ok(1)
    }

    fn encode(
        &self,
        _components: &Components,
        batches: &[&[&str]],
        _clip_skip: usize,
        _weights: EncoderWeights<'_>,
        _pause: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<EncodedPrompt>> {
        let mean = |prompt: &&str| {
            let sum: f32 = prompt.bytes().map(f32::from).sum();
            sum / prompt.len().max(1) as f32 / 128.0
        };
        let encoded = batches.iter().map(|prompts| {
            let means: Vec<f32> = prompts.iter().map(mean).collect();
            Ok(EncodedPrompt {
                context: Tensor::from_vec(means, (prompts.len(), 1, 1), &Device::Cpu)?,
                pooled: None,
                truncated: 0,
            })
        });
        encoded.collect()
    }

    fn stages(
        &self,
        _components: &Components,
        _prompts: &[&str],
        _clip_skip: usize,
        _weight_options: &WeightOptions,
    ) -> Result<Vec<EncoderStage>> {
        Ok(Vec::new())
    }
}

impl Conditioned for ToyDenoiser {
    fn weight_bytes(&self) -> WeightBytes {
        WeightBytes {
            blocks: Vec::new(),
            always: 4,
        }
    }

    fn condition_weight_bytes(&self) -> WeightBytes {
        WeightBytes::default()
    }

    fn condition_bytes(&self, load: Load, _steps: usize) -> u64 {
        4 * load.texts as u64
    }

    fn condition_footprint(&self, _load: Load, _steps: usize) -> Footprint {
        Footprint::default()
    }

    fn condition_work(&self, _load: Load, _steps: usize) -> Work {
        Work::default()
    }
}

impl Denoiser for ToyDenoiser {
    fn conditioned(&self) -> &dyn Conditioned {
        self
    }

    fn controls(&self) -> Vec<&dyn Conditioned> {
        Vec::new()
    }

    fn footprint(&self, load: Load) -> (Vec<u64>, u64) {
        let (rows, columns) = load.latents;
        let latents = load.inputs * load.texts * CHANNELS * rows * columns * size_of::<f32>();
        (Vec::new(), 3 * latents as u64)
    }

    fn work(&self, _load: Load) -> Work {
        Work::default()
    }

    fn condition(
        &mut self,
        inputs: &ConditioningInputs<'_>,
        _control_image: &dyn Fn(usize) -> Result<Tensor>,
    ) -> Result<()> {
        let context = inputs.prompts.context.to_device(inputs.device)?;
        self.context = Some(context.unsqueeze(3)?);
        Ok(())
    }

    fn load(&self) -> Result<()> {
        Ok(())
    }

    fn forward(&self, inputs: &[DenoiserInput], _evaluation: usize) -> Result<Vec<Tensor>> {
        let gain = self.weights.tensor(WEIGHT, &[1])?.reshape((1, 1, 1, 1))?;
        let context = self.context.as_ref().expect("it was conditioned");
        let predict = |input: &DenoiserInput| -> Result<Tensor> {
            let context = match input.prompt {
                Some(prompt) => context.narrow(0, prompt, 1)?,
                None => context.clone(),
            };
            Ok(input.latents.broadcast_mul(&gain)?.broadcast_add(&context)?)
        };
        inputs.iter().map(predict).collect()
    }
}

/// Writes a model of the family to `folder`, with the autoencoder and the scheduler of another model.
fn write_model(folder: &Path) {
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/tiny-medium");
    for component in ["vae", "scheduler"] {
        fs::create_dir_all(folder.join(component)).unwrap();
        for file in fs::read_dir(other.join(component)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.join(component).join(file.file_name())).unwrap();
        }
    }
    let transformer = folder.join("transformer");
    fs::create_dir_all(&transformer).unwrap();
    fs::write(
        transformer.join("config.json"),
        format!(r#"{{"_class_name": "{CLASS}"}}"#),
    )
    .unwrap();
    let gain = Tensor::new(&[0.5_f32], &Device::Cpu).unwrap();
    let tensors = std::collections::HashMap::from([(WEIGHT.to_owned(), gain)]);
    let file = transformer.join("diffusion_pytorch_model.safetensors");
    candle_core::safetensors::save(&tensors, file).unwrap();
}

#[test]
fn a_family_in_one_file_generates_through_the_whole_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("model"));
    let model = ModelChoice {
        name: "toy".to_owned(),
        files: ModelFiles::at(folder.path().join("model")),
        recommended: Recommended::default(),
    };
    let request = |prompt: &str, memory: Option<Bytes>| Request {
        seeds: 1.into(),
        size: Some(ImageSize::new(64, 64).unwrap().into()),
        output: folder.path().join("outputs"),
        device: DeviceChoice::Cpu,
        memory,
        ..Request::new(prompt, model.clone())
    };
    let generate = |prompt: &str, memory: Option<Bytes>| {
        let mut observer = |_: &Event<'_>| {};
        let saved = crate::Engine::new()
            .run(&request(prompt, memory), &mut observer, &Interrupt::default())
            .unwrap();
        let metadata = fs::read_to_string(&saved[0].metadata).unwrap();
        assert!(metadata.contains(r#""pipeline_type": "toy""#), "{metadata}");
        let image = crate::source_image::SourceImage::open(&saved[0].image).unwrap();
        let size = ImageSize::new(64, 64).unwrap();
        image.at(size).unwrap()
    };
    let plan = crate::plan(&request("a cat", None)).unwrap();
    let cat = generate("a cat", None);
    assert!(cat == generate("a cat", Some(plan.smallest_budget)));
    assert!(cat != generate("zzzz", None));
}
