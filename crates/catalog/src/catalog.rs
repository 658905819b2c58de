//! [`Catalog`]: resolves names to local files, cached repositories and the hub.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sd_hub::{Cache, Hub, Reference};
use sd_pipeline::bundle::{FileKind, Kind};
use sd_pipeline::{ModelFiles, Planner};

use crate::configuration::Configuration;
use crate::demo;
use crate::error::{Error, Result};
use crate::local::{first_missing, is_complete, local_path, only_file, with_ending};
use crate::lora::scaled;
use crate::models_path::ModelsPath;
use crate::names::reference;
use crate::presets::DEMO;
use crate::settings::Settings;
use crate::similar::similar;
use crate::wanted::Wanted;

/// The location of a named thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Built into the program.
    BuiltIn,
    /// Completely at this local path.
    Here(PathBuf),
    /// On the hub, and not or only partly cached.
    OnHub(Reference),
}

/// Resolves the names of models, ControlNets, LoRA files and upscalers: local files first, then the files of
/// other programs below the user's `models_path`, then the hub's cache, then the hub.
#[derive(Debug)]
pub struct Catalog {
    pub(crate) hub: Hub,
    models_path: ModelsPath,
    /// If others send the names: those of the user's configuration, which are resolved beside those of
    /// [`Catalog::names`]. Nothing else is.
    own_names: Option<BTreeSet<String>>,
    /// If given, the only models that are resolved.
    only_models: Option<Vec<String>>,
    /// Plans runs, to find the best preset that fits.
    pub(crate) planner: Planner,
}

impl Catalog {
    /// The catalog of the current user with this `configuration`. Nothing is read or requested yet.
    pub fn new(configuration: &Configuration) -> Self {
        Self {
            hub: Hub::new(sd_hub::Settings::of_user()),
            models_path: ModelsPath::new(configuration.models_path.clone()),
            own_names: None,
            only_models: None,
            planner: Planner::default(),
        }
    }

    /// Plans runs with what `planner` keeps.
    #[must_use]
    pub fn planning_with(self, planner: Planner) -> Self {
        Self { planner, ..self }
    }

    /// The catalog for names that others send: it resolves those of [`Catalog::names`] and of the `configuration`, and no
    /// paths; and of models only those of `models`, if they are given. These, and those of the configuration, may be paths.
    #[must_use]
    pub fn for_others(self, configuration: &Configuration, models: Option<Vec<String>>) -> Self {
        let settings = configuration.presets.values().chain([&configuration.defaults]);
        Self {
            own_names: Some(settings.flat_map(names_of).collect()),
            only_models: models,
            ..self
        }
    }

    /// The files of other programs.
    pub fn models_path(&self) -> &ModelsPath {
        &self.models_path
    }

    /// The cache of the hub.
    pub fn cache(&self) -> &Cache {
        self.hub.cache()
    }

    /// Whether the hub may not be used.
    pub fn is_offline(&self) -> bool {
        self.hub.settings().offline
    }

    /// The location of the `kind` of thing that the user calls `name`.
    ///
    /// # Errors
    /// The name is neither a local path, nor that of a file below `models_path`, nor a hub id; it is that of
    /// several files; or its files are not of this kind.
    pub fn locate(&self, kind: Kind, name: &str) -> Result<Location> {
        if !self.may_resolve(kind, name) {
            return Err(self.nothing_at(kind, name));
        }
        if kind == Kind::Model && name == DEMO {
            return Ok(Location::BuiltIn);
        }
        let with_ending = with_ending(name);
        if kind == Kind::Lora && !Path::new(name).is_file() && with_ending.is_file() {
            return Ok(Location::Here(with_ending));
        }
        if let Some(path) = local_path(name) {
            return Ok(Location::Here(usable(kind, name, path)?));
        }
        if let Some(path) = self.models_path.find(kind.into(), name)? {
            return Ok(Location::Here(usable(kind, name, path.to_owned())?));
        }
        let Some(reference) = reference(name) else {
            return Err(self.nothing_at(kind, name));
        };
        match self
            .cached(&reference)
            .filter(|path| is_complete(path, &reference, Some(kind)))
        {
            Some(path) => Ok(Location::Here(usable(kind, name, path)?)),
            None => Ok(Location::OnHub(reference)),
        }
    }

