//! The names of the image files of a run: those that the program gives, or those of the user's template.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::bare_name::bare_name;
use super::encode::ImageFormat;
use crate::resume::RunName;
use crate::seed::Seeds;

/// How the image files of a run are named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileNames {
    /// The user's template; by default names are `output_YYYY-MM-DD_HH-MM-SS_001`.
    pub template: Option<Template>,
    /// The format of the files.
    #[serde(default)]
    pub format: ImageFormat,
    /// Their extension, if it is not the usual one of the format: `jpeg`.
    #[serde(default)]
    pub extension: Option<String>,
    /// Whether existing files are replaced, rather than another name taken.
    #[serde(default)]
    pub replaces: bool,
    /// Which images of a request these are, if others generate the rest of them.
    #[serde(default)]
    pub part: Option<ImagesPart>,
}

/// Some consecutive images of a request, which others complete. They have the file names that they would have in a run of
/// all images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagesPart {
    /// The number of each, which makes its file name.
    pub numbers: Vec<usize>,
    /// How many images the request has.
    pub of: usize,
}

impl FileNames {
    /// A seed that two of `images` with `seeds` have, if the second would replace the first for that reason.
    pub fn seed_of_same_name(&self, seeds: &Seeds, images: usize) -> Option<u64> {
        let Template(parts) = self.template.as_ref().filter(|_| self.replaces)?;
        let is_number = |part: &Part| matches!(part, Part::Number { .. });
        // Consecutive seeds differ, and without a seed the names are numbered.
        let (true, false, Seeds::Each(_)) = (parts.contains(&Part::Seed), parts.iter().any(is_number), seeds)
        else {
            return None;
        };
        let mut seen = HashSet::new();
        (0..images)
            .map(|image| seeds.of(image))
            .find(|&seed| !seen.insert(seed))
    }
}

/// A file name without its extension, in which parts are filled in for each image: `{date}`, `{time}`, `{seed}`,
/// `{model}`, and the number of the file, `{number}` or as printf writes it, `%03d`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// The number of the file, with at least so many digits.
    Number {
        digits: usize,
        text: String,
    },
    Date,
    Time,
    Seed,
    Model,
}

/// The parts in braces.
const BRACED: [(&str, Part); 4] = [
    ("{date}", Part::Date),
    ("{time}", Part::Time),
    ("{seed}", Part::Seed),
    ("{model}", Part::Model),
];
/// Digits of the number, if the template does not say.
const DIGITS: usize = 3;
/// Most digits of a number.
const MOST_DIGITS: usize = 9;
/// Most numbers that are tried to recognise a file.
const MOST_NUMBERS: usize = 100_000;

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// A part in braces is unknown.
    #[error(
        "`{0}` is no part of file names: they are {{date}}, {{time}}, {{seed}}, {{model}} and {{number}}"
    )]
    Unknown(String),
    /// A number has too many digits.
    #[error("`{0}` has too many digits: at most {MOST_DIGITS}")]
    Digits(String),
}

impl FromStr for Template {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let (part, length) = match letter {
                '{' => braced(rest)?,
                '%' => printf(rest)?,
                _ => None,
            }
            .unwrap_or_else(|| (Part::Literal(letter.to_string()), letter.len_utf8()));
            match (parts.last_mut(), part) {
                (Some(Part::Literal(before)), Part::Literal(letter)) => before.push_str(&letter),
                (_, part) => parts.push(part),
            }
            rest = &rest[length..];
        }
        Ok(Self(parts))
    }
}

impl Template {
    /// Whether anything is filled in.
    pub fn has_parts(&self) -> bool {
        self.0.iter().any(|part| !matches!(part, Part::Literal(_)))
    }
}

/// The part in braces at the beginning of `text`, and its length.
fn braced(text: &str) -> Result<Option<(Part, usize)>, BadTemplate> {
    let Some(end) = text.find('}') else {
        return Ok(None);
    };
    let word = &text[..=end];
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    if !word[1..end].chars().all(is_name) || end == 1 {
        return Ok(None);
    }
    if word == "{number}" {
        let number = Part::Number {
            digits: DIGITS,
            text: word.to_owned(),
        };
        return Ok(Some((number, word.len())));
    }
    let known = BRACED.into_iter().find(|(name, _)| *name == word);
    match known {
        Some((_, part)) => Ok(Some((part, word.len()))),
        None => Err(BadTemplate::Unknown(word.to_owned())),
    }
}

