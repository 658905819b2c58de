//! The tensors of one network, in one file or in shards: headers are held, tensors are read by name.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Tensor};
use half::{bf16, f16};

use crate::buffer_pool::{BufferPool, Elements};
use crate::combine::combine;
use crate::naming::{Layout, Naming, Translated};
use crate::requested::RequestedTensors;
use crate::similar_name::similar;
use crate::source::Source;
use crate::stored::{HeldRows, Stored};
use crate::weight_update::{TensorUpdates, WeightUpdate};
use crate::{ElementType, Error, FileIdentity, GgufMetadata, Result, TensorHeader, gguf, safetensors, torch};

/// The headers of the tensors of a network. No weight is in memory.
#[doc(alias = "state_dict")]
#[derive(Debug, Clone)]
pub struct Checkpoint {
    place: PathBuf,
    /// Shared by all copies: a network has hundreds of tensors, and a run copies its checkpoint dozens of times.
    tensors: Arc<BTreeMap<String, Stored>>,
    /// The updates that are added to tensors while they are read.
    updates: Option<Arc<dyn TensorUpdates>>,
    /// The list of requested tensors, of a checkpoint without a file.
    requested: Option<RequestedTensors>,
    /// The metadata of a GGUF file.
    gguf: Option<Arc<GgufMetadata>>,
}

/// The tensor headers of a file, whose format is recognised by magic bytes.
pub(crate) fn headers(source: &Arc<Source>) -> Result<BTreeMap<String, TensorHeader>> {
    if gguf::wrote(source)? {
        gguf::read(source).map(|contents| contents.tensors)
    } else if torch::wrote(source)? {
        torch::read(source)
    } else {
        safetensors::read(source)
    }
}

impl Checkpoint {
    /// Opens the file at `path`, in safetensors, GGUF or PyTorch format (`.pth`, `.ckpt`, `.bin`). No code of
    /// a pickle runs.
    ///
    /// # Errors
    /// The file is missing, damaged or of another format, or its pickle refers to anything but tensors
    /// ([`Error::ForbiddenGlobal`]).
    pub fn open_file(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open(Arc::new(Source::open(path.into())?))
    }

    pub(crate) fn open(source: Arc<Source>) -> Result<Self> {
        let stored = |headers: BTreeMap<String, TensorHeader>| {
            let stored = |(name, header)| (name, Stored::new(header, source.clone()));
            headers.into_iter().map(stored).collect()
        };
        let place = source.path().to_owned();
        if gguf::wrote(&source)? {
            let gguf::Contents { tensors, metadata } = gguf::read(&source)?;
            return Ok(Self {
                gguf: Some(Arc::new(metadata)),
                ..Self::of_tensors(place, stored(tensors))
            });
        }
        Ok(Self::of_tensors(place, combine(stored(headers(&source)?))?))
    }

    /// The metadata of a GGUF file. `None` for other formats.
    pub fn gguf_metadata(&self) -> Option<&GgufMetadata> {
        self.gguf.as_deref()
    }

    /// The checkpoint at `place`, the file or the folder of the shards, that consists of `tensors`.
    pub(crate) fn of_tensors(place: PathBuf, tensors: BTreeMap<String, Stored>) -> Self {
        Self {
            place,
            tensors: Arc::new(tensors),
            updates: None,
            requested: None,
            gguf: None,
        }
    }

    /// A checkpoint without a file, which has every tensor that a network requests, in the requested shape,
    /// and adds it to `requested`. It has no values: networks can be created from it, but not run.
    pub fn requesting(requested: &RequestedTensors) -> Self {
        Self {
            requested: Some(requested.clone()),
            ..Self::of_tensors(PathBuf::new(), BTreeMap::new())
        }
    }

    /// The same tensors, to which `updates` are added while they are read.
    pub(crate) fn with_updates(&self, updates: Arc<dyn TensorUpdates>) -> Self {
        Self {
            updates: Some(updates),
            ..self.clone()
        }
    }

