//! The language of the built-in model: the words of its training prompts (`tools/train_demo/language.py`).

/// Words that name what it generates.
const SUBJECTS: &[&str] = &[
    "ball",
    "beach",
    "boat",
    "box",
    "circle",
    "coast",
    "cross",
    "diamond",
    "disc",
    "dot",
    "field",
    "heart",
    "hill",
    "hoop",
    "house",
    "lake",
    "landscape",
    "meadow",
    "moon",
    "mountain",
    "nature",
    "ocean",
    "plus",
    "rhombus",
    "ring",
    "scene",
    "scenery",
    "sea",
    "square",
    "star",
    "sun",
    "tree",
    "triangle",
    "view",
];

/// The other words: colours, numbers, sizes, places, times, and what people write around them.
const OTHERS: &[&str] = &[
    "1",
    "2",
    "3",
    "4",
    "4k",
    "5",
    "8k",
    "a",
    "above",
    "against",
    "an",
    "and",
    "art",
    "at",
    "background",
    "beautiful",
    "below",
    "beneath",
    "beside",
    "best",
    "big",
    "black",
    "blue",
    "bottom",
    "brown",
    "by",
    "center",
    "centre",
    "cinematic",
    "clean",
    "clear",
    "cloud",
    "cloudy",
    "cloudless",
    "color",
    "colorful",
    "colour",
    "colourful",
    "concept",
    "corner",
    "crescent",
    "cyan",
    "dark",
    "dawn",
    "day",
    "daylight",
    "daytime",
    "design",
    "detailed",
    "digital",
    "draw",
    "drawing",
    "dusk",
    "epic",
    "evening",
    "five",
    "flat",
    "four",
    "full",
    "golden",
    "gray",
    "green",
    "grey",
    "hd",
    "high",
    "highly",
    "hour",
    "huge",
    "illustration",
    "image",
    "in",
    "inside",
    "is",
    "large",
    "left",
    "little",
    "lower",
    "masterpiece",
    "me",
    "middle",
    "midnight",
    "minimalist",
    "morning",
    "near",
    "next",
    "night",
    "no",
    "of",
    "on",
    "one",
    "orange",
    "over",
    "painting",
    "photo",
    "picture",
    "pine",
    "pink",
    "plain",
    "purple",
    "quality",
    "range",
    "realistic",
    "red",
    "right",
    "rolling",
    "round",
    "sailing",
    "sailboat",
    "sharp",
    "show",
    "simple",
    "sky",
    "small",
    "snowy",
    "some",
    "starry",
    "stunning",
    "sunny",
    "sunrise",
    "sunset",
    "the",
    "there",
    "three",
    "tiny",
    "to",
    "top",
    "trending",
    "turquoise",
    "two",
    "under",
    "upper",
    "vector",
    "violet",
    "wallpaper",
    "water",
    "white",
    "with",
    "without",
    "yellow",
];

/// What a prompt asks of the built-in model that it cannot do, for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideLanguage {
    /// The words that it does not know.
    pub unknown: Vec<String>,
}

/// Whether `prompt` is outside of the language of the built-in model: it names nothing that the model generates, or
/// has words that it does not know.
pub fn outside_language(prompt: &str) -> Option<OutsideLanguage> {
    let words = prompt.split(|letter: char| !letter.is_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let has_subject = words.iter().any(|word| is_in(word, SUBJECTS));
    let mut unknown: Vec<String> = Vec::new();
    for word in words {
        if !is_in(&word, SUBJECTS) && !is_in(&word, OTHERS) && !unknown.contains(&word) {
            unknown.push(word);
        }
    }
    (!has_subject || !unknown.is_empty()).then_some(OutsideLanguage { unknown })
}

/// Whether `words` has `word`, or what it is the plural of.
fn is_in(word: &str, words: &[&str]) -> bool {
    let singular = [word.strip_suffix('s'), word.strip_suffix("es")];
    std::iter::once(word)
        .chain(singular.into_iter().flatten())
        .any(|word| words.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_of_its_training_are_inside() {
        for prompt in [
            "a red circle",
            "two green squares on a black background",
            "a small blue triangle at the top left",
            "A house by the sea at sunset!",
            "mountains under a full moon",
            "three pink crosses, highly detailed, 8k",
            "epic landscape",
            "(red:1.2) rhombuses",
        ] {
            assert_eq!(outside_language(prompt), None, "{prompt}");
        }
    }

    #[test]
    fn words_that_it_does_not_know_are_named() {
        let unknown = |prompt: &str| outside_language(prompt).map(|outside| outside.unknown);
        assert_eq!(unknown("a cat").unwrap(), ["cat"]);
        assert_eq!(unknown("a CAT and a cat in a red box").unwrap(), ["cat"]);
        assert_eq!(unknown("epic, red").unwrap(), [""; 0]);
        assert_eq!(unknown("größe 猫").unwrap(), ["größe", "猫"]);
    }
}
