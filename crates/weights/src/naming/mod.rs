//! The names of the same tensors in different programs: one declarative table a network.
//!
//! The networks read tensors under the names of diffusers and transformers. Files of other programs, and LoRA
//! files for them, have other names. A [`Naming`] is a table of those: one row a module or tensor, readable
//! in both directions. [`Translation`] translates the names of one network, whose numbers of blocks it
//! derives from the names themselves.

mod clip;
mod controlnet;
mod esrgan;
mod mmdit;
mod numbering;
mod pattern;
mod row;
mod t5;
mod unet;
mod vae;

use numbering::Numbering;
use pattern::{capture, expand};
use row::Row;

pub use row::Layout;

/// The names of a network's tensors in another program, as a table.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    /// Prefixes that names in the other program may have, in any order.
    prefixes: &'static [&'static str],
    /// The rows. The first that matches counts.
    rows: &'static [&'static [Row]],
}

/// The names of one network in diffusers and in another program.
#[derive(Debug)]
pub struct Translation {
    naming: Naming,
    numbering: Numbering,
}

/// A translated name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// The name.
    pub name: String,
    /// How the other program lays out the values.
    pub layout: Layout,
}

/// The naming that is translated to.
#[derive(Debug, Clone, Copy)]
enum Target {
    Diffusers,
    Other,
}

impl Naming {
    /// UNets in the original code of Stable Diffusion and SDXL.
    #[doc(alias = "LDM")]
    pub const UNET: Self = Self::of_rows(&[unet::DOWN, unet::UP]);
    /// ControlNets for UNets in their original code, after `control_model.`.
    pub const CONTROLNET: Self = Self::of_rows(&[unet::DOWN, controlnet::ROWS]);
    /// Autoencoders in the original code of Stable Diffusion, SDXL and Stable Diffusion 3.
    pub const VAE: Self = Self::of_rows(&[vae::ROWS]);
    /// Autoencoders in early releases of diffusers.
    pub const OLD_DIFFUSERS_VAE: Self = Self::of_rows(&[vae::OLD_DIFFUSERS]);
    /// Text encoders in OpenCLIP.
    pub const OPEN_CLIP: Self = Self::of_rows(&[clip::OPEN_CLIP]);
    /// Text encoders in transformers from release 5.6 on, and in whole CLIP models: without `text_model.`.
    pub const BARE_CLIP: Self = Self::of_rows(&[clip::BARE]);
    /// Text encoders in diffusers' attention processors, which trained LoRA before PEFT did.
    pub const CLIP_PROCESSORS: Self = Self::of_rows(&[clip::PROCESSORS]);
    /// The encoder of T5 in GGUF files.
    #[doc(alias = "llama.cpp")]
    pub const T5_GGUF: Self = Self::of_rows(&[t5::GGUF]);
    /// The transformers of Stable Diffusion 3 and 3.5 in Stability AI's code.
    #[doc(alias = "SD3")]
    pub const MMDIT: Self = Self::of_rows(&[mmdit::ROWS]);
    /// The releases of ESRGAN before Real-ESRGAN.
    pub const ESRGAN: Self = Self {
        prefixes: esrgan::PREFIXES,
        rows: &[esrgan::ROWS],
    };

    /// The namings of CLIP's text encoders.
    pub const ALL_OF_CLIP: &'static [Self] = &[Self::BARE_CLIP, Self::OPEN_CLIP, Self::CLIP_PROCESSORS];

    const fn of_rows(rows: &'static [&'static [Row]]) -> Self {
        Self { prefixes: &[], rows }
    }

    /// The translation of the names of a network, of which `names` are tensors or modules, in either naming.
    pub fn translation<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Translation {
        Translation {
            naming: self,
            numbering: Numbering::of(names),
        }
    }
}

impl Translation {
    /// The name in the other program of the tensor or module `name` of diffusers. None where the table has no
    /// row for it.
    pub fn other_name(&self, name: &str) -> Option<Translated> {
        self.translate(name, Target::Other).into_iter().next()
    }

    /// The name in diffusers of the tensor or module `name` of the other program. The parts of a fused tensor
    /// have one each, in the order of their rows. Empty where the table has no row for it.
    pub fn diffusers_names(&self, name: &str) -> Vec<Translated> {
        self.translate(self.without_prefixes(name), Target::Diffusers)
    }

    /// The name in diffusers of the tensor `name` of the other program, if it is another one and the values
    /// are the same.
    pub(crate) fn renamed(&self, name: &str) -> Option<String> {
        let bare = self.without_prefixes(name);
        let new = match self.diffusers_names(name).as_slice() {
            [
                Translated {
                    name,
                    layout: Layout::Same,
                },
            ] => name.clone(),
            _ => bare.to_owned(),
        };
        (new != name).then_some(new)
    }

    fn without_prefixes<'a>(&self, name: &'a str) -> &'a str {
        let mut bare = name;
        let prefixes = self.naming.prefixes;
        while let Some(rest) = prefixes.iter().find_map(|prefix| bare.strip_prefix(prefix)) {
            bare = rest;
        }
        bare
    }

    fn translate(&self, name: &str, target: Target) -> Vec<Translated> {
        let tables = self.naming.rows.iter();
        tables
            .map(|rows| translate(rows, name, target, &self.numbering))
            .find(|found| !found.is_empty())
            .unwrap_or_default()
    }
}

/// The translations of `name` by `rows`: one, or one for each part of a fused tensor.
fn translate(rows: &[Row], name: &str, target: Target, numbering: &Numbering) -> Vec<Translated> {
    let mut parts = Vec::new();
    for row in rows {
        let found = by_row(row, name, target, numbering);
        match found.first() {
            None => {}
            Some(Translated {
                layout: Layout::Part { .. },
                ..
            }) => parts.extend(found),
            Some(_) if parts.is_empty() => return found,
            Some(_) => {}
        }
    }
    parts
}

fn by_row(row: &Row, name: &str, target: Target, numbering: &Numbering) -> Vec<Translated> {
    let (from, to) = match target {
        Target::Diffusers => (row.other, row.diffusers),
        Target::Other => (row.diffusers, row.other),
    };
    let captured = capture(from, name).filter(|(numbers, rest)| {
        let is_whole = rest.is_empty() || !row.is_tensor;
        is_whole && numbering.admits(numbers)
    });
    let Some((numbers, rest)) = captured else {
        return Vec::new();
    };
    let Some(to) = expand(to, |variable| numbering.number(variable, &numbers)) else {
        return Vec::new();
    };
    if row.inside.is_empty() {
        return vec![Translated {
            name: format!("{to}{rest}"),
            layout: row.layout,
        }];
    }
    let inside = rest.strip_prefix('.').unwrap_or_default();
    let mut found = translate(row.inside, inside, target, numbering);
    for translated in &mut found {
        translated.name = format!("{to}.{}", translated.name);
    }
    found
}
