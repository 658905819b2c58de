//! Only some files may test the kind of a device. All others use `sd_ops::Capabilities`.

use std::path::{Path, PathBuf};

/// Code that tests the kind of a device.
const DEVICE_TESTS: [&str; 8] = [
    ".is_cpu()",
    ".is_cuda()",
    ".is_metal()",
    "Device::Cpu =>",
    "Device::Cpu |",
    "Device::Cuda(",
    "Device::Metal(",
    "DeviceLocation",
];

/// Code that tests the features of the build.
const FEATURE_TESTS: [&str; 2] = ["feature = \"cuda\"", "feature = \"metal\""];

/// The files and folders that may test devices: the capabilities, and what opens devices and allocates memory
/// on them.
const MAY_TEST_DEVICES: [&str; 8] = [
    "crates/ops/src/capabilities.rs",
    // They make devices of their own kinds.
    "crates/ops/src/cuda/",
    "crates/ops/src/metal/",
    "crates/weights/src/buffers/",
    "crates/weights/src/cuda/",
    "crates/weights/src/device.rs",
    "crates/weights/src/metal_device.rs",
    "crates/pipeline/src/device.rs",
];

/// The files and folders that may test features: the operations, and the device code of the weights.
const MAY_TEST_FEATURES: [&str; 11] = [
    // Tests and measurements of a GPU's own.
    "crates/cli/tests/device/",
    "crates/ops/examples/gpu_kernels.rs",
    "crates/ops/tests/device/",
    "crates/ops/src/",
    "crates/weights/src/buffers/",
    "crates/weights/src/cuda/",
    "crates/weights/src/device.rs",
    // It declares the module `cuda`.
    "crates/weights/src/lib.rs",
    // A GPU that shares the machine's memory reads tensors whole.
    "crates/weights/src/parts.rs",
    // It counts what devices of their own are given.
    "crates/weights/src/uploads.rs",
    "crates/weights/tests/device/",
];

#[test]
fn only_the_capabilities_tell_devices_apart() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["crates", "tools", "benches", "fuzz/fuzz_targets"] {
        add_sources(&root.join(folder), &mut files);
    }
    let mut found = Vec::new();
    for file in &files {
        let name = file
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        let text = std::fs::read_to_string(file).unwrap();
        let may = |paths: &[&str]| paths.iter().any(|path| name.starts_with(path));
        for (tests, paths) in [
            (&DEVICE_TESTS[..], &MAY_TEST_DEVICES[..]),
            (&FEATURE_TESTS[..], &MAY_TEST_FEATURES[..]),
        ] {
            let used = tests.iter().filter(|test| text.contains(**test));
            found.extend(used.filter(|_| !may(paths)).map(|test| format!("{name}: {test}")));
        }
    }
    assert!(files.len() > 300, "of all sources only {} were read", files.len());
    assert!(found.is_empty(), "use sd_ops::Capabilities instead: {found:#?}");
}

/// Adds the Rust files below `folder`, except this one.
fn add_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().unwrap() != "target" {
                add_sources(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with(file!().rsplit(['/', '\\']).next().unwrap())
        {
            files.push(path);
        }
    }
}
