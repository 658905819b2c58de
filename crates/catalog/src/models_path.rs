//! [`ModelsPath`]: the folders in which other programs keep their models, as ComfyUI and stable-diffusion-webui
//! sort them.
//!
//! A file is found by its name or by its path in the folder of its kind, with or without its ending. Files are
//! used where they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sd_pipeline::bundle::FileKind;

use crate::error::{Error, Result};
use crate::presets::DEMO;

/// The folders of each kind below a root: those of ComfyUI, then those of stable-diffusion-webui.
const FOLDERS: [(&str, FileKind); 17] = [
    ("checkpoints", FileKind::Model),
    ("diffusion_models", FileKind::Model),
    ("unet", FileKind::Model),
    ("diffusers", FileKind::Model),
    ("vae", FileKind::Vae),
    ("text_encoders", FileKind::TextEncoder),
    ("clip", FileKind::TextEncoder),
    ("loras", FileKind::Lora),
    ("controlnet", FileKind::ControlNet),
    ("upscale_models", FileKind::Upscaler),
    ("embeddings", FileKind::Embedding),
    ("Stable-diffusion", FileKind::Model),
    ("VAE", FileKind::Vae),
    ("Lora", FileKind::Lora),
    ("ControlNet", FileKind::ControlNet),
    ("ESRGAN", FileKind::Upscaler),
    ("RealESRGAN", FileKind::Upscaler),
];
/// The folder beside the `models` of stable-diffusion-webui.
const EMBEDDINGS: &str = "embeddings";
/// The endings of files with weights.
const ENDINGS: [&str; 7] = ["safetensors", "sft", "gguf", "ckpt", "pt", "pth", "bin"];

/// The folders of other programs' models. Nothing is read before a name is looked up.
#[derive(Debug, Default)]
pub struct ModelsPath {
    roots: Vec<PathBuf>,
    files: OnceLock<Vec<KeptFile>>,
}

/// A file or folder that another program keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// What the folder that it is in is for. None for a file that is directly in a root.
    pub kind: Option<FileKind>,
    /// Its path.
    pub path: PathBuf,
    /// The root that it is below.
    pub root: PathBuf,
    /// Its path in the folder of its kind, with `/` as separator.
    relative: String,
    /// Whether it is a folder of networks, as diffusers has them.
    is_folder: bool,
}

impl ModelsPath {
    /// The models below `roots`.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self {
            roots,
            files: OnceLock::new(),
        }
    }

    /// The folders.
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// The roots that are no folders.
    pub fn missing_roots(&self) -> impl Iterator<Item = &Path> {
        self.roots
            .iter()
            .map(PathBuf::as_path)
            .filter(|root| !root.is_dir())
    }

    /// The file or folder of `kind` that is called `name`. An exact path in the folder of the kind precedes one
    /// without its ending, and both precede the name of a file in a sub-folder.
    ///
    /// # Errors
    /// Several are called so, or a root is no folder.
    pub(crate) fn find(&self, kind: FileKind, name: &str) -> Result<Option<&Path>> {
        if let Some(root) = self.missing_roots().next() {
            return Err(Error::NoModelsFolder {
                folder: root.to_owned(),
            });
        }
        // On Windows a name may be typed with either separator.
        let name = sd_files::portable(name);
        let of_kind = || self.files().iter().filter(|file| file.is_for(kind));
        for depth in 0..4 {
            let mut called: Vec<&KeptFile> = of_kind().filter(|file| file.names()[depth] == name).collect();
            let mut seen = BTreeSet::new();
            // Two links may lead to one file.
            called.retain(|file| seen.insert(file.path.canonicalize().unwrap_or_else(|_| file.path.clone())));
            match called.as_slice() {
                [] => {}
                [file] => return Ok(Some(&file.path)),
                several => {
                    let files = several.iter().map(|file| self.full_name(kind, file)).collect();
                    return Err(Error::SeveralKept { name, files });
                }
            }
        }
        Ok(None)
    }

    /// All files and folders, by root and kind.
    pub fn files(&self) -> &[KeptFile] {
        self.files.get_or_init(|| {
            let mut seen = BTreeSet::new();
            let mut files = Vec::new();
            for root in &self.roots {
                for (folder, kind) in folders(root) {
                    // `vae` and `VAE` are one folder on some disks, and roots may be inside each other.
                    if folder.canonicalize().is_ok_and(|real| seen.insert(real)) {
                        files.extend(below(root, &folder, kind));
                    }
                }
                if root.canonicalize().is_ok_and(|real| seen.insert(real)) {
                    files.extend(directly_in(root));
                }
            }
            files
        })
    }

    /// The shortest name by which an option for `kind` finds `file`.
    pub fn name_of(&self, kind: FileKind, file: &KeptFile) -> String {
        let [path, without_ending, name, stem] = file.names();
        let found = [stem, name, without_ending, path].into_iter().find(|name| {
            let is_built_in = kind == FileKind::Model && *name == DEMO;
            !is_built_in && matches!(self.find(kind, name), Ok(Some(path)) if path == file.path)
        });
        found.map_or_else(|| file.path.to_string_lossy().into_owned(), str::to_owned)
    }

    /// The name of `file` with its ending and as many of its folders as tell it from others.
    fn full_name(&self, kind: FileKind, file: &KeptFile) -> String {
        let others = self
            .files()
            .iter()
            .filter(|other| other.is_for(kind) && other.relative == file.relative);
        match others.count() {
            1 => file.relative.clone(),
            _ => file.path.to_string_lossy().into_owned(),
        }
    }
}

