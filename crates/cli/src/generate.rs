//! `generate PROMPT` and `generate plan PROMPT`.

use sd_catalog::presets::DEMO;
use sd_catalog::styles::Style;
use sd_catalog::{
    Catalog, Configuration, Devices, FetchObserver, Layers, OutsideLanguage, Resolved, outside_language,
};
use sd_pipeline::{DeviceChoice, Engine, PlannedRequest, Request};
use tempfile::TempDir;

use crate::activity::Activity;
use crate::arguments::Arguments;
use crate::download_progress::DownloadProgress;
use crate::hint::Failure;
use crate::printer::Printer;
use crate::prompts::Prompt;
use crate::repeated::LastRequest;
use crate::stdout_image::StdoutImage;
use crate::{devices, json, lists, progress, prompts, run, signals, terminal};

/// Prints a list, or resolves and downloads what the command line names, then plans or generates.
///
/// # Errors
/// The command line is invalid, something that it names is missing, or the run failed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = Configuration::of_user()?;
    if let Some(list) = arguments.list() {
        terminal::print(&lists::text(list, &configuration));
        return Ok(());
    }
    let prompts = prompts::of(arguments)?;
    sd_pipeline::device::compute_with(arguments.threads)?;
    let stdout = stdout_image(arguments)?;
    let mut resolved = resolve_all(arguments, prompts, stdout.as_ref(), &configuration)?;
    if arguments.plan {
        return print_plans(&resolved, arguments.display.printer());
    }
    refuse_contradictions(&resolved, stdout.is_some())?;
    if stdout.is_some() {
        // The folder of the image does not outlive the command, so that there is nothing to resume.
        resolved
            .iter_mut()
            .for_each(|one| one.request.user_dirs.state = None);
    }
    warn_of_language(&resolved, arguments.display.printer());
    if arguments.pro {
        print_needs(&resolved[0].request, arguments.display.printer());
    }
    generate(arguments, &resolved, stdout.as_ref())
}

/// Where the image of stdout is written first, if stdout takes one.
fn stdout_image(arguments: &Arguments) -> Result<Option<StdoutImage>, Failure> {
    if !StdoutImage::is_named(arguments.output()) || arguments.plan {
        return Ok(None);
    }
    if arguments.display.json {
        return Err(Failure::usage(
            "stdout takes either the image of --output - or the events of --json".to_owned(),
        ));
    }
    StdoutImage::new().map(Some)
}

/// The requests of all `prompts`. What is missing is downloaded.
fn resolve_all(
    arguments: &Arguments,
    prompts: Vec<Prompt>,
    stdout: Option<&StdoutImage>,
    configuration: &Configuration,
) -> Result<Vec<ResolvedRequest>, Failure> {
    let printer = arguments.display.printer();
    let mut preset: Option<Option<String>> = None;
    let requests = prompts.into_iter().map(|mut prompt| {
        if let Some(stdout) = stdout {
            prompt.settings.output = Some(stdout.file());
        }
        let (request, chosen) = resolve(arguments, prompt, configuration, printer)?;
        // The same choice for every prompt is told once.
        if let Some(chosen) = chosen.filter(|chosen| preset.as_ref() != Some(chosen)) {
            note_preset(chosen.as_deref(), printer);
            preset = Some(chosen);
        }
        Ok(request)
    });
    requests.collect()
}

/// Refuses what no run of several images, or of several prompts, can do.
fn refuse_contradictions(resolved: &[ResolvedRequest], is_stdout: bool) -> Result<(), Failure> {
    let images: usize = resolved.iter().map(|one| one.request.images).sum();
    if is_stdout && images > 1 {
        return Err(Failure::usage(format!(
            "stdout takes one image, and these are {images}"
        )));
    }
    if resolved.len() > 1 && resolved.iter().any(|one| one.request.file_names.replaces) {
        // The second prompt would replace the images of the first.
        return Err(Failure::usage(
            "--overwrite and several prompts contradict each other".to_owned(),
        ));
    }
    Ok(())
}

