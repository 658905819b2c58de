//! The built-in presets.

use sd_pipeline::scheduler::SamplerKind;

/// A model and the settings of its runs, under one name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// The model's hub id, or `demo` for the built-in one.
    pub model: &'static str,
    /// Denoising steps.
    pub steps: usize,
    /// The guidance scale, if it is not the family's default.
    pub guidance_scale: Option<f64>,
    /// The sampler, if it is not the model's own.
    pub sampler: Option<SamplerKind>,
    /// A LoRA that is added.
    pub lora: Option<&'static str>,
    /// A refiner.
    pub refiner: Option<&'static str>,
    /// The upscaling factor.
    pub upscale: Option<usize>,
}

/// What is known of a repository before its files are listed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repository {
    /// Its id on the hub.
    pub id: &'static str,
    /// About how much is downloaded, in millions of bytes: the parameters of its networks in 16 bits.
    pub megabytes: u64,
    /// Whether its licence must be accepted on its page.
    pub is_gated: bool,
}

impl Repository {
    /// The repository `id`, if a built-in preset uses it.
    pub fn find(id: &str) -> Option<&'static Self> {
        REPOSITORIES.iter().find(|repository| repository.id == id)
    }
}

/// The budgets of an image with a model of a built-in preset, in millions of bytes: plans for a CPU at the size that the
/// model was trained for, with 16-bit weights. `tools/measure/budgets.sh` computes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The smallest budget that works, in which weights are streamed.
    pub smallest: u64,
    /// The budget from which on all blocks of the denoising network stay in memory.
    pub resident: u64,
}

impl Memory {
    /// The budgets of the model `id`, if a built-in preset uses it. A refiner or an upscaler hardly adds to them.
    pub fn of_model(id: &str) -> Option<Self> {
        let (smallest, resident) = match id {
            DREAMSHAPER | REALISTIC_VISION | SD15 => (400, 1_700),
            SDXL | SDXL_REFINER => (800, 5_200),
            LARGE | LARGE_TURBO => (1_300, 10_700),
            MEDIUM => (800, 3_200),
            DEMO => (100, 100),
            _ => return None,
        };
        Some(Self { smallest, resident })
    }
}

const fn open(id: &'static str, megabytes: u64) -> Repository {
    Repository {
        id,
        megabytes,
        is_gated: false,
    }
}

const fn gated(id: &'static str, megabytes: u64) -> Repository {
    Repository {
        id,
        megabytes,
        is_gated: true,
    }
}

const REPOSITORIES: &[Repository] = &[
    open(DREAMSHAPER, 2_130),
    open(REALISTIC_VISION, 2_130),
    open(SD15, 2_130),
    open(SDXL, 6_940),
    open(SDXL_REFINER, 6_080),
    gated(LARGE, 27_600),
    gated(LARGE_TURBO, 27_600),
    gated(MEDIUM, 16_300),
    open(LCM_LORA, 135),
];

/// The name of a preset that leaves the choice to the program.
pub const AUTO: &str = "auto";
/// The preset of `--pro`.
pub const PRO: &str = "sd3.5";
/// The built-in model and its preset.
pub const DEMO: &str = "demo";

const DREAMSHAPER: &str = "Lykon/DreamShaper-8";
const REALISTIC_VISION: &str = "SG161222/Realistic_Vision_V6.0_B1_noVAE";
/// `runwayml/stable-diffusion-v1-5` has left the hub; this is its current id.
const SD15: &str = "stable-diffusion-v1-5/stable-diffusion-v1-5";
const SDXL: &str = "stabilityai/stable-diffusion-xl-base-1.0";
const SDXL_REFINER: &str = "stabilityai/stable-diffusion-xl-refiner-1.0";
const LARGE: &str = "stabilityai/stable-diffusion-3.5-large";
const LARGE_TURBO: &str = "stabilityai/stable-diffusion-3.5-large-turbo";
const MEDIUM: &str = "stabilityai/stable-diffusion-3.5-medium";
const LCM_LORA: &str = "latent-consistency/lcm-lora-sdv1-5";

const fn plain(name: &'static str, model: &'static str, steps: usize) -> Preset {
    Preset {
        name,
        model,
        steps,
        guidance_scale: None,
        sampler: None,
        lora: None,
        refiner: None,
        upscale: None,
    }
}

const fn refined(preset: Preset, refiner: &'static str) -> Preset {
    Preset {
        refiner: Some(refiner),
        ..preset
    }
}

const fn upscaled(preset: Preset, factor: usize) -> Preset {
    Preset {
        upscale: Some(factor),
        ..preset
    }
}

const fn unguided(preset: Preset) -> Preset {
    Preset {
        guidance_scale: Some(1.0),
        ..preset
    }
}