impl KeptFile {
    /// Whether it may be of `kind`.
    fn is_for(&self, kind: FileKind) -> bool {
        self.kind.is_none_or(|own| own == kind)
    }

    /// Its path in the folder of its kind, with and without its ending, then its name, with and without it.
    fn names(&self) -> [&str; 4] {
        let path = self.relative.as_str();
        let name = path.rsplit('/').next().unwrap_or(path);
        let without_ending = |name: &'_ str| match name.rsplit_once('.') {
            Some((stem, _)) if !self.is_folder => stem.len(),
            _ => name.len(),
        };
        [
            path,
            &path[..without_ending(path)],
            name,
            &name[..without_ending(name)],
        ]
    }
}

/// The folders of kinds that are below `root`.
fn folders(root: &Path) -> Vec<(PathBuf, FileKind)> {
    let mut folders: Vec<_> = FOLDERS
        .iter()
        .map(|(name, kind)| (root.join(name), *kind))
        .collect();
    if let (Some(parent), true) = (root.parent(), root.ends_with("models")) {
        folders.push((parent.join(EMBEDDINGS), FileKind::Embedding));
    }
    folders.retain(|(folder, _)| folder.is_dir());
    folders
}

/// The files that show that a folder is to be used as a whole as `kind`.
fn marks(kind: FileKind) -> &'static [&'static str] {
    match kind {
        FileKind::Model => &["model_index.json", "unet/config.json", "transformer/config.json"],
        FileKind::ControlNet | FileKind::Vae | FileKind::TextEncoder => &["config.json"],
        FileKind::Lora | FileKind::Upscaler | FileKind::Embedding => &[],
    }
}

/// What is below `folder`, which is for `kind`.
fn below(root: &Path, folder: &Path, kind: FileKind) -> Vec<KeptFile> {
    let paths = paths_below(folder);
    let marked = |path: &String| -> Option<String> {
        let above = |mark: &&str| path.strip_suffix(*mark)?.strip_suffix('/').map(str::to_owned);
        marks(kind).iter().find_map(above)
    };
    let wholes: BTreeSet<String> = paths.iter().filter_map(marked).collect();
    let is_part = |path: &str| {
        path.match_indices('/')
            .any(|(end, _)| wholes.contains(&path[..end]))
    };
    let found = |relative: &str, is_folder: bool| KeptFile {
        kind: Some(kind),
        path: sd_files::below(folder, relative),
        root: root.to_owned(),
        relative: relative.to_owned(),
        is_folder,
    };
    let wholes_found = wholes.iter().filter(|whole| !is_part(whole));
    let wholes_found = wholes_found.map(|whole| found(whole, true));
    let files = paths.iter().filter(|path| has_weights(path) && !is_part(path));
    let mut all: Vec<KeptFile> = wholes_found.chain(files.map(|path| found(path, false))).collect();
    all.sort_by(|one, other| one.relative.cmp(&other.relative));
    all
}

/// The files with weights directly in `root`.
fn directly_in(root: &Path) -> Vec<KeptFile> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| has_weights(name) && root.join(name).is_file())
        .collect();
    names.sort();
    let file = |name: String| KeptFile {
        kind: None,
        path: root.join(&name),
        root: root.to_owned(),
        relative: name,
        is_folder: false,
    };
    names.into_iter().map(file).collect()
}

/// The paths of the files below `folder`. Links to files count as files. Links to folders are followed once:
/// models are often kept on another disk. Hidden files and folders are left out.
fn paths_below(folder: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for found in sd_files::walk(folder) {
        let path = sd_files::below(folder, &found.path);
        if found.is_link && path.is_dir() {
            let inside = sd_files::walk(&path).into_iter();
            let files = inside.filter(|inner| !inner.is_link || path.join(&inner.path).is_file());
            paths.extend(files.map(|inner| format!("{}/{}", found.path, inner.path)));
        } else if !found.is_link || path.is_file() {
            paths.push(found.path);
        }
    }
    paths.retain(|path| path.split('/').all(|part| !part.starts_with('.')));
    paths
}

