//! A network's tensors as safetensors files, sharded as on the hub if they are large.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::architecture::Component;
use crate::networks::{Tensor, Values};

/// The most bytes of a file.
const LARGEST_SHARD: usize = 10_000_000_000;
/// Values that are made at a time.
const CHUNK: usize = 1 << 24;
/// The bytes of a value in 16 bits.
const BYTES_A_VALUE: usize = 2;

/// What the files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    Random,
    /// Nothing is written: a file of zeros takes no room where the file system knows holes.
    Zeros,
    /// The same, with matrices in 8 bits.
    ZerosInFp8,
}

impl Contents {
    /// The type of a tensor, as safetensors names it, and the bytes of its values.
    fn stored(self, tensor: &Tensor) -> (&'static str, usize) {
        match tensor.shape[..] {
            [_, _] if self == Self::ZerosInFp8 => ("F8_E4M3", tensor.count()),
            _ => ("BF16", tensor.count() * BYTES_A_VALUE),
        }
    }
}

/// Whether `folder` holds the weights of `component` already.
pub(crate) fn are_there(folder: &Path, component: &Component) -> bool {
    ["safetensors", "safetensors.index.json"]
        .iter()
        .any(|ending| folder.join(format!("{}.{ending}", component.file_stem)).exists())
}

/// Writes the tensors of `component` into `folder` and gives their bytes.
pub(crate) fn write(folder: &Path, component: &Component, contents: Contents) -> io::Result<u64> {
    fs::create_dir_all(folder)?;
    let mut tensors = component.tensors.clone();
    tensors.sort_by(|one, other| one.name.cmp(&other.name));
    let shards = divide(&tensors, contents);
    let total: usize = tensors.iter().map(|tensor| contents.stored(tensor).1).sum();
    let stem = component.file_stem;
    if let [only] = shards[..] {
        write_shard(&folder.join(format!("{stem}.safetensors")), only, contents)?;
        return Ok(total as u64);
    }
    let mut weight_map = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        let file = format!("{stem}-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        write_shard(&folder.join(&file), shard, contents)?;
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), file.clone())));
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    fs::write(
        folder.join(format!("{stem}.safetensors.index.json")),
        format!("{index:#}\n"),
    )?;
    Ok(total as u64)
}

/// Runs of tensors, each of which fits into a file.
fn divide(tensors: &[Tensor], contents: Contents) -> Vec<&[Tensor]> {
    let (mut shards, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (index, tensor) in tensors.iter().enumerate() {
        let (_, more) = contents.stored(tensor);
        if bytes + more > LARGEST_SHARD && index > first {
            shards.push(&tensors[first..index]);
            (first, bytes) = (index, 0);
        }
        bytes += more;
    }
    shards.push(&tensors[first..]);
    shards
}

fn write_shard(path: &Path, tensors: &[Tensor], contents: Contents) -> io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let (held_type, bytes) = contents.stored(tensor);
        let end = offset + bytes;
        let entry = json!({ "dtype": held_type, "shape": tensor.shape, "data_offsets": [offset, end] });
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The values begin at a multiple of eight bytes, as the reference implementation has it.
    header.resize(header.len().next_multiple_of(8), b' ');
    // Under its own name only once it is whole.
    let unfinished = path.with_extension("part");
    let mut file = File::create(&unfinished)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    if contents != Contents::Random {
        file.set_len((8 + header.len() + offset) as u64)?;
        drop(file);
        return fs::rename(unfinished, path);
    }
    let mut values = vec![[0; BYTES_A_VALUE]; CHUNK];
    for tensor in tensors {
        let seed = seed_of(&tensor.name);
        for first in (0..tensor.count()).step_by(CHUNK) {
            let values = &mut values[..CHUNK.min(tensor.count() - first)];
            fill(values, seed, first, tensor.values);
            file.write_all(values.as_flattened())?;
        }
    }
    drop(file);
    fs::rename(unfinished, path)
}

/// FNV-1a, so that a tensor's values depend only on its name and their index.
fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Fills `values`, the ones from the `first` on, with the bits of bfloat16 numbers, on all cores.
fn fill(values: &mut [[u8; BYTES_A_VALUE]], seed: u64, first: usize, kind: Values) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = values.len().div_ceil(threads).next_multiple_of(4);
    std::thread::scope(|scope| {
        for (index, part) in values.chunks_mut(share).enumerate() {
            let first = (first + index * share) / 4;
            scope.spawn(move || match kind {
                Values::Ones => part.fill(bits_of(1.0)),
                Values::Around(deviation) => uniform(part, seed, first as u64, deviation),
            });
        }
    });
}

/// Evenly spread numbers of this deviation; `counter` counts groups of four.
fn uniform(values: &mut [[u8; BYTES_A_VALUE]], seed: u64, counter: u64, deviation: f32) {
    let scale = deviation * 3.0_f32.sqrt() / f32::from(i16::MAX);
    for (index, group) in values.chunks_mut(4).enumerate() {
        // splitmix64
        let mut word = seed.wrapping_add((counter + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        for (index, value) in group.iter_mut().enumerate() {
            *value = bits_of(f32::from((word >> (16 * index)) as i16) * scale);
        }
    }
}

fn bits_of(value: f32) -> [u8; BYTES_A_VALUE] {
    ((value.to_bits() >> 16) as u16).to_le_bytes()
}
