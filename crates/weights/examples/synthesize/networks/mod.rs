//! The tensors of each network, with the names of diffusers and transformers, and their shapes.

pub(crate) mod sd3;
pub(crate) mod unet;

/// What a tensor's values are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Values {
    /// Around zero, with this deviation.
    Around(f32),
    /// The weights of a norm: ones.
    Ones,
}

/// A tensor to be written.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

impl Tensor {
    /// How many values it has.
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Deviation of what is added: biases, tables.
const SMALL: f32 = 0.02;

/// A list of tensors that layers are added to.
#[derive(Debug, Default)]
struct List(Vec<Tensor>);

impl List {
    fn push(&mut self, name: String, shape: &[usize], values: Values) {
        self.0.push(Tensor {
            name,
            shape: shape.to_vec(),
            values,
        });
    }

    /// A weight that keeps the size of what it multiplies, after its fan-in.
    fn weight(&mut self, name: &str, shape: &[usize]) {
        let fan_in: usize = shape[1..].iter().product();
        let deviation = 1.0 / (fan_in as f32).sqrt();
        self.push(format!("{name}.weight"), shape, Values::Around(deviation));
    }

    fn bias(&mut self, name: &str, features: usize) {
        self.push(format!("{name}.bias"), &[features], Values::Around(SMALL));
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.weight(name, &[outputs, inputs]);
        self.bias(name, outputs);
    }

    fn conv2d(&mut self, name: &str, inputs: usize, outputs: usize, kernel: usize) {
        self.weight(name, &[outputs, inputs, kernel, kernel]);
        self.bias(name, outputs);
    }

    fn scale(&mut self, name: &str, features: usize) {
        self.push(format!("{name}.weight"), &[features], Values::Ones);
    }

    fn norm(&mut self, name: &str, features: usize) {
        self.scale(name, features);
        self.bias(name, features);
    }

    fn table(&mut self, name: &str, shape: &[usize]) {
        self.push(name.to_owned(), shape, Values::Around(SMALL));
    }
}

/// A text encoder of CLIP: `CLIPTextModel`, or with a projection `CLIPTextModelWithProjection`.
pub(crate) struct Clip {
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) activation: &'static str,
    pub(crate) projects: bool,
}

impl Clip {
    pub(crate) const VOCABULARY: usize = 49_408;
    pub(crate) const POSITIONS: usize = 77;
    /// OpenAI's ViT-L/14.
    pub(crate) const LARGE: Self = Self {
        width: 768,
        layers: 12,
        heads: 12,
        activation: "quick_gelu",
        projects: false,
    };
    /// OpenCLIP's ViT-H/14, of which Stable Diffusion 2 leaves the last layer out.
    pub(crate) const HUGE: Self = Self {
        width: 1024,
        layers: 23,
        heads: 16,
        activation: "gelu",
        projects: false,
    };
    /// OpenCLIP's ViT-bigG/14.
    pub(crate) const BIG: Self = Self {
        width: 1280,
        layers: 32,
        heads: 20,
        activation: "gelu",
        projects: true,
    };

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let width = self.width;
        let mut list = List::default();
        list.table(
            "text_model.embeddings.token_embedding.weight",
            &[Self::VOCABULARY, width],
        );
        list.table(
            "text_model.embeddings.position_embedding.weight",
            &[Self::POSITIONS, width],
        );
        for layer in 0..self.layers {
            let name = format!("text_model.encoder.layers.{layer}");
            list.norm(&format!("{name}.layer_norm1"), width);
            list.norm(&format!("{name}.layer_norm2"), width);
            for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                list.linear(&format!("{name}.self_attn.{projection}"), width, width);
            }
            list.linear(&format!("{name}.mlp.fc1"), width, 4 * width);
            list.linear(&format!("{name}.mlp.fc2"), 4 * width, width);
        }
        list.norm("text_model.final_layer_norm", width);
        if self.projects {
            list.weight("text_projection", &[width, width]);
        }
        list.0
    }
}

/// The encoder of T5 v1.1: `T5EncoderModel`.
pub(crate) struct T5 {
    pub(crate) width: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) vocabulary: usize,
}

