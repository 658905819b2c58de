//! Styles, which extend the prompt and set a negative prompt.

/// A named style: words for the prompt, and a negative prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Its name.
    pub name: &'static str,
    /// The words that are appended to the prompt.
    pub words: &'static str,
    /// The negative prompt, if the user gives none.
    pub negative_prompt: &'static str,
}

/// Every style.
pub const ALL: [Style; 4] = [
    Style {
        name: "anime",
        words: "anime illustration, clean line art, cel shading, expressive eyes, vivid flat colours",
        negative_prompt: "photograph, realistic skin, 3d render, muddy colours, extra fingers, blurry",
    },
    Style {
        name: "fantasy",
        words: "epic fantasy painting, ancient ruins and distant mountains, golden light through mist, rich detail",
        negative_prompt: "modern city, cars, plain background, flat light, low detail, blurry",
    },
    Style {
        name: "scifi",
        words: "science fiction concept art, sleek machinery, neon and cold light, vast scale, sharp detail",
        negative_prompt: "medieval, rustic, low detail, washed out, blurry",
    },
    Style {
        name: "realism",
        words: "photograph, natural light, 50 mm lens, true skin and fabric texture, shallow depth of field",
        negative_prompt: "painting, drawing, cartoon, plastic skin, oversaturated, deformed hands, blurry",
    },
];

impl Style {
    /// The style called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|style| style.name == name)
    }

    /// Applies the style to the prompts. A negative prompt of the user stays as it is.
    pub fn apply(&self, prompt: &str, negative_prompt: Option<&str>) -> (String, String) {
        let prompt = match prompt.trim_end() {
            "" => self.words.to_owned(),
            prompt => format!("{prompt}, {}", self.words),
        };
        (prompt, negative_prompt.unwrap_or(self.negative_prompt).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_added_and_the_user_s_own_stay() {
        let anime = Style::find("anime").unwrap();
        let (prompt, negative) = anime.apply("a cat ", None);
        assert!(prompt.starts_with("a cat, anime illustration"));
        assert_eq!(negative, anime.negative_prompt);
        assert_eq!(anime.apply("a cat", Some("dogs")).1, "dogs");
        assert_eq!(anime.apply("", Some("")), (anime.words.to_owned(), String::new()));
        assert_eq!(Style::find("none"), None);
        for style in ALL {
            assert_eq!(Style::find(style.name), Some(&style));
        }
    }
}
