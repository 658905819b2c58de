//! Quantised tensors that a file stores as several: the bytes, their scales and descriptions become one tensor
//! of the true shape.
//!
//! Descriptions are read here, which are a few bytes each. Scales are read when a tensor is decoded.

mod bitsandbytes;
mod comfy;
mod quanto;
mod unsupported;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::quantized::{Form, Scaled, Sidecar};
use crate::source::Source;
use crate::stored::Stored;
use crate::{ElementType, Error, Result, TensorHeader};

/// The maximum length of the description of a tensor, which is JSON.
const MAXIMUM_DESCRIPTION: u64 = 64 << 10;

/// The tensors of a network, in which each quantised weight is a single tensor under its own name.
///
/// # Errors
/// A weight is quantised in a form that is not supported ([`Error::QuantizedTensor`]), or its scales do not fit
/// it ([`Error::BadQuantization`]).
pub(crate) fn combine(tensors: BTreeMap<String, Stored>) -> Result<BTreeMap<String, Stored>> {
    let mut set = TensorSet { tensors };
    unsupported::check(&set)?;
    bitsandbytes::combine(&mut set)?;
    comfy::combine(&mut set)?;
    quanto::combine(&mut set)?;
    Ok(set.tensors)
}

/// Tensors by name, while some of them are combined.
struct TensorSet {
    tensors: BTreeMap<String, Stored>,
}

impl TensorSet {
    fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    fn element_type(&self, name: &str) -> Option<ElementType> {
        self.get(name).map(|stored| stored.header.element_type)
    }

    /// What is before `suffix` in all names that end with it.
    fn before(&self, suffix: &str) -> Vec<String> {
        let names = self.tensors.keys().filter_map(|name| name.strip_suffix(suffix));
        names.map(str::to_owned).collect()
    }

    /// The tensor `name` as one beside another.
    fn sidecar(&self, name: &str) -> Option<Sidecar> {
        self.get(name).map(|stored| Sidecar {
            header: stored.header.clone(),
            source: stored.source.clone(),
        })
    }

    /// The tensor `name` beside `weight`, of `count` floats.
    fn floats(&self, weight: &str, name: &str, count: usize) -> Result<Sidecar> {
        let found = self.sidecar(name);
        let found = found.ok_or_else(|| self.bad(weight, format!("it has no `{name}`")))?;
        if found.count() != count || !found.has_floats() {
            let TensorHeader {
                element_type, shape, ..
            } = &found.header;
            let reason = format!("`{name}` has the shape {shape:?} of {element_type}, not {count} floats");
            return Err(self.bad(weight, reason));
        }
        Ok(found)
    }

    /// The JSON in the tensor `name`, which describes `weight`.
    fn description<T: DeserializeOwned>(&self, weight: &str, name: &str) -> Result<T> {
        let bad = |reason: String| self.bad(weight, format!("`{name}` {reason}"));
        let found = self.get(name).ok_or_else(|| bad("is missing".to_owned()))?;
        if found.header.bytes > MAXIMUM_DESCRIPTION {
            return Err(bad(format!("has {} bytes, too many", found.header.bytes)));
        }
        let mut json = vec![0; found.header.bytes as usize];
        found.source.read_at(found.header.offset, &mut json)?;
        serde_json::from_slice(&json).map_err(|error| bad(format!("cannot be understood ({error})")))
    }

    /// 8-bit numbers in `data` with the floats `scales`: one, or one for each row.
    fn scaled(&self, data: &str, scales: &str) -> Result<Scaled> {
        let shape = self
            .get(data)
            .map(|stored| stored.header.shape.clone())
            .unwrap_or_default();
        let (rows, count) = (
            shape.first().copied().unwrap_or(1),
            shape.iter().product::<usize>(),
        );
        let found = self
            .get(scales)
            .map(|stored| stored.header.shape.iter().product());
        let (wanted, shared_by) = match found {
            Some(1) => (1, count),
            _ => (rows, count / rows.max(1)),
        };
        Ok(Scaled {
            scales: self.floats(data, scales, wanted)?,
            shared_by: shared_by.max(1),
            factor: None,
            rotated: None,
        })
    }

    /// Replaces the bytes in `data` by the tensor `name` of this type and shape.
    fn replace(
        &mut self,
        data: &str,
        name: String,
        element_type: ElementType,
        shape: Vec<usize>,
        form: Form,
    ) {
        let Some(stored) = self.tensors.remove(data) else {
            return;
        };
        let header = TensorHeader {
            element_type,
            shape,
            ..stored.header
        };
        let saved_as = stored
            .saved_as
            .or_else(|| (data != name).then(|| data.to_owned()));
        let combined = Stored {
            saved_as,
            ..Stored::quantized(header, stored.source, form)
        };
        self.tensors.insert(name, combined);
    }

    fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// The files, each once.
    fn sources(&self) -> Vec<&Arc<Source>> {
        let mut sources: Vec<&Arc<Source>> = Vec::new();
        for Stored { source, .. } in self.tensors.values() {
            if !sources.iter().any(|known| Arc::ptr_eq(known, source)) {
                sources.push(source);
            }
        }
        sources
    }

    fn bad(&self, weight: &str, reason: impl Into<String>) -> Error {
        Error::BadQuantization {
            file: self.file(weight),
            tensor: weight.to_owned(),
            reason: reason.into(),
        }
    }

    fn unsupported(&self, weight: &str, method: impl Into<String>) -> Error {
        Error::QuantizedTensor {
            file: self.file(weight),
            tensor: weight.to_owned(),
            method: method.into(),
        }
    }

    /// The file of a tensor.
    fn file(&self, name: &str) -> std::path::PathBuf {
        let stored = self.get(name).or_else(|| self.tensors.values().next());
        stored
            .map(|stored| stored.source.path().to_owned())
            .unwrap_or_default()
    }
}