impl T5 {
    pub(crate) const BUCKETS: usize = 32;
    pub(crate) const XXL: Self = Self {
        width: 4096,
        inner: 10_240,
        layers: 24,
        heads: 64,
        vocabulary: 32_128,
    };

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let Self { width, inner, .. } = *self;
        let mut list = List::default();
        list.table("shared.weight", &[self.vocabulary, width]);
        for layer in 0..self.layers {
            let name = format!("encoder.block.{layer}.layer");
            // T5 does not divide scores by the root of a head's features: queries are as small instead. With
            // larger ones each token would look at a single other one, and rounding would decide at which.
            let deviation = 1.0 / ((width * width / self.heads) as f32).sqrt();
            let queries = format!("{name}.0.SelfAttention.q.weight");
            list.push(queries, &[width, width], Values::Around(deviation));
            for projection in ["k", "v", "o"] {
                list.weight(&format!("{name}.0.SelfAttention.{projection}"), &[width, width]);
            }
            if layer == 0 {
                let table = format!("{name}.0.SelfAttention.relative_attention_bias.weight");
                list.table(&table, &[Self::BUCKETS, self.heads]);
            }
            list.scale(&format!("{name}.0.layer_norm"), width);
            list.weight(&format!("{name}.1.DenseReluDense.wi_0"), &[inner, width]);
            list.weight(&format!("{name}.1.DenseReluDense.wi_1"), &[inner, width]);
            list.weight(&format!("{name}.1.DenseReluDense.wo"), &[width, inner]);
            list.scale(&format!("{name}.1.layer_norm"), width);
        }
        list.scale("encoder.final_layer_norm", width);
        list.0
    }
}

/// An autoencoder: `AutoencoderKL`.
pub(crate) struct Vae {
    pub(crate) latent_channels: usize,
    pub(crate) quant_convolutions: bool,
}

impl Vae {
    pub(crate) const LEVELS: [usize; 4] = [128, 256, 512, 512];
    pub(crate) const LAYERS: usize = 2;

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let (lowest, latent) = (Self::LEVELS[3], self.latent_channels);
        let mut list = List::default();
        list.conv2d("encoder.conv_in", 3, Self::LEVELS[0], 3);
        for (level, &channels) in Self::LEVELS.iter().enumerate() {
            let inputs = Self::LEVELS[level.saturating_sub(1)];
            let name = format!("encoder.down_blocks.{level}");
            residuals(&mut list, &name, Self::LAYERS, inputs, channels);
            if level + 1 < Self::LEVELS.len() {
                list.conv2d(&format!("{name}.downsamplers.0.conv"), channels, channels, 3);
            }
        }
        middle(&mut list, "encoder.mid_block", lowest);
        list.norm("encoder.conv_norm_out", lowest);
        list.conv2d("encoder.conv_out", lowest, 2 * latent, 3);
        list.conv2d("decoder.conv_in", latent, lowest, 3);
        middle(&mut list, "decoder.mid_block", lowest);
        let levels: Vec<usize> = Self::LEVELS.into_iter().rev().collect();
        for (level, &channels) in levels.iter().enumerate() {
            let inputs = levels[level.saturating_sub(1)];
            let name = format!("decoder.up_blocks.{level}");
            residuals(&mut list, &name, Self::LAYERS + 1, inputs, channels);
            if level + 1 < levels.len() {
                list.conv2d(&format!("{name}.upsamplers.0.conv"), channels, channels, 3);
            }
        }
        list.norm("decoder.conv_norm_out", Self::LEVELS[0]);
        list.conv2d("decoder.conv_out", Self::LEVELS[0], 3, 3);
        if self.quant_convolutions {
            list.conv2d("quant_conv", 2 * latent, 2 * latent, 1);
            list.conv2d("post_quant_conv", latent, latent, 1);
        }
        list.0
    }
}

fn residuals(list: &mut List, name: &str, layers: usize, inputs: usize, outputs: usize) {
    for layer in 0..layers {
        let inputs = if layer == 0 { inputs } else { outputs };
        residual(list, &format!("{name}.resnets.{layer}"), inputs, outputs);
    }
}

fn residual(list: &mut List, name: &str, inputs: usize, outputs: usize) {
    list.norm(&format!("{name}.norm1"), inputs);
    list.conv2d(&format!("{name}.conv1"), inputs, outputs, 3);
    list.norm(&format!("{name}.norm2"), outputs);
    list.conv2d(&format!("{name}.conv2"), outputs, outputs, 3);
    if inputs != outputs {
        list.conv2d(&format!("{name}.conv_shortcut"), inputs, outputs, 1);
    }
}

fn middle(list: &mut List, name: &str, channels: usize) {
    residual(list, &format!("{name}.resnets.0"), channels, channels);
    list.norm(&format!("{name}.attentions.0.group_norm"), channels);
    for projection in ["to_q", "to_k", "to_v", "to_out.0"] {
        list.linear(&format!("{name}.attentions.0.{projection}"), channels, channels);
    }
    residual(list, &format!("{name}.resnets.1"), channels, channels);
}