/// Says once what the built-in model can generate, where prompts ask for something else.
fn warn_of_language(resolved: &[ResolvedRequest], printer: Printer) {
    let mut told: Vec<String> = Vec::new();
    for note in resolved.iter().filter_map(|one| language_note(&one.request)) {
        if !told.contains(&note) {
            printer.warn(&note);
            told.push(note);
        }
    }
}

/// The devices that the images are shared out among, if they are several.
fn several_devices(resolved: &[ResolvedRequest]) -> Result<Option<Vec<DeviceChoice>>, Failure> {
    let Some((first, others)) = resolved.split_first() else {
        return Ok(None);
    };
    if others.iter().any(|other| other.devices != first.devices) {
        return Err(Failure::usage(
            "the prompts of a run have the same --device".to_owned(),
        ));
    }
    let images: usize = resolved.iter().map(|one| one.request.images).sum();
    let devices = first.devices.all();
    Ok((devices.len() > 1 && images > 1).then_some(devices))
}

/// Generates the images.
fn generate(
    arguments: &Arguments,
    resolved: &[ResolvedRequest],
    stdout: Option<&StdoutImage>,
) -> Result<(), Failure> {
    if let Some(devices) = several_devices(resolved)? {
        let requests: Vec<&Request> = resolved.iter().map(|one| &one.request).collect();
        return devices::generate(&requests, &devices, arguments.threads, arguments.display.show());
    }
    let last = match resolved {
        [only] if only.is_default_seed => Some(LastRequest::new(&only.request)),
        _ => None,
    };
    let before = last.as_ref().and_then(LastRequest::image);
    let images = run::execute(arguments.display.show(), stdout, |observer, interrupt| {
        let mut engine = match resolved.len() {
            1 => Engine::new(),
            // What the next prompt can use stays in memory.
            _ => Engine::new().keep_loaded(),
        };
        let requests: Vec<&Request> = resolved.iter().map(|one| &one.request).collect();
        engine.run_all(&requests, observer, interrupt)
    })?;
    if let (Some(last), Some(image), None) = (last, images.first(), stdout) {
        if let Some(before) = before.filter(|before| before.exists()) {
            arguments.display.printer().note(&format!(
                "The same image as {}, of the same command: --seed random gives another one.",
                before.display()
            ));
        }
        last.remember(image);
    }
    Ok(())
}

/// A request for the pipeline: every model that it names is found.
struct ResolvedRequest {
    request: Request,
    /// Whether nobody has set the seed.
    is_default_seed: bool,
    /// The devices that generate it.
    devices: Devices,
    /// The headers of what is not on this machine, for a plan.
    headers: Option<TempDir>,
}

/// Prints what SD 3.5 Large needs at its best. An error of the plan is left to the run, which meets it again and reports
/// it.
fn print_needs(request: &Request, printer: Printer) {
    let planning = Activity::start(printer, |_| Some("planning".to_owned()));
    let plan = sd_pipeline::plan(request);
    drop(planning);
    if let Ok(plan) = plan {
        printer.note_lines(&format!(
            "Stable Diffusion 3.5 Large needs at least {}, and {} without streaming; this run:\n{plan}",
            plan.smallest_budget, plan.resident_budget
        ));
    }
}

