//! The cause of values that are not finite, as the error names it.

use std::fmt;
use std::path::PathBuf;

/// The cause of values that are not finite.
#[derive(Debug, Clone, PartialEq)]
pub enum Culprit {
    /// A tensor of a model file holds such values.
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// The model's own weights are finite, and these LoRA files are added to them.
    Loras(Vec<AddedLora>),
}

/// A LoRA file that is added to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct AddedLora {
    /// The name that the user gave it.
    pub name: String,
    /// Its scale in the denoising network.
    pub scale: f64,
    /// Its scale in the text encoders.
    pub text_scale: f64,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { file, tensor } => {
                write!(f, "tensor `{tensor}` in `{}` holds such values", file.display())
            }
            Self::Loras(added) => {
                f.write_str("the model's own weights are finite, and ")?;
                for (index, lora) in added.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{lora}")?;
                }
                let are = if added.len() == 1 { "is" } else { "are" };
                write!(f, " {are} added to them")
            }
        }
    }
}

impl fmt::Display for AddedLora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the LoRA `{}` at a scale of {}", self.name, short(self.scale))?;
        if self.text_scale != self.scale {
            write!(f, " (text encoders: {})", short(self.text_scale))?;
        }
        Ok(())
    }
}

/// A number in few digits, however large.
fn short(number: f64) -> String {
    if number == 0.0 || (1e-4..1e6).contains(&number.abs()) {
        number.to_string()
    } else {
        format!("{number:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loras_are_named_with_their_scales() {
        let lora = |name: &str, scale: f64, text_scale: f64| AddedLora {
            name: name.to_owned(),
            scale,
            text_scale,
        };
        assert_eq!(
            Culprit::Loras(vec![lora("a", 1e300, 1e300), lora("b", 0.5, 0.0)]).to_string(),
            "the model's own weights are finite, and the LoRA `a` at a scale of 1e300, \
             the LoRA `b` at a scale of 0.5 (text encoders: 0) are added to them"
        );
    }
}
