//! Tells the code which GPUs it is built for, `cfg(metal)` and `cfg(gpu)`, and compiles the kernels for NVIDIA GPUs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of kernels, in `src/cuda/kernels`.
const KERNELS: [&str; 7] = [
    "attention",
    "attention_hopper",
    "convolution",
    "copy",
    "decode",
    "elementwise",
    "norm",
];
/// What they include.
const HEADERS: [&str; 5] = [
    "functions.cuh",
    "hopper.cuh",
    "tensor_cores.cuh",
    "values.cuh",
    "../../gpu/quantization.h",
];
/// The kernels for compute capability 9.0 alone, H100 and H200.
const FOR_HOPPER: &str = "attention_hopper";
/// The architectures of GeForce RTX 20 to 50, A100, H100 and B200.
const ARCHITECTURES: [&str; 7] = ["75", "80", "86", "89", "90", "100", "120"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(metal)");
    println!("cargo::rustc-check-cfg=cfg(gpu)");
    let is_macos = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "macos");
    let metal = is_macos || std::env::var_os("CARGO_FEATURE_METAL").is_some();
    let cuda = std::env::var_os("CARGO_FEATURE_CUDA").is_some();
    if metal {
        println!("cargo::rustc-cfg=metal");
    }
    if metal || cuda {
        println!("cargo::rustc-cfg=gpu");
    }
    if cuda && let Err(problem) = compile_kernels() {
        println!("cargo::error={problem}");
    }
}

/// Compiles each file to a fat binary in the folder of the build's results: machine code for every architecture, and
/// PTX of the newest one for those to come. `CUDA_COMPUTE_CAP=90` compiles for one alone. What is not compiled is an
/// empty file.
fn compile_kernels() -> Result<(), String> {
    let folder = Path::new("src/cuda/kernels");
    let results = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    for file in HEADERS {
        println!("cargo::rerun-if-changed={}", folder.join(file).display());
    }
    for variable in [
        "NVCC",
        "NVCC_CCBIN",
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDA_COMPUTE_CAP",
        "PATH",
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let nvcc = nvcc();
    let only = std::env::var("CUDA_COMPUTE_CAP").ok();
    let architectures: Vec<String> = match &only {
        Some(one) => vec![one.replace('.', "")],
        None => ARCHITECTURES.map(String::from).to_vec(),
    };
    let compile = |name: &str| {
        let source = folder.join(name).with_extension("cu");
        println!("cargo::rerun-if-changed={}", source.display());
        let result = results.join(name).with_extension("fatbin");
        let for_hopper = name == FOR_HOPPER;
        if for_hopper && !architectures.iter().any(|architecture| architecture == "90") {
            return std::fs::write(&result, []).map_err(|error| format!("{}: {error}", result.display()));
        }
        let mut command = Command::new(&nvcc);
        command.args(["-fatbin", "-O3", "-std=c++17", "--threads", "0", "-o"]);
        command.arg(&result).arg(&source);
        if for_hopper {
            command.arg("-gencode=arch=compute_90a,code=sm_90a");
        } else {
            for architecture in &architectures {
                command.arg(format!(
                    "-gencode=arch=compute_{architecture},code=sm_{architecture}"
                ));
            }
            if let Some(newest) = architectures.last() {
                command.arg(format!("-gencode=arch=compute_{newest},code=compute_{newest}"));
            }
        }
        if let Some(compiler) = std::env::var_os("NVCC_CCBIN") {
            command.arg("-ccbin").arg(compiler);
        }
        let output = command.output().map_err(|error| {
            let nvcc = nvcc.display();
            format!(
                "{nvcc}: {error}. The feature `cuda` needs the compiler of the CUDA toolkit, 12.8 or later"
            )
        })?;
        if output.status.success() {
            Ok(())
        } else {
            let said = String::from_utf8_lossy(&output.stderr).replace('\n', " | ");
            Err(format!("{} does not compile: {said}", source.display()))
        }
    };
    std::thread::scope(|scope| {
        let running = KERNELS.map(|name| scope.spawn(move || compile(name)));
        running
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })
}

/// The compiler: what `NVCC` names, that of the toolkit where the environment names its folder, or what the path has.
fn nvcc() -> PathBuf {
    if let Some(nvcc) = std::env::var_os("NVCC") {
        return nvcc.into();
    }
    let folders = ["CUDA_HOME", "CUDA_PATH"]
        .map(std::env::var_os)
        .into_iter()
        .flatten();
    folders
        .map(|folder| PathBuf::from(folder).join("bin/nvcc"))
        .chain([PathBuf::from("/usr/local/cuda/bin/nvcc")])
        .find(|nvcc| nvcc.is_file())
        .unwrap_or_else(|| "nvcc".into())
}
