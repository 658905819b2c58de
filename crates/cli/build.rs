//! Says where a program for NVIDIA GPUs finds NVIDIA's libraries when it starts.

/// The folder `cuda` beside the program, and the CUDA toolkit where it usually is.
const FOLDERS: &str = "$ORIGIN/cuda:/usr/local/cuda/lib64";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    if is_linux && std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{FOLDERS}");
    }
}
