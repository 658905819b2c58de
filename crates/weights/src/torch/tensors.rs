//! Converts the unpickled objects to tensor headers.

use std::collections::{BTreeMap, HashSet};

use super::archive::Archive;
use super::bad;
use super::value::{Id, Saved, Tensor, Value};
use crate::header::MAXIMUM_TENSORS;
use crate::source::Source;
use crate::{Result, TensorHeader};

/// The keys under which programs save a state dict beside other data, in order of preference: the exponential
/// moving average before the plain weights.
const WRAPPERS: [&str; 5] = ["params_ema", "params", "state_dict", "model", "module"];
/// The maximum depth of nested dicts.
const MAXIMUM_DEPTH: usize = 16;
/// The maximum length of a name.
const MAXIMUM_NAME: usize = 1 << 10;
/// The maximum bytes of all names together. Nested dicts lengthen the names of all tensors in them.
const MAXIMUM_NAMES: usize = 8 << 20;

/// All tensors, by name.
pub(super) fn locate(
    saved: &Saved,
    archive: &Archive,
    source: &Source,
) -> Result<BTreeMap<String, TensorHeader>> {
    let mut finder = Finder {
        values: &saved.values,
        archive,
        source,
        seen: HashSet::new(),
        tensors: BTreeMap::new(),
        names: 0,
    };
    let root = finder.unwrapped(saved.root, 0);
    finder.enter(root, "", 0)?;
    if finder.tensors.is_empty() {
        return Err(bad(source, "it holds no table of tensors"));
    }
    Ok(finder.tensors)
}

struct Finder<'a> {
    values: &'a [Value],
    archive: &'a Archive,
    source: &'a Source,
    /// Dicts that were visited. A dict may contain itself.
    seen: HashSet<Id>,
    tensors: BTreeMap<String, TensorHeader>,
    /// The bytes of all names.
    names: usize,
}

impl Finder<'_> {
    /// The state dict inside the wrappers of `root`, or `root`.
    fn unwrapped(&self, root: Id, depth: usize) -> Id {
        let Value::Dict(pairs) = &self.values[root] else {
            return root;
        };
        let named = |name: &str| {
            pairs
                .iter()
                .find(|(key, value)| {
                    matches!(&self.values[*key], Value::Text(key) if key == name)
                        && matches!(self.values[*value], Value::Dict(_))
                })
                .map(|&(_, value)| value)
        };
        match WRAPPERS.iter().find_map(|name| named(name)) {
            Some(table) if depth < MAXIMUM_DEPTH => self.unwrapped(table, depth + 1),
            Some(table) => table,
            None => root,
        }
    }

    /// Adds the tensors of the dict `id`, with `prefix` before their names.
    fn enter(&mut self, id: Id, prefix: &str, depth: usize) -> Result<()> {
        let values = self.values;
        let Value::Dict(pairs) = &values[id] else {
            return Ok(());
        };
        if depth > MAXIMUM_DEPTH || !self.seen.insert(id) {
            return Ok(());
        }
        for &(key, value) in pairs {
            let key = match &values[key] {
                Value::Text(key) => key.clone(),
                Value::Int(key) => key.to_string(),
                _ => continue,
            };
            if prefix.len() + key.len() > MAXIMUM_NAME {
                return Err(bad(self.source, "it has a name of impossible length"));
            }
            let name = format!("{prefix}{key}");
            match &values[value] {
                Value::Tensor(tensor) => {
                    let header = self.header(&name, tensor)?;
                    self.names += name.len();
                    if self.tensors.len() == MAXIMUM_TENSORS || self.names > MAXIMUM_NAMES {
                        return Err(bad(self.source, "it has more tensors than any network"));
                    }
                    self.tensors.insert(name, header);
                }
                Value::Dict(_) => self.enter(value, &format!("{name}."), depth + 1)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The header of `tensor`, which must lie inside its storage.
    fn header(&self, name: &str, tensor: &Tensor) -> Result<TensorHeader> {
        let damaged = |reason: &str| bad(self.source, format!("tensor `{name}` {reason}"));
        let Tensor {
            storage,
            first,
            shape,
            strides,
        } = tensor;
        if shape.len() != strides.len() {
            return Err(damaged("has a stride too few or too many"));
        }
        // The stride of each dimension of a contiguous tensor, from the last one up.
        let mut count = 1_u64;
        let mut contiguous = true;
        for (&length, &stride) in shape.iter().zip(strides).rev() {
            contiguous &= length <= 1 || stride == count;
            // Empty dimensions count as 1, because other programs multiply sizes in another order.
            let product = count.checked_mul(length.max(1) as u64);
            count = product.ok_or_else(|| damaged("has an impossible shape"))?;
        }
        if shape.contains(&0) {
            count = 0;
        }
        if count > 0 && !contiguous {
            return Err(damaged(
                "was saved as a view that is not contiguous; save it again after `contiguous()`",
            ));
        }
        let place = self
            .archive
            .storage(&storage.key)
            .ok_or_else(|| damaged("lies in a storage that is not there"))?;
        let start = storage.element_type.bytes_of(*first);
        let bytes = storage.element_type.bytes_of(count);
        let inside = start
            .zip(bytes)
            .filter(|(start, bytes)| start.checked_add(*bytes).is_some_and(|end| end <= place.length));
        let (start, bytes) = inside.ok_or_else(|| damaged("ends behind its storage's end"))?;
        Ok(TensorHeader {
            element_type: storage.element_type,
            shape: shape.clone(),
            offset: place.offset + start,
            bytes,
        })
    }
}
