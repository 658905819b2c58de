//! Checkpoints with random weights, of any size.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // Each binary uses a part; without its data it has failed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use sd_models::vae::Config;
use sd_weights::{ModelFolder, Residency, WeightOptions, WeightType, Weights};

/// The autoencoder of Stable Diffusion 3 and 3.5.
pub fn stable_diffusion_3() -> Config {
    Config {
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        latent_channels: 16,
        scaling_factor: 1.5305,
        shift_factor: Some(0.0609),
        use_quant_conv: false,
        use_post_quant_conv: false,
        ..Config::default()
    }
}

/// A random autoencoder of the shape of `config`, with weights of 16 bits or of 32.
pub fn autoencoder(config: &Config, weight_type: WeightType) -> Weights {
    let folder = tempfile::tempdir().unwrap();
    let vae = folder.path().join("vae");
    fs::create_dir_all(&vae).unwrap();
    let file = BufWriter::new(File::create(vae.join("model.safetensors")).unwrap());
    write(&tensors(config), file, weight_type == WeightType::F32);
    let weight_options = WeightOptions::new(
        candle_core::Device::Cpu,
        WeightType::AsStored,
        Residency::Resident,
    );
    let checkpoint = ModelFolder::on_disk(folder.path()).checkpoint("vae").unwrap();
    // It has the file open, which needs its name no more.
    Weights::new(checkpoint, weight_options)
}

/// Numbers between -1 and 1, always the same.
pub fn values(count: usize) -> Vec<f32> {
    Numbers::default().take(count).collect()
}

struct Numbers(u64);

impl Default for Numbers {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Iterator for Numbers {
    type Item = f32;

    fn next(&mut self) -> Option<f32> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some((self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0)
    }
}

/// The names and shapes of an autoencoder's tensors.
fn tensors(config: &Config) -> Vec<(String, Vec<usize>)> {
    let mut found = Found(Vec::new());
    let (levels, latent) = (&config.block_out_channels, config.latent_channels);
    let (highest, lowest) = (levels[0], levels[levels.len() - 1]);
    if config.use_quant_conv {
        found.conv("quant_conv", 2 * latent, 2 * latent, 1);
    }
    if config.use_post_quant_conv {
        found.conv("post_quant_conv", latent, latent, 1);
    }
    found.conv("encoder.conv_in", config.in_channels, highest, 3);
    found.conv("encoder.conv_out", lowest, 2 * latent, 3);
    found.conv("decoder.conv_in", latent, lowest, 3);
    found.conv("decoder.conv_out", highest, config.out_channels, 3);
    found.norm("encoder.conv_norm_out", lowest);
    found.norm("decoder.conv_norm_out", highest);
    for side in ["encoder", "decoder"] {
        let middle = format!("{side}.mid_block");
        found.residual(&format!("{middle}.resnets.0"), lowest, lowest);
        found.residual(&format!("{middle}.resnets.1"), lowest, lowest);
        if config.mid_block_add_attention {
            let attention = format!("{middle}.attentions.0");
            found.norm(&format!("{attention}.group_norm"), lowest);
            for name in ["to_q", "to_k", "to_v", "to_out.0"] {
                found.add(format!("{attention}.{name}.weight"), &[lowest, lowest]);
                found.add(format!("{attention}.{name}.bias"), &[lowest]);
            }
        }
    }
    for (side, way, extra) in [("encoder", "down", 0), ("decoder", "up", 1)] {
        let mut order = levels.clone();
        if way == "up" {
            order.reverse();
        }
        for (level, &outputs) in order.iter().enumerate() {
            let block = format!("{side}.{way}_blocks.{level}");
            for layer in 0..config.layers_per_block + extra {
                let inputs = if layer == 0 {
                    order[level.saturating_sub(1)]
                } else {
                    outputs
                };
                found.residual(&format!("{block}.resnets.{layer}"), inputs, outputs);
            }
            if level + 1 < order.len() {
                found.conv(&format!("{block}.{way}samplers.0.conv"), outputs, outputs, 3);
            }
        }
    }
    found.0
}

struct Found(Vec<(String, Vec<usize>)>);

impl Found {
    fn add(&mut self, name: String, shape: &[usize]) {
        self.0.push((name, shape.to_vec()));
    }

    fn conv(&mut self, name: &str, inputs: usize, outputs: usize, kernel: usize) {
        self.add(format!("{name}.weight"), &[outputs, inputs, kernel, kernel]);
        self.add(format!("{name}.bias"), &[outputs]);
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.add(format!("{name}.weight"), &[channels]);
        self.add(format!("{name}.bias"), &[channels]);
    }

    fn residual(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.norm(&format!("{name}.norm1"), inputs);
        self.conv(&format!("{name}.conv1"), inputs, outputs, 3);
        self.norm(&format!("{name}.norm2"), outputs);
        self.conv(&format!("{name}.conv2"), outputs, outputs, 3);
        if inputs != outputs {
            self.conv(&format!("{name}.conv_shortcut"), inputs, outputs, 1);
        }
    }
}

/// Writes a safetensors file, a value at a time, so that nothing of it is ever in memory.
fn write(tensors: &[(String, Vec<usize>)], mut file: impl Write, wide: bool) {
    let size = if wide { 4 } else { 2 };
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + shape.iter().product::<usize>() * size;
        let entry = serde_json::json!({
            "dtype": if wide { "F32" } else { "BF16" },
            "shape": shape,
            "data_offsets": [offset, end],
        });
        header.insert(name.clone(), entry);
        offset = end;
    }
    let header = serde_json::to_vec(&header).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    let mut numbers = Numbers::default();
    for (_, shape) in tensors {
        let inputs: usize = shape[1..].iter().product();
        let scale = (3.0 / inputs as f32).sqrt();
        for value in numbers.by_ref().take(shape.iter().product()) {
            let bytes = (value * scale).to_le_bytes();
            file.write_all(if wide { &bytes } else { &bytes[2..] }).unwrap();
        }
    }
    file.flush().unwrap();
}
