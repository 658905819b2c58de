//! The images that come with a request: decoded, or moved from the uploads, into the folder of the job.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sd_catalog::{ControlImage, Inputs as CatalogInputs};
use sd_pipeline::{InitImage, Strength};

use super::{ImageField, Invalid, JobRequest};

/// What an image of a request begins with where it names an uploaded file.
const UPLOAD: &str = "upload:";

/// The images of a job, in a folder of their own.
#[derive(Debug)]
pub(crate) struct Inputs {
    folder: PathBuf,
}

/// Why the images of a request cannot be stored.
#[derive(Debug)]
pub(crate) enum InputError {
    /// One of them is wrong.
    Invalid(Invalid),
    /// The disk fails.
    Disk(PathBuf, io::Error),
}

impl Inputs {
    /// The images in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the images of `request` into the folder, which then says of each only that it is there. Uploaded files,
    /// which are in `uploads`, are linked.
    ///
    /// # Errors
    /// An image is no base64 or names no upload, or the disk fails.
    pub(crate) fn store(&self, request: &mut JobRequest, uploads: &Path) -> Result<(), InputError> {
        let images = request.images();
        if images.is_empty() {
            return Ok(());
        }
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |error| InputError::Disk(path, error)
        };
        fs::create_dir_all(&self.folder).map_err(disk(&self.folder))?;
        for (name, field, image) in images {
            let file = self.folder.join(name);
            let invalid = |reason: &str| {
                InputError::Invalid(Invalid {
                    field,
                    reason: reason.to_owned(),
                })
            };
            let ImageField::Sent(text) = image else {
                return Err(invalid("it is neither base64 nor the name of an upload"));
            };
            match text.strip_prefix(UPLOAD) {
                Some(id) => {
                    let id = super::JobId::parse(id).ok_or_else(|| invalid("there is no such upload"))?;
                    match fs::copy(uploads.join(id.as_str()), &file) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            return Err(invalid("there is no such upload"));
                        }
                        copied => copied.map(drop).map_err(disk(&file))?,
                    }
                }
                None => {
                    let bytes = decoded(text).ok_or_else(|| invalid("it is no base64"))?;
                    fs::write(&file, bytes).map_err(disk(&file))?;
                }
            }
            *image = ImageField::Stored(true);
        }
        Ok(())
    }

    /// What `request` is resolved with.
    pub(crate) fn of(&self, request: &JobRequest) -> CatalogInputs {
        let init = request.init_image.as_ref().map(|_| InitImage {
            image: self.folder.join("init_image"),
            mask: request.mask.as_ref().map(|_| self.folder.join("mask")),
            strength: request.strength.map(Strength),
        });
        let control_images = request.control.iter().enumerate();
        let control_images = control_images.map(|(index, control)| ControlImage {
            kind: control.kind,
            image: self.folder.join(format!("control-{index}")),
        });
        CatalogInputs {
            prompt: request.prompt.clone(),
            init,
            control_images: control_images.collect(),
        }
    }
}

/// The bytes of base64, with or without the beginning of a data URL.
pub(crate) fn decoded(text: &str) -> Option<Vec<u8>> {
    let text = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,")?.1,
        None => text,
    };
    let bytes = STANDARD.decode(text.trim()).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_become_files() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = folder.path().join("uploads");
        fs::create_dir(&uploads).unwrap();
        let id = super::super::JobId::random().unwrap();
        fs::write(uploads.join(id.as_str()), b"mask").unwrap();
        let mut request = JobRequest {
            init_image: Some(ImageField::Sent("data:image/png;base64,aW1hZ2U=".to_owned())),
            mask: Some(ImageField::Sent(format!("upload:{id}"))),
            strength: Some(0.5),
            ..JobRequest::default()
        };
        let inputs = Inputs::new(folder.path().join("job"));
        inputs.store(&mut request, &uploads).unwrap();
        assert_eq!(request.init_image, Some(ImageField::Stored(true)));
        let init = inputs.of(&request).init.unwrap();
        assert_eq!(fs::read(init.image).unwrap(), b"image");
        assert_eq!(fs::read(init.mask.unwrap()).unwrap(), b"mask");
        assert_eq!(init.strength, Some(Strength(0.5)));
    }

    #[test]
    fn nothing_else_becomes_one() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "",
            "!",
            "upload:../../etc/passwd",
            "upload:",
            "/etc/passwd",
            "data:image/png,plain",
        ] {
            let mut request = JobRequest {
                init_image: Some(ImageField::Sent(text.to_owned())),
                ..JobRequest::default()
            };
            let stored = Inputs::new(folder.path().join("job")).store(&mut request, folder.path());
            assert!(matches!(stored, Err(InputError::Invalid(_))), "{text}");
        }
    }
}