    /// Whether a name is resolved at all.
    fn may_resolve(&self, kind: Kind, name: &str) -> bool {
        match (&self.only_models, kind) {
            (Some(models), Kind::Model) => models.iter().any(|own| own == name),
            _ => self.is_known_to_others(name) || self.names(kind).iter().any(|own| own == name),
        }
    }

    /// Whether a name that may be a path is resolved as one.
    fn is_known_to_others(&self, name: &str) -> bool {
        self.own_names.as_ref().is_none_or(|own| own.contains(name))
    }

    fn nothing_at(&self, kind: Kind, name: &str) -> Error {
        let known = self.names(kind);
        Error::NothingAt {
            kind,
            name: name.to_owned(),
            similar: similar(name, known.iter().map(String::as_str)).map(str::to_owned),
        }
    }

    /// The names by which things on this machine that may be of `kind` are found.
    pub fn names(&self, kind: Kind) -> Vec<String> {
        if let (Some(models), Kind::Model) = (&self.only_models, kind) {
            return models.clone();
        }
        let file_kind = FileKind::from(kind);
        let files = self.models_path.files().iter();
        let files = files.filter(|file| file.kind.is_none_or(|own| own == file_kind));
        let files = files.map(|file| self.models_path.name_of(file_kind, file));
        let cached = self.cache().repositories().into_iter();
        let cached = cached.map(|repository| repository.id.to_string());
        let built_in = (kind == Kind::Model).then(|| DEMO.to_owned());
        built_in.into_iter().chain(files).chain(cached).collect()
    }

    /// The files of the model that the user calls `name`, which must be on this machine.
    ///
    /// # Errors
    /// It is not, or the name cannot be resolved.
    pub fn local_model(&self, name: &str) -> Result<ModelFiles> {
        Ok(match self.locate(Kind::Model, name)? {
            Location::BuiltIn => demo::model().files,
            Location::Here(path) => self.model_at(path),
            Location::OnHub(reference) => self.model_at(self.path_in_cache(Kind::Model, name, &reference)?),
        })
    }

    /// The model at `path`. Networks that it lacks are looked for below `models_path`.
    pub fn model_at(&self, path: PathBuf) -> ModelFiles {
        let mut files = ModelFiles::at(path);
        files.search = self.models_path.roots().to_vec();
        files
    }

    /// The file or folder of a single network or an embedding of `kind` that is called `name`: a path, a file below
    /// `models_path`, or a repository in the cache. A name that is none of these is returned as a path, unless others
    /// have sent it.
    ///
    /// # Errors
    /// The name is that of several files, or a folder of `models_path` is missing; or others have sent it, and there is
    /// nothing.
    pub(crate) fn network(&self, kind: FileKind, name: &Path) -> Result<PathBuf> {
        let path = sd_files::native(name);
        let Some(text) = name.to_str() else {
            return Ok(path);
        };
        if self.is_known_to_others(text) && path.exists() {
            return Ok(path);
        }
        if let Some(found) = self.models_path.find(kind, text)? {
            return Ok(found.to_owned());
        }
        let cached = reference(text).and_then(|reference| self.cached(&reference));
        match cached {
            Some(cached) => Ok(cached),
            None if self.is_known_to_others(text) => Ok(path),
            None => Err(Error::NoNetwork {
                kind,
                name: text.to_owned(),
            }),
        }
    }

    /// The cached path of what `reference` names on the hub and the user calls `name`.
    ///
    /// # Errors
    /// It is not cached, or only in part: a download is not finished.
    pub(crate) fn path_in_cache(&self, kind: Kind, name: &str, reference: &Reference) -> Result<PathBuf> {
        let Some(path) = self.cached(reference) else {
            return Err(Error::NotInstalled {
                kind,
                reference: reference.clone(),
            });
        };
        match first_missing(&path, Some(kind)).filter(|_| reference.file.is_none()) {
            Some(lacking) => Err(Error::PartlyInstalled {
                kind,
                reference: reference.clone(),
                lacking,
            }),
            None => usable(kind, name, path),
        }
    }

