//! Whether numbers are still numbers, so that no black picture is saved.

use candle_core::{DType, Tensor};

use crate::bundle::Bundle;
use crate::{Error, Result};

/// Refuses a tensor that holds a value that is not finite. The weights of `component` are then searched for
/// the one to blame.
pub(super) fn check(tensor: &Tensor, stage: &str, bundle: &Bundle, component: &str) -> Result<()> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let culprit = bundle.checkpoint(component)?.first_non_finite()?;
    Err(Error::NotFinite {
        stage: stage.to_owned(),
        culprit,
    })
}
