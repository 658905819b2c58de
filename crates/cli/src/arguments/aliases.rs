//! Short options, and the names that options have in other programs: stable-diffusion.cpp, mflux, diffusers,
//! stable-diffusion-webui and the scripts of Stable Diffusion. Only names with one meaning are here;
//! [`foreign_options`](super::foreign_options) has the others.

/// An option with its other names.
struct Names {
    id: &'static str,
    /// The letter that the help shows.
    letter: Option<char>,
    /// Letters that it does not show.
    letters: &'static [char],
    /// Names that it does not show.
    names: &'static [&'static str],
}

const fn of(id: &'static str, names: &'static [&'static str]) -> Names {
    Names {
        id,
        letter: None,
        letters: &[],
        names,
    }
}

const fn short(letter: char, names: Names) -> Names {
    Names {
        letter: Some(letter),
        ..names
    }
}

const fn hidden(letters: &'static [char], names: Names) -> Names {
    Names { letters, ..names }
}

const NAMES: [Names; 22] = [
    short('p', of("prompt_option", &[])),
    of(
        "negative_prompt",
        &["neg", "negative", "neg-prompt", "negative_prompt"],
    ),
    short(
        'm',
        of("model", &["ckpt", "checkpoint", "sd-model", "diffusion-model"]),
    ),
    hidden(
        &['b'],
        short(
            'n',
            of(
                "n",
                &[
                    "batch",
                    "batch-count",
                    "batch-size",
                    "batch_count",
                    "batch_size",
                    "num-images",
                    "num-images-per-prompt",
                    "n-iter",
                    "n_iter",
                    "count",
                ],
            ),
        ),
    ),
    short('W', of("width", &[])),
    short('H', of("height", &[])),
    of(
        "steps",
        &[
            "num-inference-steps",
            "num_inference_steps",
            "sampling-steps",
            "ddim-steps",
            "ddim_steps",
        ],
    ),
    of(
        "cfg",
        &[
            "cfg-scale",
            "cfg_scale",
            "guidance",
            "guidance-scale",
            "guidance_scale",
        ],
    ),
    of("guidance_rescale", &["guidance_rescale"]),
    of(
        "sampler",
        &[
            "sampling-method",
            "sampling_method",
            "sampler-name",
            "sampler_name",
        ],
    ),
    of("scheduler", &["schedule", "schedule-type"]),
    short(
        'i',
        of(
            "init_image",
            &[
                "image",
                "img",
                "init-img",
                "init_img",
                "init",
                "image-path",
                "input-image",
                "init_image",
            ],
        ),
    ),
    of(
        "strength",
        &["denoising-strength", "denoising_strength", "denoise"],
    ),
    of("mask", &["mask-image", "mask-img"]),
    of("upscaler", &["upscale-model"]),
    of("controlnet", &["control-net"]),
    of("control", &["control-image"]),
    of(
        "control_scale",
        &["control-strength", "controlnet-conditioning-scale"],
    ),
    of("clip_l", &["clip_l"]),
    of("clip_g", &["clip_g"]),
    hidden(&['t'], of("threads", &[])),
    of("output", &["outdir", "out", "output-dir"]),
];

/// `command`, whose options are those of `generate PROMPT`, with their other names.
pub(super) fn added_to(command: clap::Command) -> clap::Command {
    // All in one pass: an argument that is changed alone moves to the end of the help.
    command.mut_args(|argument| {
        let Some(names) = NAMES.iter().find(|names| argument.get_id() == names.id) else {
            return argument;
        };
        let argument = match names.letter {
            Some(letter) => argument.short(letter),
            None => argument,
        };
        argument
            .short_aliases(names.letters.iter().copied())
            .aliases(names.names.iter().copied())
    })
}
