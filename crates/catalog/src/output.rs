//! Where images go: `--output` names a folder, or the files of the images.

use std::path::{Path, PathBuf};

use sd_pipeline::save::{FileNames, ImageFormat, Template};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// The default folder.
const FOLDER: &str = "./outputs";
/// Extensions of images that other programs write.
const OTHER_FORMATS: [&str; 9] = ["gif", "bmp", "tif", "tiff", "avif", "heic", "jxl", "svg", "ppm"];

/// The folder of `settings`, and the names of the files in it. A path that ends in the extension of an image is that of
/// a file, unless it is a folder.
///
/// # Errors
/// The name of a file has an unknown part, or the extension of a format that images are not saved in.
pub(crate) fn of(settings: &Settings) -> Result<(PathBuf, FileNames)> {
    let (folder, names) = named(settings)?;
    let typed = settings.output.clone().unwrap_or_else(|| folder.clone());
    match not_a_folder(&folder, &typed) {
        Some(reason) => Err(Error::Output { path: typed, reason }),
        None => Ok((folder, names)),
    }
}

/// Why `folder`, for which the user has `typed` a path, is no folder and none can be made there, if something else is in
/// its place.
fn not_a_folder(folder: &Path, typed: &Path) -> Option<String> {
    // Without a separator at the end, with which a file would not be found.
    let plain: PathBuf = folder.components().collect();
    let found = plain
        .ancestors()
        .find_map(|path| Some((path, std::fs::metadata(path).ok()?)));
    let (path, metadata) = found.filter(|(_, metadata)| !metadata.is_dir())?;
    let what = match metadata.is_file() {
        true => "a file, not a folder",
        false => "not a folder",
    };
    let typed: PathBuf = typed.components().collect();
    Some(match path == typed {
        true => format!("it is {what}"),
        false => format!("`{}` is {what}", path.display()),
    })
}

/// The folder and the names, whatever is there.
fn named(settings: &Settings) -> Result<(PathBuf, FileNames)> {
    let path = settings.output.as_deref().unwrap_or(Path::new(FOLDER));
    let refused = |reason: String| Error::Output {
        path: path.to_owned(),
        reason,
    };
    let names = FileNames {
        replaces: settings.overwrite,
        ..FileNames::default()
    };
    let ends_as_folder = path
        .as_os_str()
        .to_string_lossy()
        .ends_with(std::path::is_separator);
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().into_owned());
    let (Some(extension), false) = (extension, ends_as_folder || path.is_dir()) else {
        return Ok((path.to_owned(), names));
    };
    let Some(format) = ImageFormat::of_extension(&extension) else {
        if OTHER_FORMATS.contains(&extension.to_ascii_lowercase().as_str()) {
            return Err(refused("images are saved as .png, .jpg or .webp".to_owned()));
        }
        return Ok((path.to_owned(), names));
    };
    let format = match (format, settings.jpeg_quality) {
        (ImageFormat::Jpeg { .. }, Some(quality)) => ImageFormat::Jpeg { quality },
        (other, _) => other,
    };
    let stem = path.file_stem().unwrap_or_default();
    let Some(stem) = stem.to_str() else {
        return Err(refused("the name is no Unicode".to_owned()));
    };
    let template: Template = stem.parse().map_err(|error| refused(format!("{error}")))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    // Only names are made for each image.
    if let Ok(template) = parent.to_string_lossy().parse::<Template>()
        && template.has_parts()
    {
        return Err(refused(
            "only the name of the file has parts like {date}, not its folder".to_owned(),
        ));
    }
    let names = FileNames {
        template: Some(template),
        format,
        extension: (extension != format.extension()).then_some(extension),
        ..names
    };
    Ok((parent.to_owned(), names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(output: &str) -> Result<(PathBuf, FileNames)> {
        super::of(&Settings {
            output: Some(output.into()),
            ..Settings::default()
        })
    }

    #[test]
    fn an_extension_makes_a_file() {
        for (output, folder, template, extension) in [
            ("cat.png", ".", Some("cat"), "png"),
            ("a/b/cat.v2.JPG", "a/b", Some("cat.v2"), "JPG"),
            ("out_%03d.webp", ".", Some("out_%03d"), "webp"),
            ("renders", "renders", None, "png"),
            ("renders.d", "renders.d", None, "png"),
            ("cat.png/", "cat.png/", None, "png"),
            (".png", ".png", None, "png"),
        ] {
            let (found, names) = named(output).unwrap();
            assert_eq!(found, Path::new(folder), "{output}");
            assert_eq!(
                names.template.map(|template| template.to_string()).as_deref(),
                template
            );
            assert_eq!(
                names.extension.as_deref().unwrap_or(names.format.extension()),
                extension
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("a.png");
        std::fs::create_dir(&taken).unwrap();
        assert_eq!(named(taken.to_str().unwrap()).unwrap().0, taken);
        for output in [
            "cat.gif",
            "cat.TIFF",
            "{sed}.png",
            "{date}/cat.png",
            "%03d/cat.png",
        ] {
            assert!(named(output).is_err(), "{output}");
        }
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.png");
        std::fs::write(&file, "").unwrap();
        let file = file.to_str().unwrap();
        let refusal = |output: &str| named(output).unwrap_err().to_string();
        assert!(named(file).is_ok());
        assert!(refusal(&format!("{file}/")).ends_with("it is a file, not a folder"));
        for below in ["b", "b.png", "b/c/d.png"] {
            let reason = refusal(&format!("{file}/{below}"));
            assert!(
                reason.ends_with(&format!("`{file}` is a file, not a folder")),
                "{reason}"
            );
        }
        #[cfg(unix)]
        assert!(refusal("/dev/null").ends_with("it is not a folder"));
    }

    #[test]
    fn jpegs_have_a_quality() {
        let format = |output: &str| {
            let settings = Settings {
                output: Some(output.into()),
                jpeg_quality: Some(80),
                ..Settings::default()
            };
            of(&settings).unwrap().1.format
        };
        assert_eq!(format("a.jpg"), ImageFormat::Jpeg { quality: 80 });
        assert_eq!(format("a.webp"), ImageFormat::WebP);
        assert_eq!(format("folder"), ImageFormat::Png);
    }
}