    /// Whether what is `wanted` is on this machine.
    pub fn has(&self, wanted: &Wanted) -> bool {
        self.is_cached(&wanted.reference, wanted.kind)
    }

    /// Whether all used files of `reference` are cached. Without a `kind` its files show what it is used as.
    pub(crate) fn is_cached(&self, reference: &Reference, kind: Option<Kind>) -> bool {
        self.cached(reference)
            .is_some_and(|path| is_complete(&path, reference, kind))
    }

    /// The cached folder of `reference`, or its file.
    pub(crate) fn cached(&self, reference: &Reference) -> Option<PathBuf> {
        cached_in(self.cache(), reference)
    }
}

/// The names of files and models in `settings`.
fn names_of(settings: &Settings) -> Vec<String> {
    let names = [&settings.model, &settings.refiner, &settings.upscaler];
    let names = names.into_iter().flatten().cloned();
    let networks = [&settings.vae, &settings.clip_l, &settings.clip_g, &settings.t5xxl];
    let paths = networks.into_iter().flatten().chain(&settings.embedding);
    let paths = paths.filter_map(|path| path.to_str().map(str::to_owned));
    let loras = settings.lora.iter().map(|lora| scaled(lora).name.to_owned());
    let controlnets = settings.controlnet.iter().cloned();
    names.chain(paths).chain(loras).chain(controlnets).collect()
}

fn cached_in(cache: &Cache, reference: &Reference) -> Option<PathBuf> {
    let folder = cache.locate(&reference.id, reference.revision())?;
    match &reference.file {
        Some(file) => Some(sd_files::below(&folder, file)).filter(|file| file.is_file()),
        None => Some(folder),
    }
}

/// The path to open for what is at `path`: a folder or a file for models and ControlNets, a file for the
/// others.
fn usable(kind: Kind, name: &str, path: PathBuf) -> Result<PathBuf> {
    match kind {
        Kind::Model => Ok(path),
        // The last component is needed, and `.` has none.
        Kind::ControlNet => Ok(std::path::absolute(&path).unwrap_or(path)),
        Kind::Lora | Kind::Upscaler if path.is_file() => Ok(path),
        Kind::Lora | Kind::Upscaler => only_file(kind, name, &path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn others_name_no_paths() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (own, other) = (file("own.safetensors"), file("other.safetensors"));
        let mut configuration = Configuration::default();
        configuration.defaults.vae = Some(own.clone().into());
        configuration.defaults.lora = vec![format!("{own}:0.5")];
        let catalog = Catalog::new(&configuration);
        assert!(catalog.network(FileKind::Vae, Path::new(&other)).is_ok());
        let catalog = catalog.for_others(&configuration, None);
        assert_eq!(
            catalog.network(FileKind::Vae, Path::new(&own)).unwrap(),
            Path::new(&own)
        );
        assert!(catalog.locate(Kind::Lora, &own).is_ok());
        for name in [other.as_str(), "/etc/passwd", "../../etc/passwd", "nothing"] {
            for kind in [FileKind::Vae, FileKind::Embedding] {
                let refused = catalog.network(kind, Path::new(name));
                assert!(matches!(refused, Err(Error::NoNetwork { .. })), "{name}");
            }
            for kind in [Kind::Model, Kind::Lora, Kind::ControlNet, Kind::Upscaler] {
                let refused = catalog.locate(kind, name);
                assert!(matches!(refused, Err(Error::NothingAt { .. })), "{name}");
            }
        }
    }

    #[test]
    fn a_file_is_found_in_its_repository() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let repository = folder.path().join("models--me--mine");
        let locate = |name: &str| cached_in(&cache, &reference(name).unwrap());
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), "abc\n").unwrap();
        assert_eq!(locate("me/mine"), None);
        let snapshot = repository.join("snapshots/abc");
        fs::create_dir_all(snapshot.join("nets")).unwrap();
        fs::write(snapshot.join("nets/x4.pth"), "").unwrap();
        assert_eq!(locate("me/mine"), Some(snapshot.clone()));
        assert_eq!(locate("me/mine:nets/x4.pth"), Some(snapshot.join("nets/x4.pth")));
        assert_eq!(locate("me/mine:nets"), None);
    }
}
