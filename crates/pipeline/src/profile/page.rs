//! The page around the charts: what was generated, and a card for each chart and table.

use sd_memory::Bytes;

use super::file::GENERATOR;
use super::markup::{Element, element};
use super::{Profile, charts, readings, stages, tiles};
use crate::recipe::Recipe;

/// Characters of a prompt that the window's title holds.
const TITLE: usize = 60;

/// Nothing is loaded, from anywhere; the style and the script are the page's own.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// The whole document.
pub(super) fn page(profile: &Profile) -> String {
    let body = element("body")
        .child(
            element("main")
                .child(header(profile))
                .child(tiles::tiles(profile))
                .child(memory_card(profile))
                .child(small_cards(profile))
                .child(stage_card(profile))
                .child(readings_card(profile))
                .child(footer()),
        )
        .child(element("script").verbatim(include_str!("page.js")));
    let page = element("html")
        .with("lang", "en")
        .child(head(profile))
        .child(body);
    format!("<!DOCTYPE html>\n{page}\n")
}

fn head(profile: &Profile) -> Element {
    let meta =
        |name: &'static str, content: &str| element("meta").with("name", name).with("content", content);
    let title = match &profile.recipe {
        Some(recipe) => format!("{} · memory profile", shortened(&recipe.prompt)),
        None => "memory profile".to_owned(),
    };
    element("head")
        .child(element("meta").with("charset", "utf-8"))
        .child(meta("generator", &format!("{GENERATOR} {}", crate::VERSION)))
        .child(
            element("meta")
                .with("http-equiv", "Content-Security-Policy")
                .with("content", POLICY),
        )
        .child(meta("viewport", "width=device-width, initial-scale=1"))
        .child(meta("color-scheme", "light dark"))
        .child(element("title").text(title))
        .child(element("style").verbatim(include_str!("page.css")))
}

