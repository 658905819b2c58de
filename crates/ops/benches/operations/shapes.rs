//! The shapes of real networks, at 512x512 by default: the network, and the size of its work.

/// Rows, features that go in, features that come out.
pub(crate) const LINEARS: [(&str, usize, usize, usize); 24] = [
    // The first and the last layers' projections, both parts of a feed-forward layer, and the text's keys.
    ("SD 1.5", 8192, 320, 320),
    ("SD 1.5", 8192, 320, 2560),
    ("SD 1.5", 8192, 1280, 320),
    ("SD 1.5", 2048, 640, 5120),
    ("SD 1.5", 2048, 2560, 640),
    ("SD 1.5", 512, 1280, 1280),
    ("SD 1.5", 512, 1280, 10240),
    ("SD 1.5", 512, 5120, 1280),
    ("SD 1.5", 154, 768, 1280),
    ("SDXL 1024x1024", 2048, 1280, 1280),
    ("SDXL 1024x1024", 2048, 1280, 10240),
    ("SDXL 1024x1024", 2048, 5120, 1280),
    ("SD 3.5 Medium", 1024, 1536, 1536),
    ("SD 3.5 Medium", 1024, 1536, 6144),
    ("SD 3.5 Medium", 1024, 6144, 1536),
    ("SD 3.5 Large", 1024, 2432, 2432),
    ("SD 3.5 Large", 1024, 2432, 9728),
    ("SD 3.5 Large", 1024, 9728, 2432),
    ("SD 3.5 Large", 333, 2432, 9728),
    // The modulation of a step.
    ("SD 3.5 Large", 1, 2432, 14592),
    ("T5-XXL", 256, 4096, 4096),
    ("T5-XXL", 256, 4096, 10240),
    ("T5-XXL", 256, 10240, 4096),
    ("demo", 640, 160, 640),
];

/// A convolution of square images.
pub(crate) struct Convolution {
    pub(crate) network: &'static str,
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) side: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

const fn convolution(
    network: &'static str,
    [batch, inputs, outputs, side, kernel, stride]: [usize; 6],
) -> Convolution {
    Convolution {
        network,
        batch,
        inputs,
        outputs,
        side,
        kernel,
        stride,
    }
}

pub(crate) const CONVOLUTIONS: [Convolution; 36] = [
    convolution("SD 1.5", [2, 4, 320, 64, 3, 1]),
    convolution("SD 1.5", [2, 320, 320, 64, 3, 1]),
    convolution("SD 1.5", [2, 960, 320, 64, 3, 1]),
    convolution("SD 1.5", [2, 320, 320, 64, 3, 2]),
    convolution("SD 1.5", [2, 640, 640, 32, 3, 1]),
    convolution("SD 1.5", [2, 1920, 640, 32, 3, 1]),
    convolution("SD 1.5", [2, 640, 640, 32, 1, 1]),
    convolution("SD 1.5", [2, 320, 320, 64, 1, 1]),
    convolution("SD 1.5", [2, 960, 320, 64, 1, 1]),
    convolution("SD 1.5", [2, 1920, 640, 32, 1, 1]),
    convolution("SD 1.5", [2, 1280, 1280, 16, 1, 1]),
    convolution("SD 1.5", [2, 2560, 1280, 16, 1, 1]),
    convolution("SD 1.5", [2, 1280, 1280, 8, 1, 1]),
    convolution("SD 1.5", [2, 2560, 1280, 8, 1, 1]),
    convolution("SD 1.5", [2, 640, 640, 32, 3, 2]),
    convolution("SD 1.5", [2, 1280, 1280, 16, 3, 2]),
    convolution("SD 1.5", [2, 1280, 1280, 16, 3, 1]),
    convolution("SD 1.5", [2, 2560, 1280, 16, 3, 1]),
    convolution("SD 1.5", [2, 1280, 1280, 8, 3, 1]),
    convolution("SD 1.5", [2, 320, 4, 64, 3, 1]),
    convolution("SDXL 1024x1024", [2, 320, 320, 128, 3, 1]),
    convolution("SDXL 1024x1024", [2, 1280, 1280, 32, 3, 1]),
    convolution("SDXL 1024x1024", [2, 320, 320, 128, 3, 2]),
    convolution("SDXL 1024x1024", [2, 640, 640, 64, 3, 2]),
    convolution("SDXL 1024x1024", [2, 1920, 1280, 32, 1, 1]),
    convolution("SD 3.5 Large", [1, 16, 2432, 64, 2, 2]),
    convolution("VAE", [1, 512, 512, 64, 3, 1]),
    convolution("VAE", [1, 512, 512, 128, 3, 1]),
    convolution("VAE", [1, 256, 256, 256, 3, 1]),
    convolution("VAE", [1, 256, 128, 512, 1, 1]),
    convolution("VAE", [1, 512, 256, 256, 1, 1]),
    convolution("VAE", [1, 128, 128, 512, 3, 2]),
    convolution("VAE", [1, 512, 512, 128, 3, 2]),
    convolution("VAE", [1, 128, 128, 512, 3, 1]),
    convolution("VAE", [1, 128, 3, 512, 3, 1]),
    convolution("demo", [1, 32, 32, 256, 3, 1]),
];

/// Batch, channels, and the side before upsampling.
pub(crate) const UPSAMPLED: [(&str, usize, usize, usize); 9] = [
    ("SD 1.5", 2, 1280, 8),
    ("SD 1.5", 2, 1280, 16),
    ("SD 1.5", 2, 640, 32),
    ("SDXL 1024x1024", 2, 1280, 32),
    ("SDXL 1024x1024", 2, 640, 64),
    ("VAE", 1, 512, 64),
    ("VAE", 1, 512, 128),
    ("VAE", 1, 256, 256),
    ("demo", 1, 64, 64),
];

/// Features that go in, features that come out, of products with few rows: modulations and embeddings.
pub(crate) const FEW_ROWS: [(&str, usize, usize); 2] = [("SDXL", 1280, 1280), ("SD 3.5 Medium", 1536, 9216)];

/// Batch, heads, queries, keys, features of a head.
pub(crate) const ATTENTIONS: [(&str, [usize; 5]); 13] = [
    ("SD 1.5", [2, 8, 4096, 4096, 40]),
    ("SD 1.5", [2, 8, 4096, 77, 40]),
    ("SD 1.5", [2, 8, 1024, 1024, 80]),
    ("SD 1.5", [2, 8, 256, 256, 160]),
    ("SD 1.5", [2, 8, 256, 77, 160]),
    ("SDXL 1024x1024", [2, 20, 1024, 1024, 64]),
    ("SDXL 1024x1024", [2, 20, 1024, 77, 64]),
    ("SD 3.5 Medium", [1, 24, 1357, 1357, 64]),
    ("SD 3.5 Large", [1, 38, 1357, 1357, 64]),
    ("SD 3.5 Large 1024x1024", [1, 38, 4429, 4429, 64]),
    ("T5-XXL", [1, 64, 256, 256, 64]),
    ("VAE", [1, 1, 4096, 4096, 512]),
    ("demo", [2, 5, 320, 320, 32]),
];
