//! Checks for values that are not finite, before an image is saved, and the search for their cause.

use candle_core::{DType, Tensor};
use sd_weights::Checkpoint;

use crate::culprit::{AddedLora, Culprit};
use crate::request::LoraChoice;
use crate::{Error, Result, device};

/// Refuses `values` of `stage` that are not all finite, so that no black image is saved. `culprit` then
/// searches for the cause.
///
/// # Errors
/// A value is not finite, or the device or `culprit` failed.
pub(crate) fn check(
    values: &Tensor,
    stage: &str,
    culprit: impl FnOnce() -> Result<Option<Culprit>>,
) -> Result<()> {
    device::finish(values.device())?;
    let values = values.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    drop(values);
    Err(Error::NotFinite {
        stage: stage.to_owned(),
        culprit: culprit()?,
    })
}

/// The first tensor in `files` that holds a value that is not finite. Every weight is read.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn damaged_tensor(files: impl IntoIterator<Item = Result<Checkpoint>>) -> Result<Option<Culprit>> {
    for checkpoint in files {
        if let Some((file, tensor)) = checkpoint?.first_non_finite()? {
            return Ok(Some(Culprit::Tensor { file, tensor }));
        }
    }
    Ok(None)
}

/// The LoRA files of `choices` with an effect: the cause if the weights that they are added to are finite.
pub(crate) fn added_loras<'a>(choices: impl IntoIterator<Item = &'a LoraChoice>) -> Option<Culprit> {
    let added: Vec<AddedLora> = choices
        .into_iter()
        .filter(|choice| choice.scale != 0.0 || choice.text_scale != 0.0)
        .map(|choice| AddedLora {
            name: choice.name.clone(),
            scale: choice.scale,
            text_scale: choice.text_scale,
        })
        .collect();
    (!added.is_empty()).then_some(Culprit::Loras(added))
}
