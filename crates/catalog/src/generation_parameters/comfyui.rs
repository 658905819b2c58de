//! The graph of ComfyUI in its API form: nodes by their ids, each with its class and its inputs. An input is a value,
//! or the id of another node with the index of its output.
//!
//! Only graphs that are one run of this program are read: a checkpoint with LoRAs, two prompts, empty latents, one
//! sampler. Any other node that leads to the image is refused by its class.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{GenerationParameters, ParametersSource, Unmet};

/// The most nodes of a graph, and of a chain in it.
const MOST_NODES: usize = 1 << 12;

/// A node.
#[derive(Debug, Deserialize)]
struct Node {
    class_type: String,
    #[serde(default)]
    inputs: BTreeMap<String, Value>,
}

type Graph = BTreeMap<String, Node>;

type Result<T> = std::result::Result<T, String>;

/// The parameters of the graph in `text`.
///
/// # Errors
/// It is no such graph, or has a node that this program has no counterpart for.
pub(super) fn read(text: &str) -> Result<GenerationParameters> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("its graph is damaged: {error}"))?;
    if value.get("nodes").is_some_and(Value::is_array) {
        return Err(
            "it is a workflow for ComfyUI's editor: the form that is read is that of `Export (API)`"
                .to_owned(),
        );
    }
    let graph: Graph = serde_json::from_value(value)
        .map_err(|_| "it is neither a .json file of this program nor a graph of ComfyUI".to_owned())?;
    if graph.len() > MOST_NODES {
        return Err(format!("its graph has more than {MOST_NODES} nodes"));
    }
    Reader { graph: &graph }.parameters()
}

struct Reader<'a> {
    graph: &'a Graph,
}

impl<'a> Reader<'a> {
    fn parameters(&self) -> Result<GenerationParameters> {
        let is_output = |node: &&Node| matches!(node.class_type.as_str(), "SaveImage" | "PreviewImage");
        let outputs: Vec<&Node> = self.graph.values().filter(is_output).collect();
        let mut decoders = Vec::new();
        for output in &outputs {
            decoders.push(self.node_at(output, "images", &["VAEDecode"])?.0);
        }
        let Some(&decoder) = decoders.first() else {
            return Err("its graph has no node SaveImage".to_owned());
        };
        if decoders.iter().any(|&other| other != decoder) {
            return Err("its graph saves images of several samplers".to_owned());
        }
        let decoder = self.node(decoder)?;
        let (_, sampler) = self.node_at(decoder, "samples", &["KSampler"])?;
        let (_, latents) = self.node_at(
            sampler,
            "latent_image",
            &["EmptyLatentImage", "EmptySD3LatentImage"],
        )?;
        let mut found = GenerationParameters::new(ParametersSource::ComfyUi);
        // ComfyUI draws noise on the CPU.
        found.set("rng", "rng", "torch");
        for (option, input) in [
            ("seed", "seed"),
            ("steps", "steps"),
            ("cfg", "cfg"),
            ("sampler", "sampler_name"),
            ("scheduler", "scheduler"),
        ] {
            let value = self.text(sampler, input)?;
            found.set(option, input, &value);
        }
        let denoise = self.text(sampler, "denoise").unwrap_or_else(|_| "1".to_owned());
        if denoise.parse() != Ok(1.0) {
            found.differences.push(format!("denoise: {denoise}"));
        }
        let (width, height) = (self.text(latents, "width")?, self.text(latents, "height")?);
        found.set("size", "size", &format!("{width}x{height}"));
        let batch = self
            .text(latents, "batch_size")
            .unwrap_or_else(|_| "1".to_owned());
        if batch != "1" {
            found
                .differences
                .push(format!("batch_size: {batch} (its first image is generated)"));
        }
        self.prompts(sampler, &mut found)?;
        self.model(sampler, decoder, &mut found)?;
        Ok(found)
    }

    /// The prompt and the negative prompt.
    fn prompts(&self, sampler: &Node, found: &mut GenerationParameters) -> Result<()> {
        let (_, positive) = self.node_at(sampler, "positive", &["CLIPTextEncode"])?;
        let (_, negative) = self.node_at(sampler, "negative", &["CLIPTextEncode"])?;
        let (prompt, negative_prompt) = (self.text(positive, "text")?, self.text(negative, "text")?);
        for text in [&prompt, &negative_prompt] {
            if text.contains("<lora:") || text.contains("<lyco:") {
                found.unmet.push(Unmet {
                    setting: format!("text: {text}"),
                    reason: "the prompt has a LoRA tag, which ComfyUI takes for words".to_owned(),
                    options: vec!["prompt"],
                    is_missing: false,
                });
            }
        }
        if [&prompt, &negative_prompt]
            .iter()
            .any(|text| text.contains(['(', '[']))
        {
            found
                .differences
                .push("weights of words in the prompts, which ComfyUI applies in another way".to_owned());
        }
        // Words of textual inversion are written without a prefix here.
        let plain = |text: &str| text.replace("embedding:", "");
        found.prompt = plain(&prompt);
        found.settings.negative_prompt = Some(plain(&negative_prompt));
        Ok(())
    }