/// A number as printf writes it at the beginning of `text`, `%d` or `%03d`, and its length.
fn printf(text: &str) -> Result<Option<(Part, usize)>, BadTemplate> {
    let digits: String = text[1..].chars().take_while(char::is_ascii_digit).collect();
    if !text[1 + digits.len()..].starts_with('d') {
        return Ok(None);
    }
    let text = text[..digits.len() + 2].to_owned();
    let length = text.len();
    match digits.parse().or(if digits.is_empty() { Ok(1) } else { Err(()) }) {
        Ok(digits) if digits <= MOST_DIGITS => Ok(Some((Part::Number { digits, text }, length))),
        _ => Err(BadTemplate::Digits(text)),
    }
}

impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Literal(text) | Part::Number { text, .. } => formatter.write_str(text),
            other => {
                let named = BRACED.iter().find(|(_, part)| part == other);
                formatter.write_str(named.map_or("", |(name, _)| name))
            }
        })
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

impl TryFrom<String> for Template {
    type Error = BadTemplate;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The names of the image files of one run.
#[derive(Debug, Clone)]
pub(crate) struct ImageNames {
    pub(crate) names: FileNames,
    pub(crate) run: RunName,
    pub(crate) seeds: Seeds,
    /// The user's name of the model.
    pub(crate) model: String,
    /// The number of images.
    pub(crate) images: usize,
}

impl ImageNames {
    /// Whether each image takes the number after that of the image before. Otherwise the seed tells them apart, and
    /// numbers above 1 are only taken where a file exists already.
    pub(super) fn counts_images(&self) -> bool {
        let Some(Template(parts)) = &self.names.template else {
            return true;
        };
        let counts = parts.iter().any(|part| matches!(part, Part::Number { .. }));
        counts || !parts.contains(&Part::Seed)
    }

    /// The number of `image`, if it was chosen before the run.
    pub(super) fn chosen_number(&self, image: usize) -> Option<usize> {
        self.names.part.as_ref()?.numbers.get(image).copied()
    }

    /// How many images the request has, with those that others generate.
    fn images_of_request(&self) -> usize {
        self.names.part.as_ref().map_or(self.images, |part| part.of)
    }

    /// The number of each image in `folder` as one run would choose it, where the files `taken` will be too. Its files
    /// are then taken.
    pub(crate) fn numbers_in(&self, folder: &Path, taken: &mut HashSet<PathBuf>) -> Vec<usize> {
        let mut next = 1;
        let numbers = (0..self.images).map(|image| {
            let mut number = if self.counts_images() { next } else { 1 };
            loop {
                let stem = self.stem(image, number);
                let files = [self.image_file(&stem), format!("{stem}.json")].map(|name| folder.join(name));
                let is_free =
                    |file: &PathBuf| self.names.replaces || !(file.exists() || taken.contains(file));
                if files.iter().all(is_free) {
                    taken.extend(files);
                    next = number + 1;
                    return number;
                }
                number += 1;
            }
        });
        numbers.collect()
    }

