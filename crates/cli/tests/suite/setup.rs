//! `setup.sh`: it checks what the build needs before it builds, and installs only a program that draws. The compilers are
//! stand-ins; the program that the build leaves is the real one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::command::{Fresh, Run};

/// What the script calls beside compilers.
const TOOLS: [&str; 14] = [
    "bash", "cp", "dirname", "env", "grep", "head", "install", "mkdir", "mktemp", "mv", "rm", "sed", "sh",
    "uname",
];

/// A system with the tools that the script calls, and no others.
struct System {
    fresh: Fresh,
    tools: PathBuf,
    home: PathBuf,
}

impl System {
    /// A system with Rust of this `version`, with a C compiler, and with a cargo that "builds" the program.
    fn with_rust(version: &str) -> Self {
        let fresh = Fresh::new();
        let (tools, home) = (fresh.path().join("tools"), fresh.path().join("home"));
        fs::create_dir_all(&tools).unwrap();
        fs::create_dir_all(&home).unwrap();
        for tool in TOOLS {
            symlink(path_of(tool), tools.join(tool)).unwrap();
        }
        let system = Self { fresh, tools, home };
        system.script("cc", "exit 0");
        system.script("rustc", &format!("echo 'rustc {version} (59807616e 2026-04-14)'"));
        system.script(
            "cargo",
            "echo \"cargo $*\" >&2\nmkdir -p \"$CARGO_TARGET_DIR/dist\" && cp \"$BUILT\" \"$CARGO_TARGET_DIR/dist/generate\"",
        );
        // Without fish's completions.
        system.script(
            "built",
            &format!(
                "case \"$1 ${{2:-}}\" in\n  'man ') echo '.TH generate 1' ;;\n  'completions bash') echo 'complete -F _generate generate' ;;\n  \
                 'completions zsh') echo '#compdef generate' ;;\n  completions*) exit 2 ;;\n  *) exec '{}' \"$@\" ;;\nesac",
                env!("CARGO_BIN_EXE_generate")
            ),
        );
        system
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.tools.join(name);
        fs::write(&path, format!("#!{}\n{text}\n", path_of("bash").display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn setup(&self, arguments: &str) -> Run {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../setup.sh");
        let mut command = self
            .fresh
            .shell(&format!("exec '{}' {arguments}", script.display()));
        command
            .env("PATH", &self.tools)
            .env("HOME", &self.home)
            .env("SHELL", "/bin/bash")
            .env("CARGO_TARGET_DIR", self.fresh.path().join("target"))
            .env("BUILT", self.tools.join("built"))
            .env("CUDA_HOME", self.fresh.path())
            .env_remove("NVCC")
            .env_remove("PREFIX");
        Run::of(command.output().unwrap())
    }

    fn has(&self, path: &str) -> bool {
        self.home.join(".local").join(path).is_file()
    }
}

/// Where a tool of this machine is.
fn path_of(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(tool));
    candidates.find(|path| path.is_file()).unwrap()
}

#[test]
fn the_script_tries_the_program_and_installs_it_with_man_page_and_completions() {
    let system = System::with_rust("1.200.0-nightly");
    let run = system.setup("").succeeds();
    assert!(
        run.stderr.contains("cargo build --profile dist --locked"),
        "{}",
        run.stderr
    );
    assert!(run.stdout.contains("It drew a red circle in "), "{}", run.stdout);
    assert!(run.stdout.contains("is not on your PATH"), "{}", run.stdout);
    for file in [
        "bin/generate",
        "share/man/man1/generate.1",
        "share/bash-completion/completions/generate",
        "share/zsh/site-functions/_generate",
    ] {
        assert!(system.has(file), "{file} is not installed");
        assert!(run.stdout.contains(file), "{file} is not in:\n{}", run.stdout);
    }
    assert!(!system.has("share/fish/vendor_completions.d/generate.fish"));
    assert!(!system.has("bin/.generate.new"));
}

#[test]
fn the_program_for_nvidia_gpus_lies_beside_the_other() {
    let system = System::with_rust("1.200.0");
    let run = system.setup("--cuda");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("error: there is no `nvcc`"), "{}", run.stderr);
    system.script("nvcc", "exit 0");
    let run = system.setup("--cuda").succeeds();
    assert!(run.stderr.contains("--features cuda"), "{}", run.stderr);
    assert!(system.has("bin/generate") && system.has("bin/generate-cuda"));
    assert!(run.stdout.contains("bin/generate-cuda"), "{}", run.stdout);
}

#[test]
fn the_script_names_what_is_missing_before_it_builds() {
    let old = System::with_rust("1.70.0");
    let no_compiler = System::with_rust("1.200.0");
    fs::remove_file(no_compiler.tools.join("cc")).unwrap();
    let broken_compiler = System::with_rust("1.200.0");
    broken_compiler.script("cc", "echo 'stdio.h: No such file' >&2; exit 1");
    for (system, message) in [
        (old, "error: Rust 1.70 is too old: the program needs "),
        (no_compiler, "error: there is no C compiler"),
        (broken_compiler, "cc: stdio.h: No such file"),
    ] {
        for arguments in ["", "--check"] {
            let run = system.setup(arguments);
            assert_eq!(run.code, Some(1), "{}", run.stderr);
            assert!(run.stderr.contains(message), "{}", run.stderr);
            assert!(run.stderr.contains("hint: "), "{}", run.stderr);
            assert!(!run.stderr.contains("cargo build"), "{}", run.stderr);
            assert!(!system.has("bin/generate"));
        }
    }
}

#[test]
fn a_program_that_cannot_draw_does_not_replace_the_one_that_is_there() {
    let system = System::with_rust("1.200.0");
    system.script("built", "echo 'error: no' >&2; exit 1");
    let installed = system.home.join(".local/bin/generate");
    fs::create_dir_all(installed.parent().unwrap()).unwrap();
    fs::write(&installed, "the former one").unwrap();
    let run = system.setup("");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("cannot draw"), "{}", run.stderr);
    assert_eq!(fs::read_to_string(&installed).unwrap(), "the former one");
    assert!(!system.has("bin/.generate.new"));
}
