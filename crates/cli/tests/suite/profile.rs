//! The page that `--profile` writes.

use std::fs;

use crate::command::Fresh;

const PROMPT: &str = "a <b>red</b> circle & \"more\"";

#[test]
fn a_run_is_shown_on_a_page() {
    let fresh = Fresh::new();
    let arguments = [
        PROMPT,
        "--steps",
        "3",
        "--n",
        "2",
        "--memory",
        "200MB",
        "--profile",
        "run.html",
    ];
    let run = fresh.run(&arguments).succeeds();
    assert_eq!(run.images().len(), 2);
    let path = fresh.path().join("run.html");
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    for shown in [
        "<h1>a &lt;b&gt;red&lt;/b&gt; circle &amp; &quot;more&quot;</h1>",
        "of the budget of 200.0MB",
        "Predicted peak",
        "median of 6",
        "2 images saved",
        "image 2, step 3: ",
        "Weights read",
    ] {
        assert!(page.contains(shown), "{shown} is not in the page");
    }
    for stage in ["open", "encode", "load", "denoise", "decode"] {
        assert!(page.contains(&format!("</span>{stage}</th>")), "{stage}");
    }
    for label in [
        "Startup",
        "After text encoding",
        "After model load",
        "After generation",
        "Complete",
    ] {
        assert!(
            page.contains(&format!("<th scope=\"row\">{label}</th>")),
            "{label}"
        );
    }
    assert_eq!(page.matches("<img src=\"data:image/png;base64,").count(), 2);
    assert!(!page.contains("<b>"));

    // A second run replaces the page, and leaves nothing else in the folder.
    fresh
        .run(&["a tree", "--steps", "1", "--profile", "run.html"])
        .succeeds();
    assert!(fs::read_to_string(&path).unwrap().contains("<h1>a tree</h1>"));
    assert_eq!(fresh.files("."), ["outputs", "run.html"]);
}

#[test]
fn a_run_that_fails_is_shown_too() {
    let fresh = Fresh::new();
    fresh
        .run(&["a tree", "--memory", "1MB", "--profile", "run.html"])
        .fails(3, "1.0MB");
    let page = fs::read_to_string(fresh.path().join("run.html")).unwrap();
    assert!(page.contains("The run ended early: ") && page.contains("no image saved"));
}

#[test]
fn an_unwritable_output_is_refused_before_anything_is_generated() {
    let fresh = Fresh::new();
    fs::write(fresh.path().join("notes.txt"), "mine").unwrap();
    for (path, cause) in [
        (
            "missing/run.html",
            "cannot write the profile to `missing/run.html`",
        ),
        ("notes.txt", "it is no profile"),
        (".", "cannot write the profile to `.`"),
    ] {
        fresh.run(&["a tree", "--profile", path]).fails(1, cause);
    }
    fresh
        .run(&["plan", "a tree", "--profile", "run.html"])
        .fails(2, "--profile");
    assert_eq!(
        fs::read_to_string(fresh.path().join("notes.txt")).unwrap(),
        "mine"
    );
    assert_eq!(fresh.files("."), ["notes.txt"]);
}
