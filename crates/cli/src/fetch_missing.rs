//! What a user names on the hub: it is fetched where it is not on this machine.

use sd_hub::Reference;
use sd_pipeline::bundle::Kind;
use sd_pipeline::prompt::Prompt;

use crate::control::ControlInput;
use crate::fetching::{Wanted, fetch};
use crate::hint::Failure;
use crate::printer::Printer;
use crate::settings::Settings;
use crate::{local_models, lora};

/// What `settings` and `prompt` name on the hub, without what is a file or a folder here.
pub(crate) fn named(settings: &Settings, prompt: &str) -> Vec<Wanted> {
    let named = |kind: Kind, name: &Option<String>| name.clone().map(|name| (kind, name));
    let models = [
        named(Kind::Model, &settings.model),
        named(Kind::Model, &settings.refiner),
    ];
    let controlnets = settings
        .controlnet
        .iter()
        .map(|name| (Kind::ControlNet, name.clone()));
    let options = models
        .into_iter()
        .flatten()
        .chain(controlnets)
        .chain(named(Kind::Upscaler, &settings.upscaler));
    let loras = settings
        .lora
        .iter()
        .map(|text| lora::scaled(text).name.to_owned());
    let tags = Prompt::parse(prompt).loras.into_iter().map(|tag| tag.name);
    let loras = loras.chain(tags).map(|name| (Kind::Lora, name));
    on_the_hub(options.chain(loras))
}

/// What the hub has of names, each once, without what is a file or a folder here.
fn on_the_hub(names: impl Iterator<Item = (Kind, String)>) -> Vec<Wanted> {
    let mut found: Vec<Wanted> = Vec::new();
    for (kind, name) in names {
        let is_here =
            local_models::is_here(&name) || kind == Kind::Lora && lora::with_ending(&name).is_file();
        let Some(reference) = local_models::reference(&name).filter(|_| !is_here) else {
            continue;
        };
        let wanted = Wanted {
            reference,
            kind: Some(kind),
        };
        if !found.contains(&wanted) {
            found.push(wanted);
        }
    }
    found
}

/// Fetches what is named and is not here. Where the hub may not be asked, what is missing is said where it is looked for.
pub(crate) fn fetch_named(settings: &Settings, prompt: &str, printer: Printer) -> Result<(), Failure> {
    fetch_missing(named(settings, prompt), printer)
}

/// Fetches the ControlNets that are not here of what is to be followed, the same way.
pub(crate) fn fetch_controlnets(inputs: &[ControlInput], printer: Printer) -> Result<(), Failure> {
    let names = inputs
        .iter()
        .map(|input| (Kind::ControlNet, input.network.clone()));
    fetch_missing(on_the_hub(names), printer)
}

fn fetch_missing(wanted: Vec<Wanted>, printer: Printer) -> Result<(), Failure> {
    let is_missing = |wanted: &Wanted| {
        let Wanted { reference, kind } = wanted;
        !local_models::is_whole(reference, *kind)
    };
    let missing: Vec<Wanted> = wanted.into_iter().filter(is_missing).collect();
    if !missing.is_empty() && !sd_hub::Settings::of_user().offline {
        fetch(&missing, printer)?;
    }
    Ok(())
}

impl Wanted {
    /// The whole of what `reference` names, whatever it is.
    pub(crate) fn all_of(reference: Reference) -> Self {
        Self {
            reference,
            kind: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_on_the_hub_is_found_once() {
        let settings = Settings {
            model: Some("me/model".to_owned()),
            refiner: Some("me/model".to_owned()),
            upscaler: Some("me/nets:x4.pth".to_owned()),
            lora: vec!["me/lora:0.5".to_owned(), "lora.safetensors".to_owned()],
            ..Settings::default()
        };
        let names: Vec<String> = named(&settings, "a cat <lora:me/second:1> <lora:here:1>")
            .into_iter()
            .map(|wanted| wanted.reference.to_string())
            .collect();
        assert_eq!(names, ["me/model", "me/nets:x4.pth", "me/lora", "me/second"]);
        let demo = Settings {
            model: Some("demo".to_owned()),
            ..Settings::default()
        };
        assert!(named(&demo, "a cat").is_empty());
    }
}
