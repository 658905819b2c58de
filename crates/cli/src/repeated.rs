//! Notices that the same command was just drawn: without a seed it gives the same image again.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use sd_pipeline::save::FileNames;
use sd_pipeline::{ModelFiles, Request, SavedImage};
use serde_json::{Value, json};

/// The file that remembers the last request, below the user's cache.
const FILE: &str = "last-request.json";

/// What is known of the last request.
pub(crate) struct LastRequest {
    file: Option<PathBuf>,
    /// A number that equal requests share.
    number: u64,
}

impl LastRequest {
    /// The memory of requests like `request`. Where it is saved does not matter.
    pub(crate) fn new(request: &Request) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut drawn = Request {
            output: PathBuf::new(),
            file_names: FileNames::default(),
            ..request.clone()
        };
        // The files of the built-in model are too long to be written out.
        let named = &request.model.files;
        let mut files = ModelFiles::at(named.path());
        files.networks = named.networks.clone();
        files.prediction = named.prediction;
        drawn.model.files = files;
        format!("{drawn:?}").hash(&mut hasher);
        Self {
            file: request.user_dirs.cache.as_ref().map(|cache| cache.join(FILE)),
            number: hasher.finish(),
        }
    }

    /// The image of the last request, if that was the same and the image still exists.
    pub(crate) fn image(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.file.as_ref()?).ok()?;
        let last: Value = serde_json::from_str(&text).ok()?;
        let is_same = last["request"].as_u64() == Some(self.number);
        let image = PathBuf::from(last["image"].as_str()?);
        (is_same && image.exists()).then_some(image)
    }

    /// Remembers that `image` was drawn. Without a cache nothing is remembered, and nothing depends on it.
    pub(crate) fn remember(&self, image: &SavedImage) {
        let Some((file, folder)) = self.file.as_ref().and_then(|file| Some((file, file.parent()?))) else {
            return;
        };
        let path = std::path::absolute(&image.image).unwrap_or_else(|_| image.image.clone());
        // JSON has no other names.
        let Some(path) = path.to_str() else {
            return;
        };
        let text = json!({ "request": self.number, "image": path }).to_string();
        if let Err(error) = write(file, folder, &text) {
            tracing::debug!("the last request is not remembered: {error}");
        }
    }
}

fn write(file: &Path, folder: &Path, text: &str) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}
