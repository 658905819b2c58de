//! Models of a local hub: downloads, use by id, listing and removal.

#[path = "../../../hub/tests/server/mod.rs"]
pub(crate) mod server;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::command::{Fresh, Run};
use serde_json::Value;
use server::{Server, Trouble};

const FAMILIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipeline/tests/fixtures/families");
const UPSCALERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/fixtures/upscaler");
const ID: &str = "me/tiny";
const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
#[test]
fn a_plan_names_damaged_files_as_they_are_on_the_hub() {
    let (server, fresh) = hub();
    server.put(ID, UNET, "\u{5}\0\0\0\0\0\0\0{oops");
    let mut command = fresh.command_at(server.endpoint());
    command.args([&["plan"], &GENERATE[..]].concat());
    let run = Run::of(command.output().unwrap()).fails(1, &format!("`{ID}/{UNET}`"));
    assert!(!run.stderr.contains("tmp"), "{}", run.stderr);
}

const GENERATE: [&str; 7] = ["a cat", "--model", ID, "--size", "64x64", "--steps", "1"];

/// A hub with a tiny model beside files of other programs.
fn hub() -> (Server, Fresh) {
    let server = Server::start();
    server.put_folder(ID, &Path::new(FAMILIES).join("sd15"));
    for other in [
        "v1-5-pruned.safetensors",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.bin",
    ] {
        server.put(ID, other, "not wanted");
    }
    (server, Fresh::new())
}

fn run(fresh: &Fresh, server: &Server, words: &[&str]) -> Run {
    Run::of(fresh.command_at(server.endpoint()).args(words).output().unwrap())
}