/// Layers the settings, resolves what they name and downloads what is missing. A plan reads headers only.
fn resolve(
    arguments: &Arguments,
    prompt: Prompt,
    configuration: &Configuration,
    printer: Printer,
) -> Result<(ResolvedRequest, Option<Option<String>>), Failure> {
    let catalog = Catalog::new(configuration);
    let inputs = arguments.inputs(prompt.text);
    let layers = match &arguments.image_settings {
        Some(image) => Layers::over_image(prompt.settings, (**image).clone(), configuration)?,
        None => Layers::new(prompt.settings, configuration)?,
    };
    // Refuse an unusable model before gigabytes of it are downloaded.
    inputs.check()?;
    let mut progress = DownloadProgress::new(printer);
    let fetches = !arguments.plan;
    let mut chosen = None;
    let layered = match layers.settled() {
        Some(layered) => layered,
        None => {
            let observer = fetches.then_some(&mut progress as &mut dyn FetchObserver);
            let layered = layers.best_that_fits(&catalog, &inputs, observer)?;
            chosen = Some(layered.preset.clone());
            layered
        }
    };
    arguments.check_effects(&layered.settings)?;
    let is_default_seed = layered.settings.seed.is_none();
    let devices = layered.settings.device.clone().unwrap_or_default();
    let mut resolved = Resolved::new(&catalog, inputs, layered)?;
    let mut headers = None;
    if fetches {
        resolved.fetch(&catalog, &mut progress)?;
    } else if !resolved.is_local() {
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::other(format!("cannot make a temporary folder: {error}")))?;
        let interrupt = signals::interrupt()?;
        let bytes = resolved
            .outline(&catalog, folder.path(), &|| interrupt.is_raised())
            .map_err(|error| Failure::from(error).naming_hub_files(Some(folder.path())))?;
        if let Some(bytes) = bytes {
            printer.note(&format!(
                "This plan is from headers: {bytes} are not downloaded yet."
            ));
            headers = Some(folder);
        }
    }
    let request = resolved.request(&catalog);
    let folder = headers.as_ref().map(TempDir::path);
    let request = ResolvedRequest {
        request: request.map_err(|error| Failure::from(error).naming_hub_files(folder))?,
        is_default_seed,
        devices,
        headers,
    };
    Ok((request, chosen))
}

/// What the built-in model can generate, if the prompt asks for something else.
fn language_note(request: &Request) -> Option<String> {
    /// The most words that are named.
    const MOST: usize = 3;
    if !request.model.files.is_embedded() {
        return None;
    }
    // The words of a style are none of the user's.
    let style = request.names.style.as_deref().and_then(Style::find);
    let prompt = style.and_then(|style| request.prompt.strip_suffix(style.words));
    let prompt = prompt.unwrap_or(&request.prompt);
    let OutsideLanguage { unknown } = outside_language(prompt)?;
    let named: Vec<String> = unknown
        .iter()
        .take(MOST)
        .map(|word| format!("`{word}`"))
        .collect();
    let knows = match named.is_empty() {
        true => "is asked for nothing that it knows".to_owned(),
        false => format!("does not know {}", named.join(", ")),
    };
    Some(format!(
        "the built-in model {knows}: it generates coloured shapes (circle, square, triangle, star, heart, \
         diamond, ring, cross) and simple landscapes (mountains, hills, sea, lake, a house, trees, sun, moon). \
         `generate models pull fast` downloads a real model."
    ))
}

/// Prints which preset was chosen.
fn note_preset(preset: Option<&str>, printer: Printer) {
    printer.note(&match preset {
        Some(DEMO) | None => {
            "Generating with the small built-in model `demo`; `generate models pull fast` downloads a real one, --model names another."
                .to_owned()
        }
        Some(name) => format!(
            "Generating with the preset `{name}`: the best on this machine that fits into its memory."
        ),
    });
}

/// Prints the plans of all requests.
fn print_plans(resolved: &[ResolvedRequest], printer: Printer) -> Result<(), Failure> {
    resolved.iter().try_for_each(|one| {
        let folder = one.headers.as_ref().map(TempDir::path);
        print_plan(&one.request, printer).map_err(|failure| failure.naming_hub_files(folder))
    })
}

/// Prints the plan of the run, as JSON or as a table, and why no GPU computes, if that has a reason.
fn print_plan(request: &Request, printer: Printer) -> Result<(), Failure> {
    let PlannedRequest {
        recipe,
        plan,
        fallback,
    } = sd_pipeline::planned(request)?;
    if printer.json {
        json::plan(&plan, fallback.as_deref());
    } else {
        if let Some(fallback) = fallback {
            printer.warn(&fallback);
        }
        printer.note(&progress::settings(&recipe));
        terminal::print(&plan.to_string());
    }
    Ok(())
}
