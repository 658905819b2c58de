//! The kernels for Apple GPUs, compiled as C++ for the CPU and compared with the operations on CPUs: every kernel,
//! in f32 and in 16 bits, at shapes that no group of threads divides.
//!
//! Neither a Mac nor the feature `metal` is needed, but a C++ compiler (`$CXX`, `c++`, `clang++` or `g++`). Where
//! there is none, a line says so and the tests pass. What Metal's library has is in headers of this folder, as far
//! as the kernels use it. A kernel runs once with its threads in order and once in the reverse order, its buffers
//! end before a page that cannot be read, and what nobody has written is NaN: so races, reads beyond the end and
//! reads of undefined values are found, too.
//!
//! The launches are those of `src/metal`, written again: parameters and grids are the same.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod comparison;
mod compiler;
mod convolution;
mod copies;
mod elementwise;
mod groups;
mod launch;
mod quantization;
#[path = "../random/mod.rs"]
mod random;
mod rows;
mod translation;

/// The files of this folder name every kernel of the other one, so that none is forgotten.
#[test]
fn every_kernel_has_tests() {
    let files = |folder: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
    };
    let tests: String = files("tests/metal_kernels").collect();
    for (kernel, _) in files("src/metal/kernels").flat_map(|text| translation::kernels(&text)) {
        // One that is for a single type has that in its name.
        let name = format!("\"{}\"", kernel.trim_end_matches("_f32"));
        assert!(tests.contains(&name), "no test launches {kernel}");
    }
}