    /// The checkpoint, its LoRAs, CLIP skip and the autoencoder.
    fn model(&self, sampler: &Node, decoder: &Node, found: &mut GenerationParameters) -> Result<()> {
        let (checkpoint, of_model) = self.chain(sampler, "model", 0)?;
        let mut of_text = None;
        for prompt in ["positive", "negative"] {
            let (_, encoder) = self.node_at(sampler, prompt, &["CLIPTextEncode"])?;
            let chain = self.chain(encoder, "clip", 1)?;
            if chain.0 != checkpoint {
                return Err("the text encoders of its graph are those of another checkpoint".to_owned());
            }
            if of_text.as_ref().is_some_and(|other| *other != chain.1) {
                return Err("its prompts are encoded with different LoRAs".to_owned());
            }
            of_text = Some(chain.1);
        }
        let of_text = of_text.unwrap_or_default();
        let name = file_name(&self.text(self.node(checkpoint)?, "ckpt_name")?);
        found.set("model", "ckpt_name", &name);
        // The loader next to the checkpoint comes first.
        let mut order: Vec<&str> = of_model.clone();
        order.extend(of_text.iter().filter(|id| !of_model.contains(id)));
        for id in order.into_iter().rev() {
            let node = self.node(id)?;
            if node.class_type == "CLIPSetLastLayer" {
                let layer = self.text(node, "stop_at_clip_layer")?;
                let skip = layer.strip_prefix('-').unwrap_or(&layer);
                found.set("clip-skip", "stop_at_clip_layer", skip);
                continue;
            }
            let strength = |input: &str, is_used: bool| match is_used {
                true => self.text(node, input),
                false => Ok("0".to_owned()),
            };
            let has_text = node.class_type == "LoraLoader" && of_text.contains(&id);
            let text_scale = strength("strength_clip", has_text)?;
            let scale = strength("strength_model", of_model.contains(&id))?;
            let name = file_name(&self.text(node, "lora_name")?);
            found.set("lora", "lora_name", &format!("{name}:{text_scale}:{scale}"));
        }
        let (vae, node) = self.node_at(decoder, "vae", &["VAELoader", "CheckpointLoaderSimple"])?;
        if node.class_type == "VAELoader" {
            found.set("vae", "vae_name", &file_name(&self.text(node, "vae_name")?));
        } else if vae != checkpoint {
            return Err("the autoencoder of its graph is that of another checkpoint".to_owned());
        }
        Ok(())
    }

    /// The checkpoint that `input` of `node` comes from, and the ids of the loaders between them, the checkpoint's
    /// neighbour last. `output` is the index of the output of each that the input takes.
    fn chain(&self, node: &Node, input: &str, output: u64) -> Result<(&'a str, Vec<&'a str>)> {
        const CLASSES: [&str; 4] = [
            "CheckpointLoaderSimple",
            "LoraLoader",
            "LoraLoaderModelOnly",
            "CLIPSetLastLayer",
        ];
        let mut loaders = Vec::new();
        let (mut id, mut next) = self.node_at(node, input, &CLASSES)?;
        while next.class_type != "CheckpointLoaderSimple" {
            if loaders.len() >= MOST_NODES || loaders.contains(&id) {
                return Err("its graph leads in a circle".to_owned());
            }
            loaders.push(id);
            let input = if output == 0 { "model" } else { "clip" };
            (id, next) = self.node_at(next, input, &CLASSES)?;
        }
        Ok((id, loaders))
    }

    /// The node that `input` of `node` comes from, with its id. It has one of these classes.
    fn node_at(&self, node: &Node, input: &str, classes: &[&str]) -> Result<(&'a str, &'a Node)> {
        let link = node.inputs.get(input).and_then(Value::as_array);
        let id = link.and_then(|link| link.first()).and_then(Value::as_str);
        let Some(id) = id else {
            return Err(format!("`{input}` of its {} comes from no node", node.class_type));
        };
        let (id, found) = self.graph.get_key_value(id).ok_or_else(|| {
            format!(
                "`{input}` of its {} comes from a node that is missing",
                node.class_type
            )
        })?;
        if classes.contains(&found.class_type.as_str()) {
            Ok((id, found))
        } else {
            Err(format!(
                "its graph has the node {} for `{input}` of {}, which is not supported: {} is",
                found.class_type,
                node.class_type,
                classes.join(" or ")
            ))
        }
    }

    fn node(&self, id: &str) -> Result<&'a Node> {
        self.graph
            .get(id)
            .ok_or_else(|| format!("its graph has no node {id}"))
    }

    /// The value of `input` of `node` as text.
    fn text(&self, node: &Node, input: &str) -> Result<String> {
        match node.inputs.get(input) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(Value::Array(link)) => {
                let id = link.first().and_then(Value::as_str).unwrap_or_default();
                let from = self.graph.get(id).map_or("another node", |node| &node.class_type);
                Err(format!(
                    "`{input}` of its {} comes from {from}, which is not supported: a value is",
                    node.class_type
                ))
            }
            _ => Err(format!("its {} has no `{input}`", node.class_type)),
        }
    }
}

/// The name of a file in a folder of ComfyUI, which runs on Windows too.
fn file_name(name: &str) -> String {
    name.replace('\\', "/")
}