fn shortened(prompt: &str) -> String {
    let line = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TITLE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn header(profile: &Profile) -> Element {
    let mut words = element("div").child(
        element("p")
            .with("class", "brand")
            .text("sd-generate · memory profile"),
    );
    words = match &profile.recipe {
        Some(recipe) => words.child(element("h1").text(&recipe.prompt)).child(
            element("ul")
                .with("class", "settings")
                .children(settings(recipe, profile)),
        ),
        None => words.child(element("h1").text("A run that did not begin")),
    };
    if let Some(failure) = &profile.failure {
        words = words.child(note("failure", "The run ended early: ", failure));
    }
    words = words.children(
        profile
            .warnings
            .iter()
            .map(|warning| note("warning", "Warning: ", warning)),
    );
    let header = element("header").child(words);
    if profile.thumbnails.is_empty() {
        return header;
    }
    let prompt = profile.recipe.as_ref().map_or("", |recipe| &recipe.prompt);
    let images = profile
        .thumbnails
        .iter()
        .zip(&profile.images)
        .map(|(thumbnail, name)| {
            element("img")
                .with("src", thumbnail.data_address())
                .with("width", thumbnail.width)
                .with("height", thumbnail.height)
                .with("alt", format!("{prompt} ({name})"))
        });
    let count = profile.thumbnails.len();
    header.child(
        element("div")
            .with("class", format!("images of-{count}"))
            .children(images),
    )
}

fn note(class: &str, opening: &str, text: &str) -> Element {
    element("p")
        .with("class", class)
        .child(element("strong").text(opening))
        .text(text)
}

/// The recipe in short form.
fn settings(recipe: &Recipe, profile: &Profile) -> Vec<Element> {
    let images = match recipe.images {
        1 => "1 image".to_owned(),
        images => format!("{} of {images} images", profile.images.len()),
    };
    let words = [
        recipe.model.clone(),
        recipe.size.to_string().replace('x', " × "),
        format!("{} steps", recipe.steps),
        format!("guidance {}", recipe.guidance_scale.0),
        format!("seed {}", recipe.seeds.first()),
        images,
    ];
    words.into_iter().map(|word| element("li").text(word)).collect()
}

fn card(name: &str) -> Element {
    element("section")
        .with("class", "card")
        .child(element("h2").text(name))
}

fn memory_card(profile: &Profile) -> Element {
    let mut keys = vec![("resident", "process, resident")];
    let samples = &profile.timeline.samples;
    if samples.iter().any(|sample| sample.allocated > Bytes(0)) {
        keys.push(("allocated", "allocated, as counted"));
    }
    if samples.iter().any(|sample| sample.device > Bytes(0)) {
        keys.push(("device", "in use on the device"));
    }
    keys.push(("stage-peak", "peak of a stage"));
    keys.push(("reading", "reading"));
    keys.push(("cleanup", "reading after a cleanup"));
    let legend = keys.into_iter().map(|(class, name)| {
        let key = element("span")
            .with("class", format!("key {class}"))
            .with("aria-hidden", "true");
        element("li").child(key).text(name)
    });
    card("Memory over time")
        .child(element("ul").with("class", "legend").children(legend))
        .child(
            element("div")
                .with("class", "chart")
                .child(charts::memory(profile)),
        )
}

fn small_cards(profile: &Profile) -> Element {
    let cards = [
        ("Time of each step", charts::steps(&profile.steps)),
        ("Weights read so far", charts::weights(&profile.timeline)),
    ];
    let cards = cards
        .into_iter()
        .filter_map(|(name, chart)| Some(card(name).child(chart?)));
    element("div").with("class", "cards").children(cards)
}

fn stage_card(profile: &Profile) -> Element {
    card("Stages").child(
        element("div")
            .with("class", "table")
            .child(stages::table(profile)),
    )
}

fn readings_card(profile: &Profile) -> Element {
    let readings = &profile.timeline.readings;
    let table = element("div")
        .with("class", "table")
        .child(readings::table(readings));
    let card = card("Readings").child(table);
    match readings.len().saturating_sub(readings::MOST) {
        0 => card,
        more => card.child(
            element("p")
                .with("class", "words")
                .text(format!("and {more} more")),
        ),
    }
}

fn footer() -> Element {
    element("footer").text(format!(
        "Generated by sd-generate {}. 1 GB is 2³⁰ bytes. This page loads nothing and sends nothing.",
        crate::VERSION
    ))
}

#[cfg(test)]
mod tests {
    use sd_memory::{MemoryInfo, Reading, Sample, Stage, Timeline};

    use super::*;
    use crate::profile::markup::tests::check_well_formed;
    use crate::profile::{Step, Thumbnail};
    use crate::scheduler::{SamplerKind, ScheduleKind};
    use crate::{DenoisingRange, Names};
    use crate::{GuidanceScale, ImageSize};

    const MB: u64 = 1 << 20;

    fn stage(name: &str, start: f64, end: f64, peak: u64) -> Stage {
        Stage {
            name: name.to_owned(),
            start,
            end,
            allocated_peak: Bytes(peak * MB / 2),
            resident_peak: Bytes(peak * MB),
            device_peak: Bytes(peak * MB / 4),
            weights_read: Bytes(7 * MB),
        }
    }

    fn reading(label: &str, seconds: f64, given_back: Option<u64>) -> Reading {
        Reading {
            label: label.to_owned(),
            seconds,
            memory: MemoryInfo {
                process: Bytes(321 * MB),
                system_available: Bytes(5432 * MB),
                ..MemoryInfo::default()
            },
            device: None,
            allocated: Bytes(123 * MB),
            given_back: given_back.map(|megabytes| Bytes(megabytes * MB)),
        }
    }

    /// A run of ten seconds with some of everything.
    fn profile(prompt: &str) -> Profile {
        let samples = (0..100_u32).map(|index| Sample {
            seconds: 0.1 * f64::from(index),
            resident: Bytes((100 + 3 * u64::from(index % 70)) * MB),
            allocated: Bytes((50 + u64::from(index)) * MB),
            available: Bytes(5000 * MB),
            device: Bytes(u64::from(index) * MB),
            weights_read: Bytes(u64::from(index) * 11 * MB),
        });
        Profile {
            recipe: Some(Recipe {
                model: "models/tiny".to_owned(),
                prompt: prompt.to_owned(),
                negative_prompt: String::new(),
                images: 1,
                seeds: 4711.into(),
                rng: Default::default(),
                steps: 2,
                size: ImageSize::new(1024, 768).unwrap(),
                img2img: None,
                denoising_range: DenoisingRange::Full,
                guidance_scale: GuidanceScale(4.5),
                guidance_rescale: 0.0,
                sampler: SamplerKind::FlowEuler,
                schedule: ScheduleKind::Automatic,
                clip_skip: 0,
                names: Names::default(),
                output: "outputs".into(),
                choices: crate::Choices::default(),
            }),
            budget: Some(Bytes(400 * MB)),
            predicted_peak: Some(Bytes(350 * MB)),
            predicted_stages: vec![("denoise".to_owned(), Bytes(344 * MB))],
            timeline: Timeline {
                readings: vec![
                    reading("Startup", 0.0, None),
                    reading("After generation", 8.0, Some(77)),
                ],
                samples: samples.collect(),
                stages: vec![stage("encode", 0.0, 2.0, 222), stage("denoise", 2.0, 8.5, 333)],
                peak: Bytes(333 * MB),
                seconds: 10.0,
            },
            steps: vec![
                Step {
                    image: 0,
                    step: 1,
                    seconds: 3.21,
                },
                Step {
                    image: 0,
                    step: 2,
                    seconds: 2.87,
                },
            ],
            warnings: vec!["it <streams>".to_owned()],
            images: vec!["output_001.png".to_owned()],
            thumbnails: vec![Thumbnail {
                width: 2,
                height: 1,
                png: vec![1, 2, 3],
            }],
            failure: None,
        }
    }

    #[test]
    fn the_page_has_every_figure() {
        let page = profile("a red circle").page();
        assert_eq!(check_well_formed(&page), Ok(()));
        for figure in [
            "<h1>a red circle</h1>",
            "models/tiny",
            "1024 × 768",
            "seed 4711",
            "guidance 4.5",
            "83% of the budget of 400.0MB",
            "measured: 95% of it",
            "budget 400.0MB",
            "predicted 350.0MB",
            "peak 333.0MB",
            "222.0MB",
            "166.5MB",
            "344.0MB",
            "6.50 s",
            "3.21 s",
            "1.1GB",
            "Startup",
            "After generation",
            "321.0MB",
            "5.3GB",
            "77.0MB",
            "it &lt;streams&gt;",
            "data:image/png;base64,AQID",
            "alt=\"a red circle (output_001.png)\"",
        ] {
            assert!(page.contains(figure), "{figure} is not in the page");
        }
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = profile("a red circle").page();
        for address in ["src=", "href=", "url(", "@import", "fetch("] {
            for (index, _) in page.match_indices(address) {
                let value = page[index + address.len()..].trim_start_matches('"');
                let inside = ["data:", "#"].iter().any(|start| value.starts_with(start));
                assert!(inside, "{}", &page[index..index + 60]);
            }
        }
        assert!(page.contains(POLICY.replace('\'', "&#39;").as_str()));
    }

    #[test]
    fn a_run_that_failed_at_once_has_a_page() {
        let mut empty = Profile {
            failure: Some("there is no model at `x`".to_owned()),
            ..Profile::default()
        };
        let page = empty.page();
        assert_eq!(check_well_formed(&page), Ok(()));
        assert!(page.contains("there is no model at `x`"));
        for not_a_number in ["NaN", "inf"] {
            assert!(
                !page.contains(&format!("\"{not_a_number}")) && !page.contains(&format!(" {not_a_number}"))
            );
        }
        empty.timeline.seconds = f64::NAN;
        assert_eq!(check_well_formed(&empty.page()), Ok(()));
    }

    #[test]
    fn a_long_run_has_a_page_of_bounded_size() {
        let mut long = profile("a red circle");
        long.timeline.readings = vec![reading("After decoding", 3.0, None); 10_000];
        long.steps = vec![long.steps[0]; 100_000];
        let page = long.page();
        assert!(page.len() < 400_000, "{} bytes", page.len());
        assert!(page.contains("and 9800 more"));
    }

    proptest::proptest! {
        #[test]
        fn no_prompt_breaks_the_page(prompt in ".*", label in ".*", name in ".*") {
            let mut odd = profile(&prompt);
            odd.timeline.readings[0].label = label;
            odd.timeline.stages[0].name = name.clone();
            odd.failure = Some(name);
            proptest::prop_assert_eq!(check_well_formed(&odd.page()), Ok(()));
        }
    }
}