    /// The same tensors under the names that `rename` returns. Tensors for which it returns `None` keep their
    /// names.
    pub(crate) fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let tensors = self.tensors.iter().map(|(name, stored)| match rename(name) {
            Some(new) => {
                let saved_as = stored.saved_as.clone().or_else(|| Some(name.clone()));
                (
                    new,
                    Stored {
                        saved_as,
                        ..stored.clone()
                    },
                )
            }
            None => (name.clone(), stored.clone()),
        });
        Self {
            tensors: Arc::new(tensors.collect()),
            ..self.clone()
        }
    }

    /// The tensors for which `select` returns a name, under that name.
    pub(crate) fn selected(&self, select: impl Fn(&str) -> Option<String>) -> Self {
        let tensors = self.tensors.iter().filter_map(|(name, stored)| {
            let saved_as = stored.saved_as.clone().or_else(|| Some(name.clone()));
            let stored = Stored {
                saved_as,
                ..stored.clone()
            };
            Some((select(name)?, stored))
        });
        Self {
            tensors: Arc::new(tensors.collect()),
            ..self.clone()
        }
    }

    /// The tensors of a whole network under the names of diffusers, where `naming` has other names for them,
    /// and in the order of diffusers. A fused tensor becomes its parts.
    ///
    /// # Errors
    /// The shape of a tensor does not have the form that its name says.
    pub(crate) fn translated(&self, naming: Naming) -> Result<Self> {
        let translation = naming.translation(self.tensors.keys().map(String::as_str));
        let mut tensors = BTreeMap::new();
        for (name, stored) in self.tensors.iter() {
            let translated = translation.diffusers_names(name);
            if translated.is_empty() {
                tensors.insert(name.clone(), stored.clone());
            }
            for Translated { name: new, layout } in translated {
                let laid_out = stored.laid_out(layout).ok_or_else(|| Error::UnfitForm {
                    file: stored.source.path().to_owned(),
                    tensor: stored.saved_as(name),
                    wanted: layout,
                    found: stored.header.shape.as_slice().into(),
                })?;
                let saved_as = laid_out.saved_as.clone().or_else(|| Some(name.clone()));
                tensors.insert(new, Stored { saved_as, ..laid_out });
            }
        }
        Ok(Self {
            tensors: Arc::new(tensors),
            ..self.clone()
        })
    }

    /// The same tensors, where convolutions with a kernel of one pixel for which `is_linear` holds have the
    /// shape of matrices.
    pub(crate) fn with_matrices(mut self, is_linear: impl Fn(&str) -> bool) -> Self {
        for (name, stored) in Arc::make_mut(&mut self.tensors) {
            if let &[outputs, inputs, 1, ..] = stored.header.shape.as_slice()
                && stored.header.shape[2..].iter().all(|&size| size == 1)
                && is_linear(name)
            {
                stored.header.shape = vec![outputs, inputs];
            }
        }
        self
    }

    /// The same tensors, and the identity matrix under `name`, with the columns and the data type of the
    /// tensor `like`.
    pub(crate) fn with_identity(mut self, name: &str, like: &str) -> Self {
        if let Some(like) = self.tensors.get(like) {
            let identity = like.identity();
            Arc::make_mut(&mut self.tensors).insert(name.to_owned(), identity);
        }
        self
    }

    /// The texts that a file holds beside its tensors. Empty where the format has none, and for shards.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn metadata(&self) -> Result<BTreeMap<String, String>> {
        if let Some(gguf) = &self.gguf {
            let texts = gguf.all_texts();
            return Ok(texts
                .map(|(key, text)| (key.to_owned(), text.to_owned()))
                .collect());
        }
        let mut sources = self.sources();
        match (sources.next(), sources.next()) {
            (Some(source), None) if !torch::wrote(source)? => safetensors::metadata(source),
            _ => Ok(BTreeMap::new()),
        }
    }

    /// The names of all tensors in their files. A fused tensor has its name once for each of its parts.
    pub(crate) fn saved_names(&self) -> impl Iterator<Item = &str> {
        self.tensors
            .iter()
            .map(|(name, stored)| stored.saved_as.as_deref().unwrap_or(name))
    }

    /// Fills `values` with the values from `first` on of the tensor `name` as another program lays it out.
    pub(crate) fn fill_laid_out(
        &self,
        name: &str,
        layout: Layout,
        first: usize,
        values: &mut [f32],
    ) -> Result<()> {
        let stored = self.stored(name)?;
        let laid_out = stored.laid_out(layout).ok_or_else(|| Error::UnfitForm {
            file: stored.source.path().to_owned(),
            tensor: stored.saved_as(name),
            wanted: layout,
            found: stored.header.shape.as_slice().into(),
        })?;
        laid_out.fill(values, first, |value| value)
    }

    /// The file, or the folder of the shards.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The identities of the files, which are open, with their paths.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn identity(&self) -> Result<Vec<FileIdentity>> {
        let identity = |source: &Source| FileIdentity::of_source(&source.path().to_string_lossy(), source);
        self.sources().map(identity).collect()
    }

    /// The names and headers of all tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorHeader)> {
        self.tensors
            .iter()
            .map(|(name, stored)| (name.as_str(), &stored.header))
    }

    /// The header of the tensor `name`, if there is one.
    pub fn header(&self, name: &str) -> Option<&TensorHeader> {
        self.tensors.get(name).map(|stored| &stored.header)
    }

    /// Checks that there is a tensor `name` of the shape `wanted` in a floating-point type. Dimensions of a
    /// single element may be missing or added: a projection is a convolution with a kernel of one pixel in
    /// some programs, and ggml drops leading dimensions.
    ///
    /// # Errors
    /// The tensor is missing, or has another shape or type.
    pub(crate) fn check(&self, name: &str, wanted: &[usize]) -> Result<()> {
        if let Some(requested) = &self.requested {
            requested.add(name, wanted);
            return Ok(());
        }
        let stored = self.stored(name)?;
        stored.default_type(name)?;
        let found = &stored.header.shape;
        let longer = |shape: &[usize]| {
            shape
                .iter()
                .copied()
                .filter(|&size| size != 1)
                .collect::<Vec<_>>()
        };
        if found != wanted && longer(found) != longer(wanted) {
            return Err(Error::WrongShape {
                file: stored.source.path().to_owned(),
                tensor: stored.saved_as(name),
                wanted: wanted.into(),
                found: found.as_slice().into(),
            });
        }
        Ok(())
    }

    /// The bytes of all tensors as stored.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(Stored::bytes).sum()
    }

    /// The data type of most of the bytes, or `None` for a file without tensors.
    pub fn main_type(&self) -> Option<ElementType> {
        let mut bytes: Vec<(ElementType, u64)> = Vec::new();
        for Stored { header, .. } in self.tensors.values() {
            match bytes
                .iter_mut()
                .find(|(element_type, _)| *element_type == header.element_type)
            {
                Some((_, sum)) => *sum += header.bytes,
                None => bytes.push((header.element_type, header.bytes)),
            }
        }
        bytes
            .into_iter()
            .max_by_key(|&(_, sum)| sum)
            .map(|(element_type, _)| element_type)
    }

    /// The file and the name of the first tensor with a value that is not finite. This reads every weight, a
    /// few megabytes at a time, to explain a failure.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn first_non_finite(&self) -> Result<Option<(PathBuf, String)>> {
        for (name, stored) in self.tensors.iter() {
            if !stored.is_finite()? {
                return Ok(Some((stored.source.path().to_owned(), name.clone())));
            }
        }
        Ok(None)
    }

    /// Reads the tensor `name` into host memory, as `held_type` or in the type of the file. The tensor takes
    /// one of `buffers`, to which it must be returned after use, or memory of its own.
    pub(crate) fn read(
        &self,
        name: &str,
        held_type: Option<DType>,
        buffers: Option<&BufferPool>,
    ) -> Result<Tensor> {
        let stored = self.stored(name)?;
        let default_type = stored.default_type(name)?;
        let held_type = held_type.unwrap_or(default_type);
        let count = stored.header.shape.iter().product();
        let elements = match buffers {
            Some(buffers) => buffers.take(held_type, count),
            None => Elements::zeros(held_type, count),
        };
        let mut elements = elements.ok_or_else(|| stored.unsupported(name, stored.header.element_type))?;
        let update = self.update(name)?;
        let part = stored.part(0, update.as_ref());
        match &mut elements {
            Elements::F32(values) => part.fill(values, |value| value)?,
            Elements::F16(values) => part.fill(values, f16::from_f32)?,
            Elements::Bf16(values) => part.fill(values, bf16::from_f32)?,
            Elements::Bytes(_) => return Err(stored.unsupported(name, stored.header.element_type)),
        }
        let tensor = elements.into_tensor(&stored.header.shape)?;
        if let Some(buffers) = buffers {
            buffers.track(&tensor);
        }
        Ok(tensor)
    }

    /// The form in which the rows of the tensor `name` can be held quantised. `None` for a tensor that is missing,
    /// is no quantised matrix, or has an update.
    pub(crate) fn held_rows(&self, name: &str) -> Option<HeldRows> {
        let updated = |updates: &Arc<dyn TensorUpdates>| updates.updates(name);
        if self.updates.as_ref().is_some_and(updated) {
            return None;
        }
        self.tensors.get(name)?.held_rows()
    }

    /// The values of the largest tensor with a `wanted` name whose rows can be held quantised.
    pub(crate) fn largest_held_rows(&self, wanted: impl Fn(&str) -> bool) -> usize {
        let mut largest = 0;
        for (name, stored) in self.tensors.iter() {
            let values = stored.header.shape.iter().product();
            // A plan asks for many networks: most tensors are smaller than one before, which is known the soonest.
            if values > largest && wanted(name) && self.held_rows(name).is_some() {
                largest = values;
            }
        }
        largest
    }

    /// Reads the rows of the tensor `name` into host memory, `[rows, bytes of a row]`, as
    /// [`Checkpoint::held_rows`] says. The tensor takes one of `buffers`, as for [`Checkpoint::read`].
    pub(crate) fn read_held_rows(&self, name: &str, buffers: &BufferPool) -> Result<Tensor> {
        let stored = self.stored(name)?;
        let unsupported = || stored.unsupported(name, stored.header.element_type);
        let held = self.held_rows(name).ok_or_else(unsupported)?;
        let Some(Elements::Bytes(mut bytes)) = buffers.take(DType::U8, held.bytes()) else {
            return Err(unsupported());
        };
        stored.fill_rows(0, &mut bytes)?;
        let tensor = Elements::Bytes(bytes).into_tensor(&[held.rows, held.row_bytes])?;
        buffers.track(&tensor);
        Ok(tensor)
    }

    /// The update that is added to the tensor `name` while it is read.
    pub(crate) fn update(&self, name: &str) -> Result<Option<WeightUpdate>> {
        match &self.updates {
            Some(updates) => updates.update(name),
            None => Ok(None),
        }
    }

    /// Fills `values` with the values of the tensor `name`, which must have as many.
    pub(crate) fn read_floats(&self, name: &str, values: &mut [f32]) -> Result<()> {
        let stored = self.stored(name)?;
        stored.default_type(name)?;
        stored.fill(values, 0, |value| value)
    }

    /// Refuses the tensor `name` unless its type is a supported floating-point type.
    pub(crate) fn check_floats(&self, name: &str) -> Result<()> {
        self.stored(name)?.default_type(name).map(drop)
    }

    /// Whether every value of the tensor `name` is finite. The tensor is read a stretch at a time.
    pub(crate) fn is_finite(&self, name: &str) -> Result<bool> {
        let stored = self.stored(name)?;
        stored.default_type(name)?;
        stored.is_finite()
    }

    /// The first value of the tensor `name`, of any numeric type.
    pub(crate) fn read_number(&self, name: &str) -> Result<f32> {
        let stored = self.stored(name)?;
        match stored.header.element_type {
            ElementType::I64 => stored.first(|bytes| i64::from_le_bytes(bytes) as f32),
            ElementType::I32 => stored.first(|bytes| i32::from_le_bytes(bytes) as f32),
            _ => {
                let mut value = [0.0];
                self.read_floats(name, &mut value)?;
                Ok(value[0])
            }
        }
    }

    /// Refuses files that were modified since they were opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.sources().try_for_each(|source| source.check_unchanged())?;
        self.updates
            .as_ref()
            .map_or(Ok(()), |updates| updates.check_unchanged())
    }

    /// Drops the tensors of these names from the page cache.
    pub(crate) fn forget(&self, names: &[String]) {
        for stored in names.iter().filter_map(|name| self.tensors.get(name)) {
            stored.source.forget(stored.header.offset, stored.header.bytes);
        }
    }

    /// The files, each once.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let mut seen: Vec<*const Source> = Vec::new();
        let sources = self.tensors.values().flat_map(Stored::sources);
        sources.filter(move |source| {
            let address = std::ptr::from_ref(*source);
            let is_new = !seen.contains(&address);
            if is_new {
                seen.push(address);
            }
            is_new
        })
    }

    /// The names and headers of the tensors whose names begin with `prefix`, sorted by name.
    pub(crate) fn tensors_below<'c>(
        &'c self,
        prefix: &'c str,
    ) -> impl Iterator<Item = (&'c str, &'c TensorHeader)> {
        // All others with the prefix follow it at once.
        let from = self
            .tensors
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, stored)| (name.as_str(), &stored.header))
    }

    /// Reads the given rows of the tensor `name`, in the given order. A row is a run of the last dimension.
    pub(crate) fn read_rows(&self, name: &str, rows: &[usize]) -> Result<Tensor> {
        let stored = self.stored(name)?;
        let default_type = stored.default_type(name)?;
        let update = self.update(name)?;
        let part = |first| stored.part(first, update.as_ref());
        match default_type {
            // An updated tensor is wider than the stored one.
            _ if update.is_some() => {
                stored.rows(name, rows, |first, to| part(first).fill(to, |value: f32| value))
            }
            DType::F16 => stored.rows(name, rows, |first, to| part(first).fill(to, f16::from_f32)),
            DType::BF16 => stored.rows(name, rows, |first, to| part(first).fill(to, bf16::from_f32)),
            _ => stored.rows(name, rows, |first, to| part(first).fill(to, |value: f32| value)),
        }
    }

    /// The place of the tensor `name` in its file.
    pub(crate) fn stored(&self, name: &str) -> Result<&Stored> {
        self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            file: self.place.clone(),
            tensor: name.to_owned(),
            similar: similar(name, self.tensors.keys()).map(str::to_owned),
        })
    }
}