/// Every preset.
pub const ALL: [Preset; 17] = [
    Preset {
        sampler: Some(SamplerKind::Lcm),
        lora: Some(LCM_LORA),
        ..unguided(plain("lcm", DREAMSHAPER, 8))
    },
    plain("fast", DREAMSHAPER, 25),
    refined(plain("quality", DREAMSHAPER, 40), SD15),
    upscaled(plain("hd", DREAMSHAPER, 40), 2),
    upscaled(refined(plain("max", DREAMSHAPER, 50), SD15), 2),
    upscaled(refined(plain("4k", DREAMSHAPER, 50), SD15), 4),
    refined(plain("ultra", SDXL, 50), SDXL_REFINER),
    upscaled(refined(plain("ultra-hd", SDXL, 50), SDXL_REFINER), 2),
    upscaled(refined(plain("4k-ultra", SDXL, 50), SDXL_REFINER), 4),
    upscaled(refined(plain("photorealistic", REALISTIC_VISION, 45), SD15), 2),
    upscaled(refined(plain("ultra-realistic", DREAMSHAPER, 60), SD15), 2),
    upscaled(refined(plain("cinematic", DREAMSHAPER, 60), SD15), 2),
    plain(PRO, LARGE, 28),
    unguided(plain("sd3.5-turbo", LARGE_TURBO, 8)),
    plain("sd3.5-medium", MEDIUM, 40),
    upscaled(unguided(plain("sd3.5-4k", LARGE_TURBO, 8)), 4),
    plain(DEMO, DEMO, 20),
];

/// The presets that `auto` tries, the best first.
pub const BEST_FIRST: [&str; 8] = [
    PRO,
    "sd3.5-turbo",
    "sd3.5-medium",
    "ultra",
    "photorealistic",
    "quality",
    "fast",
    DEMO,
];

impl Preset {
    /// The preset called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|preset| preset.name == name)
    }

    /// The ids of its models and LoRAs.
    pub fn parts(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.model), self.lora, self.refiner].into_iter().flatten()
    }
}

/// The current id of the repository `id` on the hub.
pub fn moved(id: &str) -> &str {
    match id {
        "runwayml/stable-diffusion-v1-5" => SD15,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_its_row() {
        type Row = (
            &'static str,
            &'static str,
            usize,
            Option<&'static str>,
            Option<usize>,
        );
        let (shaper, sdxl, xl_refiner) = (DREAMSHAPER, SDXL, SDXL_REFINER);
        let rows: [Row; 17] = [
            ("lcm", shaper, 8, None, None),
            ("fast", shaper, 25, None, None),
            ("quality", shaper, 40, Some(SD15), None),
            ("hd", shaper, 40, None, Some(2)),
            ("max", shaper, 50, Some(SD15), Some(2)),
            ("4k", shaper, 50, Some(SD15), Some(4)),
            ("ultra", sdxl, 50, Some(xl_refiner), None),
            ("ultra-hd", sdxl, 50, Some(xl_refiner), Some(2)),
            ("4k-ultra", sdxl, 50, Some(xl_refiner), Some(4)),
            ("photorealistic", REALISTIC_VISION, 45, Some(SD15), Some(2)),
            ("ultra-realistic", shaper, 60, Some(SD15), Some(2)),
            ("cinematic", shaper, 60, Some(SD15), Some(2)),
            ("sd3.5", LARGE, 28, None, None),
            ("sd3.5-turbo", LARGE_TURBO, 8, None, None),
            ("sd3.5-medium", MEDIUM, 40, None, None),
            ("sd3.5-4k", LARGE_TURBO, 8, None, Some(4)),
            ("demo", "demo", 20, None, None),
        ];
        for ((name, model, steps, refiner, upscale), preset) in rows.into_iter().zip(ALL) {
            let found = (
                preset.name,
                preset.model,
                preset.steps,
                preset.refiner,
                preset.upscale,
            );
            assert_eq!(found, (name, model, steps, refiner, upscale));
            assert_eq!(Preset::find(name), Some(&preset));
        }
        let unguided: Vec<&str> = ALL
            .iter()
            .filter(|preset| preset.guidance_scale == Some(1.0))
            .map(|preset| preset.name)
            .collect();
        assert_eq!(unguided, ["lcm", "sd3.5-turbo", "sd3.5-4k"]);
        let lcm = Preset::find("lcm").unwrap();
        assert_eq!((lcm.lora, lcm.sampler), (Some(LCM_LORA), Some(SamplerKind::Lcm)));
        assert_eq!(moved("runwayml/stable-diffusion-v1-5"), SD15);
        assert!(BEST_FIRST.iter().all(|name| Preset::find(name).is_some()));
    }

    #[test]
    fn what_presets_download_is_known() {
        for preset in ALL.iter().filter(|preset| preset.name != DEMO) {
            for id in [Some(preset.model), preset.lora, preset.refiner]
                .into_iter()
                .flatten()
            {
                assert!(Repository::find(id).is_some(), "{id}");
            }
        }
    }
}
