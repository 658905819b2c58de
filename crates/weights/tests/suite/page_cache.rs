//! What stays in the system's page cache when a network is dropped.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use candle_core::{Device, Tensor};
use sd_weights::{Blocks, Checkpoint, Residency, WeightOptions, WeightType, Weights};

/// Elements of a tensor: many pages.
const ELEMENTS: usize = 1 << 18;

/// Whether the byte at `offset` of the file is in the page cache. `None` if the file system does not say.
fn is_cached(file: &File, offset: usize) -> Option<bool> {
    let mut byte = 0_u8;
    let buffer = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: the descriptor is open as long as the file is borrowed, and the call writes at most the one byte of the
    // buffer, which outlives it.
    #[allow(unsafe_code)]
    let read = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            &raw const buffer,
            1,
            offset as libc::off_t,
            libc::RWF_NOWAIT,
        )
    };
    match read {
        1 => Some(true),
        _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Some(false),
        _ => None,
    }
}

/// A file with the tensors `entry` and `others`, which are on the disk, and the place of the middle of each.
fn file_of_two(path: &Path) -> (File, [usize; 2]) {
    let tensor = Tensor::ones(ELEMENTS, candle_core::DType::F32, &Device::Cpu).unwrap();
    let tensors = [("entry", tensor.clone()), ("others", tensor)];
    candle_core::safetensors::save(&tensors.into_iter().collect(), path).unwrap();
    let file = File::open(path).unwrap();
    // Pages that are not written yet cannot be dropped.
    file.sync_all().unwrap();
    let checkpoint = Checkpoint::open_file(path.to_owned()).unwrap();
    let middle = |wanted: &str| {
        let (_, header) = checkpoint.tensors().find(|(name, _)| *name == wanted).unwrap();
        (header.offset + header.bytes / 2) as usize
    };
    (file, [middle("entry"), middle("others")])
}

#[test]
fn a_network_that_runs_once_drops_only_what_it_has_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.safetensors");
    let (file, [entry, others]) = file_of_two(&path);
    if is_cached(&file, entry) != Some(true) || is_cached(&file, others) != Some(true) {
        return;
    }
    let options = WeightOptions::new(Device::Cpu, WeightType::AsStored, Residency::Resident);
    let weights = Weights::new(Checkpoint::open_file(path).unwrap(), options);
    // The other tensors of the scope are those of blocks that are read next.
    let once = Blocks::single(weights.for_one_pass(), |weights| {
        weights.tensor("entry", &[ELEMENTS])
    });
    let once = once.unwrap();
    drop(once.block(0).unwrap());
    drop(once);
    assert_eq!(
        is_cached(&file, others),
        Some(true),
        "what was not read was dropped"
    );
}
