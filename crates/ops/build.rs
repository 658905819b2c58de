//! Tells the code whether it is built for Apple GPUs: `cfg(metal)`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(metal)");
    let is_macos = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "macos");
    if is_macos || std::env::var_os("CARGO_FEATURE_METAL").is_some() {
        println!("cargo::rustc-cfg=metal");
    }
}
