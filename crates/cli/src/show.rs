//! `generate show PICTURE`: prints what the file of an image says of how it was generated.

use sd_catalog::GenerationParameters;
use serde_json::json;

use crate::arguments::ShowArguments;
use crate::hint::Failure;
use crate::terminal;

/// Prints the parameters.
///
/// # Errors
/// The file does not say how it was generated.
pub(crate) fn run(arguments: &ShowArguments) -> Result<(), Failure> {
    let parameters = GenerationParameters::read(&arguments.picture)?;
    if arguments.json {
        terminal::print_json(object(arguments, &parameters));
        return Ok(());
    }
    let mut rows = vec![
        ("from", parameters.source.to_string()),
        ("prompt", parameters.prompt.clone()),
    ];
    let negative = parameters.settings.negative_prompt.as_deref().unwrap_or_default();
    if !negative.is_empty() {
        rows.push(("negative-prompt", negative.to_owned()));
    }
    rows.extend(parameters.options.iter().cloned());
    if let Some(hash) = &parameters.model_hash {
        rows.push(("model hash", hash.clone()));
    }
    if let Some(init) = &parameters.init {
        rows.push(("init-image", init.image.display().to_string()));
        rows.extend(init.strength.map(|strength| ("strength", strength.0.to_string())));
        rows.extend(init.mask.iter().map(|mask| ("mask", mask.display().to_string())));
    }
    for control in &parameters.control_images {
        rows.push(("control image", control.image.display().to_string()));
    }
    for unmet in &parameters.unmet {
        rows.push(("needs an option", format!("{}: {}", unmet.setting, unmet.reason)));
    }
    for difference in &parameters.differences {
        rows.push(("not supported", difference.clone()));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, text) in rows {
        for (index, line) in text.lines().enumerate() {
            let name = if index == 0 { name } else { "" };
            terminal::print_line(&format!("{name:width$}  {line}"));
        }
    }
    Ok(())
}

fn object(arguments: &ShowArguments, parameters: &GenerationParameters) -> serde_json::Value {
    let options = parameters.options.iter();
    let options = options.map(|(option, text)| json!({ "option": option, "value": text }));
    let unmet = parameters
        .unmet
        .iter()
        .map(|unmet| json!({ "setting": unmet.setting, "reason": unmet.reason, "options": unmet.options }));
    let init = parameters.init.as_ref().map(|init| {
        json!({
            "image": init.image,
            "strength": init.strength.map(|strength| strength.0),
            "mask": init.mask,
        })
    });
    let controls = parameters.control_images.iter();
    let controls = controls.map(|control| json!({ "kind": control.kind, "image": control.image }));
    json!({
        "event": "parameters",
        "file": arguments.picture,
        "source": parameters.source.name(),
        "from": parameters.source.to_string(),
        "prompt": parameters.prompt,
        "negative_prompt": parameters.settings.negative_prompt,
        "options": options.collect::<Vec<_>>(),
        "model_hash": parameters.model_hash,
        "init": init,
        "control_images": controls.collect::<Vec<_>>(),
        "unmet": unmet.collect::<Vec<_>>(),
        "unsupported": parameters.differences,
    })
}