/// Whether the name of a file has the ending of weights.
fn has_weights(name: &str) -> bool {
    let ending = name
        .rsplit_once('.')
        .map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn files_are_found_by_name_and_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("ComfyUI/models");
        tree(
            &root,
            &[
                "checkpoints/film.safetensors",
                "checkpoints/xl/other.safetensors",
                "checkpoints/xl/film.safetensors",
                "checkpoints/put_checkpoints_here",
                "loras/film.safetensors",
                "loras/a/twice.safetensors",
                "loras/b/twice.pt",
                "loras/.cache/hidden.safetensors",
                "loose.gguf",
            ],
        );
        let models = ModelsPath::new(vec![root.clone()]);
        let find = |kind, name: &str| {
            let found = models.find(kind, name).unwrap();
            found.map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
        };
        for (name, found) in [
            ("film", Some("checkpoints/film.safetensors")),
            ("film.safetensors", Some("checkpoints/film.safetensors")),
            ("xl/film", Some("checkpoints/xl/film.safetensors")),
            ("other", Some("checkpoints/xl/other.safetensors")),
            ("other.safetensors", Some("checkpoints/xl/other.safetensors")),
            ("xl", None),
            ("put_checkpoints_here", None),
            ("twice", None),
            ("loose", Some("loose.gguf")),
        ] {
            assert_eq!(find(FileKind::Model, name).as_deref(), found, "{name}");
        }
        assert_eq!(find(FileKind::Lora, "hidden"), None);
        assert_eq!(
            find(FileKind::Lora, "film").as_deref(),
            Some("loras/film.safetensors")
        );
        assert_eq!(
            find(FileKind::Lora, "twice.pt").as_deref(),
            Some("loras/b/twice.pt")
        );
        match models.find(FileKind::Lora, "twice") {
            Err(Error::SeveralKept { files, .. }) => {
                assert_eq!(files, ["a/twice.safetensors", "b/twice.pt"]);
            }
            other => panic!("{other:?}"),
        }
        let names: Vec<String> = models
            .files()
            .iter()
            .map(|file| models.name_of(file.kind.unwrap_or(FileKind::Model), file))
            .collect();
        assert_eq!(
            names,
            [
                "film",
                "xl/film",
                "other",
                "twice.safetensors",
                "twice.pt",
                "film",
                "loose"
            ]
        );
    }

    #[test]
    fn folders_of_diffusers_count_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("models");
        tree(
            &root,
            &[
                "diffusers/mine/model_index.json",
                "diffusers/mine/unet/config.json",
                "diffusers/mine/unet/model.safetensors",
                "ControlNet/depth-1.5/config.json",
                "ControlNet/depth-1.5/diffusion_pytorch_model.safetensors",
                "../embeddings/easy.pt",
            ],
        );
        let models = ModelsPath::new(vec![root.clone(), root.join("diffusers/..")]);
        let files: Vec<_> = models
            .files()
            .iter()
            .map(|file| (file.kind, file.relative.as_str(), file.is_folder))
            .collect();
        assert_eq!(
            files,
            [
                (Some(FileKind::Model), "mine", true),
                (Some(FileKind::ControlNet), "depth-1.5", true),
                (Some(FileKind::Embedding), "easy.pt", false),
            ]
        );
        let depth = models.find(FileKind::ControlNet, "depth-1.5").unwrap();
        assert_eq!(depth, Some(root.join("ControlNet/depth-1.5").as_path()));
    }

    #[test]
    fn a_root_that_is_no_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("nowhere");
        let models = ModelsPath::new(vec![folder.path().to_owned(), root.clone()]);
        match models.find(FileKind::Vae, "any") {
            Err(Error::NoModelsFolder { folder }) => assert_eq!(folder, root),
            other => panic!("{other:?}"),
        }
        assert_eq!(models.missing_roots().collect::<Vec<_>>(), [root.as_path()]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("models");
        tree(
            folder.path(),
            &["disk/film.safetensors", "models/loras/own.safetensors"],
        );
        std::os::unix::fs::symlink(folder.path().join("disk"), root.join("loras/disk")).unwrap();
        std::os::unix::fs::symlink(&root, root.join("loras/again")).unwrap();
        std::os::unix::fs::symlink(
            folder.path().join("disk/film.safetensors"),
            root.join("loras/film.safetensors"),
        )
        .unwrap();
        let models = ModelsPath::new(vec![root.clone()]);
        assert_eq!(
            models.find(FileKind::Lora, "film").unwrap(),
            Some(root.join("loras/film.safetensors").as_path())
        );
        let own = models.find(FileKind::Lora, "own").unwrap();
        assert_eq!(own, Some(root.join("loras/own.safetensors").as_path()));
    }
}
