//! [`HeaderCache`]: a source of a model whose headers are read once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{ModelFile, ModelSource, SourcePart, TokenizerFiles};
use crate::lock::lock;
use crate::{Checkpoint, FileIdentity, Result};

/// A source of a model that opens each checkpoint once and keeps it open. A run asks for the checkpoints of its
/// networks dozens of times, and the header of a UNet takes milliseconds to parse.
///
/// It is made for a single plan or run: files that are changed or replaced later are not opened again. A network
/// whose file is written to while it is open is refused as it is without this cache, before it is used.
#[derive(Debug)]
pub struct HeaderCache {
    source: Arc<dyn ModelSource>,
    checkpoints: Mutex<BTreeMap<String, Checkpoint>>,
}

impl HeaderCache {
    /// The same model as `source`. Nothing is opened yet.
    pub fn new(source: Arc<dyn ModelSource>) -> Self {
        Self {
            source,
            checkpoints: Mutex::default(),
        }
    }
}

impl ModelSource for HeaderCache {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn is_embedded(&self) -> bool {
        self.source.is_embedded()
    }

    fn exists(&self) -> bool {
        self.source.exists()
    }

    fn has_config(&self, component: &str) -> bool {
        self.source.has_config(component)
    }

    fn config(&self, component: &str) -> Result<ModelFile> {
        self.source.config(component)
    }

    fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        // Locked while a header is read, so that two threads do not both read it.
        let mut checkpoints = lock(&self.checkpoints);
        if let Some(checkpoint) = checkpoints.get(component) {
            return Ok(checkpoint.clone());
        }
        let checkpoint = self.source.checkpoint(component)?;
        checkpoints.insert(component.to_owned(), checkpoint.clone());
        Ok(checkpoint)
    }

    fn tokenizer(&self, component: &str) -> Result<TokenizerFiles> {
        self.source.tokenizer(component)
    }

    fn vocabulary_bytes(&self, component: &str) -> u64 {
        self.source.vocabulary_bytes(component)
    }

    fn identity(&self, part: SourcePart<'_>) -> Result<Vec<FileIdentity>> {
        self.source.identity(part)
    }

    fn known_sha256(&self, component: &str) -> Option<String> {
        self.source.known_sha256(component)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::SystemTime;

    use super::*;
    use crate::{Error, ModelFolder, Residency, WeightOptions, WeightType, Weights};

    /// A model with one network of a single tensor of `values`.
    fn write(folder: &Path, values: &[f32]) {
        let header = format!(
            r#"{{"gain":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}}}}"#,
            values.len(),
            4 * values.len()
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(bytemuck::cast_slice(values));
        let new = folder.join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, folder.join("network/model.safetensors")).unwrap();
    }

    fn opened() -> (tempfile::TempDir, HeaderCache) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("network")).unwrap();
        write(folder.path(), &[1.0, 2.0]);
        let source = HeaderCache::new(Arc::new(ModelFolder::on_disk(folder.path())));
        (folder, source)
    }

    #[test]
    fn a_file_that_is_replaced_stays_the_one_that_was_opened() {
        let (folder, source) = opened();
        source.checkpoint("network").unwrap();
        write(folder.path(), &[3.0, 4.0, 5.0]);
        let mut values = [0.0; 2];
        let checkpoint = source.checkpoint("network").unwrap();
        checkpoint.read_floats("gain", &mut values).unwrap();
        assert_eq!(values, [1.0, 2.0]);
    }

    #[test]
    fn a_file_that_is_written_to_is_refused() {
        let (folder, source) = opened();
        source.checkpoint("network").unwrap();
        let file = File::options()
            .write(true)
            .open(folder.path().join("network/model.safetensors"));
        file.unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let options = WeightOptions::new(
            candle_core::Device::Cpu,
            WeightType::AsStored,
            Residency::Resident,
        );
        let weights = Weights::new(source.checkpoint("network").unwrap(), options);
        assert!(matches!(weights.check_unchanged(), Err(Error::Changed { .. })));
    }

    #[test]
    fn what_was_missing_is_looked_for_again() {
        let (folder, source) = opened();
        assert!(source.checkpoint("other").is_err());
        fs::rename(folder.path().join("network"), folder.path().join("other")).unwrap();
        source.checkpoint("other").unwrap();
    }
}
