//! Options of other programs that mean several things, or that cannot be obeyed: each with what to write instead.

/// Options, and what to write in their place.
const ADVICE: [(&[&str], &str); 21] = [
    (
        &["-s"],
        "it is the seed in stable-diffusion.cpp and the steps in other programs: write --seed or --steps",
    ),
    (&["-S"], "write --seed"),
    (&["-C"], "write --cfg"),
    (&["-A"], "write --sampler"),
    (&["-I"], "write --init-image"),
    (
        &["-M", "--mode"],
        "images are generated from the prompt, or over --init-image; `generate convert` converts models",
    ),
    (
        &["-q", "--quantize", "--type"],
        "`generate convert MODEL -o FILE.gguf --to q8_0` quantises a model; --dtype sets the type of its other weights",
    ),
    (
        &["--lora-model-dir", "--lora-dir", "--lora_model_dir"],
        "name a LoRA with --lora FILE, or its folder in models_path of the configuration file",
    ),
    (
        &["--lora-paths", "--lora-scales", "--lora-names"],
        "write --lora FILE:SCALE, once for each",
    ),
    (
        &["--embd-dir", "--embeddings-dir"],
        "name a file with --embedding, or its folder in models_path of the configuration file",
    ),
    (
        &["--image-strength"],
        "in mflux it is the part of the initial image that stays; --strength is the part that changes: write 1 - X",
    ),
    (
        &[
            "--vae-tiling",
            "--vae-on-cpu",
            "--clip-on-cpu",
            "--control-net-cpu",
            "--offload-to-cpu",
            "--low-ram",
            "--lowvram",
            "--medvram",
            "--max-vram",
            "--cpu-offload",
            "--mlx-cache-limit-gb",
        ],
        "the memory plan does this by itself: --memory SIZE sets the budget",
    ),
    (
        &[
            "--diffusion-fa",
            "--fa",
            "--flash-attention",
            "--xformers",
            "--opt-sdp-attention",
            "--diffusion-conv-direct",
            "--vae-conv-direct",
        ],
        "attention and convolutions are always computed in blocks",
    ),
    (&["--taesd", "--tae"], "--preview shows the image while it forms"),
    (&["--plms"], "write --sampler plms"),
    (&["--upscale-repeats"], "write --upscale 2 or --upscale 4"),
    (&["--auto-seeds"], "write --n N, for seeds one after another"),
    (
        &["--metadata"],
        "settings are always written into the image and into a .json file beside it",
    ),
    (
        &["--config-from-metadata"],
        "`generate again PICTURE` takes the settings of an image",
    ),
    (
        &["--controlnet-image-path"],
        "write --canny, --pose, --depth or --control with the image",
    ),
    (
        &["--hires-fix", "--hires", "--enable-hr"],
        "write --refiner, or --upscale",
    ),
];

/// What to write in place of `option`, if another program has it.
pub(super) fn advice(option: &str) -> Option<&'static str> {
    let name = option.split('=').next().unwrap_or(option);
    let found = ADVICE.iter().find(|(options, _)| options.contains(&name));
    found.map(|(_, advice)| *advice)
}
