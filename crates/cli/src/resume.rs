//! `generate resume`: lists interrupted runs, continues one, or discards it.

use std::path::Path;

use sd_pipeline::resume::{ClaimedRun, InterruptedRun, discard, interrupted_runs};
use sd_pipeline::save::ImageFormat;
use sd_pipeline::{Engine, ModelChoice, Request};
use serde_json::{Value, json};

use crate::arguments::ResumeArguments;
use crate::hint::Failure;
use crate::{run, terminal};

/// How many characters of a prompt the table shows.
const LONGEST_PROMPT: usize = 50;

/// Lists, continues or discards.
///
/// # Errors
/// There is no such run, its model is missing or was changed, or the run failed.
pub(crate) fn run(arguments: &ResumeArguments) -> Result<(), Failure> {
    let user_dirs = sd_catalog::user_dirs();
    let id = match &arguments.id {
        Some(id) => id.clone(),
        None => {
            let runs = interrupted_runs(&user_dirs)?;
            match runs.first() {
                Some(last) if arguments.last => last.id.clone(),
                Some(_) if arguments.discard => return Err(Failure::nothing_to_discard()),
                _ => {
                    list(&runs, arguments);
                    return Ok(());
                }
            }
        }
    };
    if arguments.discard {
        discard(&user_dirs, &id)?;
        if !arguments.display.quiet {
            terminal::note(&format!("discarded the run {id}"));
        }
        return Ok(());
    }
    sd_pipeline::device::compute_with(arguments.threads)?;
    let claimed = ClaimedRun::claim(&user_dirs, &id)?;
    let claimed = match arguments.memory {
        Some(memory) => claimed.with_memory(memory),
        None => claimed,
    };
    let claimed = match &arguments.output {
        Some(file) if names_an_image(file) => {
            let message = format!(
                "{} is no folder: images keep the names of the run",
                file.display()
            );
            return Err(
                Failure::usage(message).advising("--output of `generate resume` takes a folder".to_owned())
            );
        }
        Some(folder) => claimed.with_output(folder),
        None => claimed,
    };
    let models = models(claimed.models())?;
    let later = claimed.later().iter();
    let later = later.map(|later| Ok(later.request(self::models(later.models())?, &user_dirs)));
    let later = later.collect::<Result<Vec<Request>, Failure>>()?;
    run::execute(arguments.display.show(), None, |observer, interrupt| {
        if later.is_empty() {
            return Engine::new().resume(claimed, models, &user_dirs, observer, interrupt);
        }
        // What the next prompt can use stays in memory.
        let mut engine = Engine::new().keep_loaded();
        let later: Vec<&Request> = later.iter().collect();
        // Before the run ends, whose state holds them: a kill loses none.
        engine.encode_ahead(&later, observer, interrupt)?;
        let mut images = engine.resume(claimed, models, &user_dirs, observer, interrupt)?;
        images.extend(engine.run_all(&later, observer, interrupt)?);
        Ok(images)
    })?;
    Ok(())
}

/// Whether `path` ends as the file of an image.
fn names_an_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    !path.is_dir() && extension.and_then(ImageFormat::of_extension).is_some()
}

/// The models of a run, which must still exist.
fn models(named: Vec<(&str, Option<&Path>)>) -> Result<Vec<ModelChoice>, Failure> {
    let models = named
        .into_iter()
        .map(|(name, folder)| sd_catalog::model_of_run(name, folder));
    Ok(models.collect::<sd_catalog::Result<Vec<_>>>()?)
}

fn list(runs: &[InterruptedRun], arguments: &ResumeArguments) {
    if arguments.display.json {
        let runs: Vec<Value> = runs.iter().map(object).collect();
        terminal::print_json(json!({ "event": "interrupted", "runs": runs }));
        return;
    }
    if runs.is_empty() {
        if !arguments.display.quiet {
            terminal::note("There is no interrupted run.");
        }
        return;
    }
    let rows = runs.iter().map(row);
    let heading = ["ID", "STEP", "WHEN", "MODEL", "PROMPT"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(heading).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3].map(|column| width(column).unwrap_or_default());
    for [id, step, when, model, prompt] in &rows {
        let [first, second, third, fourth] = widths;
        terminal::print_line(&format!(
            "{id:first$}  {step:second$}  {when:third$}  {model:fourth$}  {prompt}"
        ));
    }
    if !arguments.display.quiet {
        terminal::note(
            "`generate resume ID` resumes a run, `generate resume --last` the newest, which is at the top.",
        );
    }
}

/// A run's id, its steps, when it was interrupted, its model and its prompt.
fn row(run: &InterruptedRun) -> [String; 5] {
    match &run.outline {
        Ok(outline) => {
            let when = outline.kept_at.get(..19).unwrap_or(&outline.kept_at);
            [
                run.id.clone(),
                format!("{} of {}", outline.steps_done, outline.steps),
                when.replace('T', " "),
                outline.model.clone(),
                match outline.later {
                    0 => shortened(&outline.prompt),
                    later => format!("{} (+{later} prompts)", shortened(&outline.prompt)),
                },
            ]
        }
        Err(error) => {
            let none = || "-".to_owned();
            [run.id.clone(), none(), none(), none(), error.to_string()]
        }
    }
}

/// The prompt in one short line.
fn shortened(prompt: &str) -> String {
    let mut line: String = prompt
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    if let Some((end, _)) = line.char_indices().nth(LONGEST_PROMPT) {
        line.truncate(end);
        line.push('…');
    }
    line
}

fn object(run: &InterruptedRun) -> Value {
    match &run.outline {
        Ok(outline) => json!({
            "id": run.id,
            "prompt": outline.prompt,
            "model": outline.model,
            "images": outline.images,
            "steps_done": outline.steps_done,
            "steps": outline.steps,
            "kept_at": outline.kept_at,
            "output": outline.output,
            "later": outline.later,
        }),
        Err(error) => json!({ "id": run.id, "error": error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_becomes_one_short_line() {
        assert_eq!(shortened("a cat,\n\tsleeping \u{1b}[31m"), "a cat, sleeping [31m");
        let long = shortened(&"ö".repeat(80));
        assert_eq!(long.chars().count(), LONGEST_PROMPT + 1);
        assert!(long.ends_with('…'));
    }
}