    /// The name of the file of `image`, without its extension, under `number`, which counts from 1.
    pub(crate) fn stem(&self, image: usize, number: usize) -> String {
        let Some(Template(parts)) = &self.names.template else {
            return self.run.file_name(number);
        };
        let mut is_numbered = false;
        let mut stem: String = parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.clone(),
                Part::Number { digits, .. } => {
                    is_numbered = true;
                    format!("{number:0digits$}")
                }
                Part::Date => self.run.date(),
                Part::Time => self.run.time(),
                Part::Seed => self.seeds.of(image).to_string(),
                Part::Model => file_name_of(&self.model),
            })
            .collect();
        let suffix = match (is_numbered, number) {
            (true, _) => String::new(),
            (false, _) if self.images_of_request() > 1 && self.counts_images() => {
                format!("_{number:0DIGITS$}")
            }
            (false, 1) => String::new(),
            (false, _) => format!("_{number}"),
        };
        stem.push_str(&suffix);
        stem
    }

    /// Checks that the names are not too long for a file system, so that no work is lost.
    pub(super) fn check_length(&self) -> io::Result<()> {
        /// Most bytes of a file name, on all usual file systems.
        const LONGEST: usize = 255;
        /// A number that few folders come to.
        const LARGE: usize = 10_000;
        let stem = self.stem(self.images.saturating_sub(1), LARGE);
        let longest = self.image_file(&stem).len().max(stem.len() + ".json".len());
        if longest > LONGEST {
            let kind = io::ErrorKind::InvalidFilename;
            return Err(io::Error::new(
                kind,
                format!("names of {longest} bytes are too long: at most {LONGEST}"),
            ));
        }
        Ok(())
    }

    /// The number under which the file `stem` belongs to `image`.
    pub(super) fn number_of(&self, stem: &str, image: usize) -> Option<usize> {
        if self.names.template.is_none() {
            return self.run.number_of(stem);
        }
        (1..=MOST_NUMBERS).find(|&number| self.stem(image, number) == stem)
    }

    /// The file name of the image called `stem`.
    pub(crate) fn image_file(&self, stem: &str) -> String {
        let usual = self.names.format.extension();
        format!("{stem}.{}", self.names.extension.as_deref().unwrap_or(usual))
    }
}

/// The user's name of a model as a part of a file name.
fn file_name_of(model: &str) -> String {
    let name = bare_name(model).unwrap_or_else(|| "model".to_owned());
    let is_kept = |letter: &char| !matches!(letter, '/' | '\\' | '*' | '?' | '|' | '\0');
    let name: String = name.chars().filter(is_kept).collect();
    // A name that is a path goes nowhere.
    match Path::new(&name).file_name() {
        Some(_) => name,
        None => "model".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;
    use jiff::tz::TimeZone;

    use super::*;

    fn names(template: &str, images: usize) -> ImageNames {
        let now = DateTime::constant(2026, 5, 4, 3, 2, 1, 0);
        ImageNames {
            names: FileNames {
                template: Some(template.parse().unwrap()),
                ..FileNames::default()
            },
            run: RunName::new(&now.to_zoned_datetime(TimeZone::UTC).unwrap()),
            seeds: Seeds::From(42),
            model: "stabilityai/stable-diffusion-xl-base-1.0".to_owned(),
            images,
        }
    }

    #[test]
    fn parts_are_filled_in() {
        for (template, images, image, number, expected) in [
            ("cat", 1, 0, 1, "cat"),
            ("cat", 1, 0, 2, "cat_2"),
            ("cat", 4, 1, 2, "cat_002"),
            ("cat_%03d", 4, 1, 2, "cat_002"),
            ("cat%d", 1, 0, 11, "cat11"),
            ("{number}-cat", 1, 0, 1, "001-cat"),
            (
                "{date}_{time}_{seed}_{model}",
                4,
                2,
                1,
                "2026-05-04_03-02-01_44_stable-diffusion-xl-base-1.0",
            ),
            ("{seed}", 4, 2, 2, "44_2"),
            ("100% {} {a b} größe", 1, 0, 1, "100% {} {a b} größe"),
        ] {
            let names = names(template, images);
            assert_eq!(names.stem(image, number), expected);
            assert_eq!(names.number_of(expected, image), Some(number), "{template}");
            let template = names.names.template.unwrap();
            assert_eq!(template.to_string().parse::<Template>().unwrap(), template);
        }
        for template in ["{sed}", "a{Date}", "%0123456789d", "%99999999999999999999d"] {
            assert!(template.parse::<Template>().is_err(), "{template}");
        }
    }

    #[test]
    fn a_name_of_a_model_stays_in_the_folder() {
        for model in ["..", "/", "a/../..", "con:", "..\\..", "a*?|b"] {
            let name = file_name_of(model);
            assert!(!name.contains(['/', '\\', ':', '*']), "{model}: {name}");
            assert!(name != ".." && name != "." && !name.is_empty(), "{model}: {name}");
        }
    }
}
