//! C++ programs that launch kernels: one for each file of kernels, compiled when the first test asks for it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, OnceLock};

use super::translation;

/// A file of kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Convolution,
    Copy,
    Decode,
    Elementwise,
    Norm,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Convolution => "convolution",
            Self::Copy => "copy",
            Self::Decode => "decode",
            Self::Elementwise => "elementwise",
            Self::Norm => "norm",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Convolution => include_str!("../../src/metal/kernels/convolution.metal"),
            Self::Copy => include_str!("../../src/metal/kernels/copy.metal"),
            Self::Decode => concat!(
                include_str!("../../src/gpu/quantization.h"),
                include_str!("../../src/metal/kernels/decode.metal")
            ),
            Self::Elementwise => include_str!("../../src/metal/kernels/elementwise.metal"),
            Self::Norm => include_str!("../../src/metal/kernels/norm.metal"),
        }
    }

    /// The program of these kernels.
    pub(crate) fn program(self) -> &'static Path {
        static PROGRAMS: [OnceLock<PathBuf>; 5] = [const { OnceLock::new() }; 5];
        let compiler = COMPILER.as_ref().expect("a C++ compiler");
        PROGRAMS[self as usize].get_or_init(|| {
            let program = translation::program(self.name(), self.text());
            compiler.compiled(self.name(), &program)
        })
    }
}

/// Whether there is a C++ compiler. If not, tests have nothing to run.
pub(crate) fn is_there() -> bool {
    COMPILER.is_some()
}

static COMPILER: LazyLock<Option<Compiler>> = LazyLock::new(|| {
    let own = std::env::var("CXX").unwrap_or_default();
    let found = [own.as_str(), "c++", "clang++", "g++"]
        .into_iter()
        .find_map(Compiler::called);
    if found.is_none() {
        // Not by a macro, whose words nobody sees of tests that pass.
        let line =
            "the kernels for Apple GPUs are not tested: there is no C++ compiler ($CXX, c++, clang++, g++)";
        _ = writeln!(std::io::stderr(), "{line}");
    }
    found
});

/// Without warnings: attributes are Metal's. Each product and each sum is rounded.
const OPTIONS: [&str; 4] = ["-std=c++17", "-O1", "-w", "-ffp-contract=off"];

struct Compiler {
    /// Its name and the arguments that it always gets.
    words: Vec<String>,
    version: Vec<u8>,
}

impl Compiler {
    /// The compiler that a command is, if it is one.
    fn called(command: &str) -> Option<Self> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let (name, arguments) = words.split_first()?;
        let answer = Command::new(name)
            .args(arguments)
            .arg("--version")
            .output()
            .ok()?;
        answer.status.success().then_some(Self {
            version: answer.stdout,
            words,
        })
    }

    /// The program with this text. It is kept for later runs, until the text or the compiler is another.
    fn compiled(&self, name: &str, text: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        (&self.words, &self.version, OPTIONS, text).hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metal_kernels");
        std::fs::create_dir_all(&folder).unwrap();
        let program = folder.join(format!("{name}-{:016x}", hasher.finish()));
        if program.exists() {
            return program;
        }
        // Others may be compiling it too.
        let partial = program.with_extension(std::process::id().to_string());
        let source = partial.with_added_extension("cc");
        std::fs::write(&source, text).unwrap();
        let output = Command::new(&self.words[0])
            .args(&self.words[1..])
            .args(OPTIONS)
            .arg(&source)
            .arg("-o")
            .arg(&partial)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} does not compile:\n{messages}");
        std::fs::remove_file(&source).unwrap();
        std::fs::rename(&partial, &program).unwrap();
        program
    }
}