fn metadata(fresh: &Fresh, run: &Run) -> Value {
    let path = fresh.path().join(&run.images()[0]).with_extension("json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The blobs of `me/tiny`.
fn blobs(fresh: &Fresh) -> Vec<PathBuf> {
    let folder = fresh.hugging_face().join("hub/models--me--tiny/blobs");
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_named_model_is_downloaded_once_and_then_used_offline() {
    let (server, fresh) = hub();
    // A plan downloads nothing; offline it reports what is missing.
    let offline = fresh.run(&[&["plan"], &GENERATE[..]].concat());
    let offline = offline.fails(4, "`me/tiny` is not on this machine");
    assert!(
        offline
            .stderr
            .contains("`generate models pull me/tiny` downloads it"),
        "{}",
        offline.stderr
    );
    let plan = |words: &[&str]| {
        run(&fresh, &server, &[words, &GENERATE, &["--json"]].concat())
            .succeeds()
            .events()
    };
    let before = [plan(&["plan"]), plan(&["--plan"])];
    assert!(blobs(&fresh).is_empty());
    let weights = server.served(ID, UNET);
    assert!(!weights.is_empty() && weights.iter().all(|request| request.range.is_some()));
    let asked_before = weights.len();

    let first = run(&fresh, &server, &GENERATE).succeeds();
    assert!(first.stderr.contains("Downloading me/tiny: "), "{}", first.stderr);
    assert_eq!(metadata(&fresh, &first)["model"], ID);
    let requests = server.requests();
    let again = run(&fresh, &server, &GENERATE).succeeds();
    assert!(!again.stderr.contains("Downloading"), "{}", again.stderr);
    // The plan from headers was exact.
    let after = plan(&["plan"]);
    for name in ["predicted_peak", "smallest_budget", "resident_budget"] {
        assert_eq!(before[0][0][name], after[0][name], "{name}");
    }
    assert_eq!(server.requests(), requests);
    fresh.run(&GENERATE).succeeds();
    for other in [
        "v1-5-pruned.safetensors",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.bin",
    ] {
        assert!(server.served(ID, other).is_empty(), "{other}");
    }
    // A lost file is downloaded again, and no other.
    let lost = fs::canonicalize(fresh.hugging_face().join(format!(
        "hub/models--me--tiny/snapshots/{}/{UNET}",
        server::COMMIT
    )));
    fs::remove_file(lost.unwrap()).unwrap();
    fresh.run(&GENERATE).fails(4, "diffusion_pytorch_model");
    run(&fresh, &server, &GENERATE).succeeds();
    assert_eq!(server.served(ID, UNET).len(), asked_before + 2);
    assert_eq!(server.served(ID, "vae/config.json").len(), 3);
}

#[test]
fn what_nobody_named_is_not_fetched() {
    let (server, fresh) = hub();
    server.put_folder("Lykon/DreamShaper-8", &Path::new(FAMILIES).join("sd15"));
    for words in [
        &["a red circle", "--steps", "1"][..],
        &["a red circle", "--steps", "1", "--quality", "auto"],
    ] {
        let run = run(&fresh, &server, words).succeeds();
        assert!(
            run.stderr
                .contains("`generate models pull fast` downloads a real one"),
            "{}",
            run.stderr
        );
    }
    // Nothing is downloaded for an invalid run, nor an unused ControlNet of the configuration.
    fs::write(fresh.configuration(), "[defaults]\ncontrolnet = \"me/control\"\n").unwrap();
    run(&fresh, &server, &["--steps", "1", "--prompt", "-a red circle"]).succeeds();
    run(
        &fresh,
        &server,
        &[&GENERATE[..], &["--sampler", "magic"]].concat(),
    )
    .fails(2, "magic");
    assert!(server.requests().is_empty());
}

#[test]
fn a_preset_is_pulled_with_all_its_parts() {
    let (server, fresh) = hub();
    server.put_folder("Lykon/DreamShaper-8", &Path::new(FAMILIES).join("sd15"));
    let network = fs::read(Path::new(UPSCALERS).join("x2/model.pth")).unwrap();
    server.put("ai-forever/Real-ESRGAN", "RealESRGAN_x2.pth", network);
    let pulled = run(&fresh, &server, &["models", "pull", "hd"]).succeeds();
    let paths: Vec<&str> = pulled.stdout.lines().collect();
    assert_eq!(paths.len(), 2, "{}", pulled.stdout);
    assert!(Path::new(paths[0]).join("model_index.json").is_file());
    assert!(paths[1].ends_with("RealESRGAN_x2.pth") && Path::new(paths[1]).is_file());
    let hd = ["a cat", "--quality", "hd", "--size", "64x64", "--steps", "1"];
    let generated = fresh.run(&hd).succeeds();
    let found = metadata(&fresh, &generated);
    assert_eq!(
        (&found["upscale"], &found["upscale_method"]),
        (&2.into(), &"RealESRGAN_x2".into())
    );

    // A default upscaler that is damaged is replaced by resampling.
    let network = fresh.hugging_face().join(format!(
        "hub/models--ai-forever--Real-ESRGAN/snapshots/{}/RealESRGAN_x2.pth",
        server::COMMIT
    ));
    let whole = fs::read(&network).unwrap();
    fs::write(&network, &whole[..whole.len() / 2]).unwrap();
    let resampled = fresh.run(&hd).succeeds();
    let found = metadata(&fresh, &resampled);
    assert_eq!(
        (&found["upscale_method"], &found["failures"]),
        (&"lanczos".into(), &Value::Array(vec![]))
    );
    fs::write(&network, whole).unwrap();

    let list = fresh.run(&["models"]).succeeds();
    let line = |id: &str| {
        list.stdout
            .lines()
            .find(|line| line.starts_with(id))
            .unwrap()
            .to_owned()
    };
    let model = line("Lykon/DreamShaper-8 ");
    assert!(
        model.contains(" Stable Diffusion ") && model.contains(" lcm, fast, "),
        "{model}"
    );
    assert!(
        line("ai-forever/Real-ESRGAN ").contains(" upscaler "),
        "{}",
        list.stdout
    );
    assert!(list.stderr.starts_with("2 in "), "{}", list.stderr);

    let removed = fresh.run(&["models", "rm", "Lykon/DreamShaper-8"]).succeeds();
    assert!(
        removed.stderr.starts_with("removed Lykon/DreamShaper-8, "),
        "{}",
        removed.stderr
    );
    fresh
        .run(&hd)
        .fails(4, "`Lykon/DreamShaper-8` is not on this machine");
    fresh
        .run(&["models", "rm", "Lykon/DreamShaper-8"])
        .fails(4, "is not in the cache");
    fresh
        .run(&["models", "rm", "fast"])
        .fails(2, "`fast` is not the id");
    let list = fresh.run(&["models", "list", "--json"]).succeeds().events();
    let models = list[0]["models"].as_array().unwrap();
    assert_eq!(
        (models.len(), &models[0]["id"]),
        (1, &"ai-forever/Real-ESRGAN".into())
    );
    assert_eq!(models[0]["presets"][0], "hd");
    run(&fresh, &server, &["models", "pull", "demo"]).succeeds();
    run(&fresh, &server, &["models", "pull", "best"]).fails(2, "there is no preset `best`");
}

#[test]
fn networks_that_go_with_a_model_are_fetched_by_their_ids() {
    let (server, fresh) = hub();
    server.put_folder("me/control", &Path::new(FAMILIES).join("control-1"));
    let network = fs::read(Path::new(UPSCALERS).join("x4/model.pth")).unwrap();
    server.put("me/nets", "nets/x4.pth", network.clone());
    server.put("me/nets", "nets/other.pth", network);
    let photo = format!("{FAMILIES}/init.png");
    let words = [
        "--depth",
        &photo,
        "--controlnet",
        "me/control",
        "--upscale",
        "2",
        "--upscaler",
        "me/nets:nets/x4.pth",
    ];
    let generated = run(&fresh, &server, &[&GENERATE[..], &words].concat()).succeeds();
    let found = metadata(&fresh, &generated);
    assert_eq!(
        (&found["upscale_method"], &found["failures"]),
        (&"x4".into(), &Value::Array(vec![]))
    );
    assert!(server.served("me/nets", "nets/other.pth").len() <= 1);
    fresh.run(&[&GENERATE[..], &words].concat()).succeeds();

    server.put("me/loras", "one.safetensors", "1");
    server.put("me/loras", "two.safetensors", "2");
    run(
        &fresh,
        &server,
        &[&GENERATE[..], &["--lora", "me/loras:0.5"]].concat(),
    )
    .fails(2, "one.safetensors, two.safetensors");
    let with_text = run(
        &fresh,
        &server,
        &[&GENERATE[..], &["--lora", "me/loras:one.safetensors:0.5"]].concat(),
    )
    .succeeds();
    assert!(
        with_text
            .stderr
            .contains("the LoRA `me/loras:one.safetensors` is left out"),
        "{}",
        with_text.stderr
    );
}

#[test]
fn the_default_controlnet_is_fetched_where_none_is_named() {
    let (server, fresh) = hub();
    let default_controlnet = "lllyasviel/control_v11p_sd15_openpose";
    server.put_folder(default_controlnet, &Path::new(FAMILIES).join("control-1"));
    server.put(default_controlnet, "diffusion_pytorch_model.bin", "not wanted");
    let photo = format!("{FAMILIES}/init.png");
    let with = |option: &'static str| [&GENERATE[..], &[option, &photo]].concat();
    let generated = run(&fresh, &server, &with("--pose")).succeeds();
    for id in [ID, default_controlnet] {
        assert!(
            generated.stderr.contains(&format!("Downloading {id}: ")),
            "{}",
            generated.stderr
        );
    }
    let found = metadata(&fresh, &generated);
    assert_eq!(
        (&found["controlnet"][0]["name"], &found["failures"]),
        (&default_controlnet.into(), &Value::Array(vec![]))
    );
    assert!(
        server
            .served(default_controlnet, "diffusion_pytorch_model.bin")
            .is_empty()
    );
    // Then it is cached, also offline.
    let requests = server.requests();
    run(&fresh, &server, &with("--pose")).succeeds();
    fresh.run(&with("--pose")).succeeds();
    // There is no default for another family.
    run(&fresh, &server, &["a cat", "--model", "demo", "--pose", &photo])
        .fails(2, "--pose needs --controlnet");
    assert_eq!(server.requests(), requests);
    server.put_folder("me/xl", &Path::new(FAMILIES).join("sdxl"));
    let xl = ["a cat", "--model", "me/xl", "--pose", &photo];
    run(&fresh, &server, &xl).fails(2, "with a model of Stable Diffusion XL --pose needs --controlnet");
    assert!(server.served("me/xl", UNET).is_empty());
    // A plan looks for the headers of what is missing.
    let depth = "lllyasviel/control_v11f1p_sd15_depth";
    run(&fresh, &server, &[&["plan"][..], &with("--depth")].concat())
        .fails(4, &format!("knows no repository `{depth}`"));
    server.put_folder(depth, &Path::new(FAMILIES).join("control-1"));
    run(&fresh, &server, &[&["plan"][..], &with("--depth")].concat()).succeeds();
    run(&fresh, &server, &with("--canny"))
        .fails(4, "knows no repository `lllyasviel/control_v11p_sd15_canny`");
}

#[test]
fn a_preset_with_a_default_controlnet_is_chosen() {
    let server = Server::start();
    let fresh = Fresh::new();
    let default_controlnet = "lllyasviel/control_v11p_sd15_openpose";
    server.put_folder(default_controlnet, &Path::new(FAMILIES).join("control-1"));
    fresh.install("families/sd15", "Lykon/DreamShaper-8");
    fresh.install("models/tiny-large", "stabilityai/stable-diffusion-3.5-large");
    let photo = format!("{FAMILIES}/init.png");
    let words = ["a cat", "--size", "64x64", "--steps", "1", "--pose", &photo];
    let generated = run(&fresh, &server, &words).succeeds();
    assert!(
        generated.stderr.contains("Generating with the preset `fast`"),
        "{}",
        generated.stderr
    );
    assert_eq!(
        metadata(&fresh, &generated)["controlnet"][0]["name"],
        default_controlnet
    );
}

#[test]
fn a_gated_model_wants_a_login() {
    let (server, fresh) = hub();
    server.gate(ID);
    server.admit("hf_good", "somebody", true);
    server.admit("hf_other", "another", false);
    let gated = run(&fresh, &server, &GENERATE).fails(4, "`me/tiny` is gated");
    let page = format!(
        "hint: accept the licence on {}/me/tiny, then `generate login`",
        server.endpoint()
    );
    assert!(gated.stderr.contains(&page), "{}", gated.stderr);

    let login = |token: &str| {
        let mut command = fresh.command_at(server.endpoint());
        command
            .arg("login")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        Run::of(child.wait_with_output().unwrap())
    };
    login("hf_bad\n").fails(4, "refuses the token");
    login("\n").fails(2, "not a token");
    assert!(!fresh.hugging_face().join("token").exists());
    assert!(
        login("hf_other\n")
            .succeeds()
            .stderr
            .contains("Logged in as another")
    );
    let gated = run(&fresh, &server, &["models", "pull", ID]).fails(4, "the account of this token has not");
    assert!(!gated.stderr.contains("hf_other"), "{}", gated.stderr);
    run(&fresh, &server, &["login", "--token", "hf_good"]).succeeds();
    let token = fresh.hugging_face().join("token");
    assert_eq!(fs::read_to_string(&token).unwrap(), "hf_good");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    }
    run(&fresh, &server, &GENERATE).succeeds();
    let to_others = server
        .requests()
        .into_iter()
        .filter(|request| request.of_large_files);
    assert!(
        to_others
            .map(|request| request.authorization)
            .all(|shown| shown.is_none())
    );
    // Offline the hub is not used.
    fresh.run(&["login", "--token", "hf_new"]).succeeds();
    assert_eq!(fs::read_to_string(&token).unwrap(), "hf_new");
}

#[test]
fn errors_have_hints() {
    let (server, fresh) = hub();
    let pull = |name: &str| run(&fresh, &server, &["models", "pull", name]);
    pull("me/nothing").fails(4, "knows no repository `me/nothing`");
    pull("me/tiny@v9").fails(4, "has no revision `v9`");
    pull("me/tiny:nothing.pth").fails(4, "has no file `nothing.pth`");
    pull("me/tiny/x").fails(2, "`me/tiny/x` is not the id");
    server.put("me/text", "README.md", "text");
    pull("me/text").fails(1, "`me/text` cannot be used");
    for _ in 0..2 {
        server.trouble(UNET, Trouble::Wrong);
    }
    pull(ID).fails(4, "was corrupted twice");
    server.claim(ID, UNET, 1 << 60);
    pull(ID).fails(4, "there is no space for 1073741824.0GB");
    fresh
        .run(&["models", "pull", ID])
        .fails(4, "HF_HUB_OFFLINE forbids");
    let nobody = fresh
        .command_at("http://127.0.0.1:9")
        .args(["models", "pull", ID])
        .output()
        .unwrap();
    Run::of(nobody).fails(4, "127.0.0.1 cannot be reached");
    assert!(!fresh.hugging_face().join("hub/models--me--tiny/refs").exists());
}

#[test]
fn a_download_resumes_after_a_lost_connection() {
    let (server, fresh) = hub();
    server.trouble(UNET, Trouble::Truncate(50_000));
    let pulled = run(&fresh, &server, &["models", "pull", ID, "--json"]).succeeds();
    let events = pulled.events();
    assert_eq!(events[0]["event"], "download");
    assert_eq!(events[0]["bytes"], events[0]["bytes_left"]);
    let last = &events[events.len() - 2];
    assert_eq!(
        (&last["event"], &last["bytes"]),
        (&"downloading".into(), &events[0]["bytes"])
    );
    assert_eq!(events.last().unwrap()["event"], "pulled");
    let ranges: Vec<_> = server
        .served(ID, UNET)
        .into_iter()
        .map(|request| request.range)
        .collect();
    assert_eq!(ranges, [None, Some("bytes=50000-".to_owned())]);
    fresh.run(&GENERATE).succeeds();
}

#[cfg(unix)]
#[test]
fn a_download_that_was_interrupted_goes_on() {
    use std::time::{Duration, Instant};
    let (server, fresh) = hub();
    server.trouble(UNET, Trouble::Slow(150));
    let mut command = fresh.command_at(server.endpoint());
    let child = command
        .args(GENERATE)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let is_partial = |path: &PathBuf| {
        let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
        path.extension().is_some_and(|ending| ending == "incomplete") && bytes > 30_000
    };
    while !blobs(&fresh).iter().any(is_partial) {
        assert!(begin.elapsed() < Duration::from_secs(30), "nothing arrives");
        std::thread::sleep(Duration::from_millis(20));
    }
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    Run::of(child.wait_with_output().unwrap()).fails(130, "interrupted");
    let have = blobs(&fresh)
        .into_iter()
        .find(is_partial)
        .map(|path| fs::metadata(path).unwrap().len());
    let generated = run(&fresh, &server, &GENERATE).succeeds();
    assert!(
        generated.stderr.contains("of it downloaded already"),
        "{}",
        generated.stderr
    );
    let last = server.served(ID, UNET).pop().unwrap();
    assert_eq!(last.range, have.map(|have| format!("bytes={have}-")));
}
