//! Launches of kernels on the CPU.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use candle_core::{CpuStorage, DType, Storage, Tensor};
use half::{bf16, f16};

use super::compiler::Source;

/// A launch of a kernel that writes one buffer.
#[derive(Clone)]
pub(crate) struct Launch {
    program: &'static Path,
    kernel: String,
    held_type: DType,
    constants: Vec<u16>,
    buffers: Vec<(u32, Buffer)>,
    /// The index of what it writes, and the type of that.
    written: Option<(u32, DType)>,
}

#[derive(Clone)]
enum Buffer {
    Bytes(Vec<u8>),
    SameAs(u32),
}

impl Launch {
    /// A launch of a kernel for tensors of a type.
    pub(crate) fn of(source: Source, kernel: &str, held_type: DType) -> Self {
        let suffix = match held_type {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            _ => "f32",
        };
        Self {
            program: source.program(),
            kernel: format!("{kernel}_{suffix}"),
            held_type,
            constants: Vec::new(),
            buffers: Vec::new(),
            written: None,
        }
    }

    /// The function constants, by index: flags, then numbers.
    pub(crate) fn constants(mut self, flags: &[bool], numbers: &[u16]) -> Self {
        self.constants = flags
            .iter()
            .map(|&flag| u16::from(flag))
            .chain(numbers.iter().copied())
            .collect();
        self
    }

    /// A tensor that the kernel reads, in the type of the launch: what is from the view's first value to its last.
    pub(crate) fn input(self, index: u32, tensor: &Tensor) -> Self {
        let held_type = self.held_type;
        self.bytes(index, held_bytes(&storage(tensor), held_type))
    }

    /// As [`Launch::input`], where there is a tensor.
    pub(crate) fn optional(self, index: u32, tensor: Option<&Tensor>) -> Self {
        match tensor {
            Some(tensor) => self.input(index, tensor),
            None => self,
        }
    }

    /// A tensor that the kernel reads in 32 bits.
    pub(crate) fn wide_input(self, index: u32, tensor: &Tensor) -> Self {
        self.bytes(index, held_bytes(&storage(tensor), DType::F32))
    }

    /// So many values that the kernel writes.
    pub(crate) fn output(self, index: u32, count: usize) -> Self {
        self.in_place(index, &vec![f32::NAN; count])
    }

    /// So many values that the kernel writes in 32 bits.
    pub(crate) fn wide_output(mut self, index: u32, count: usize) -> Self {
        self.written = Some((index, DType::F32));
        self.bytes(index, vec![0xFF; 4 * count])
    }

    /// Values that the kernel changes.
    pub(crate) fn in_place(mut self, index: u32, values: &[f32]) -> Self {
        let held_type = self.held_type;
        self.written = Some((index, held_type));
        self.bytes(index, held_bytes(values, held_type))
    }

    /// The buffer `other`, which is given before, at another index, too. The kernel writes it.
    pub(crate) fn written_to(mut self, index: u32, other: u32) -> Self {
        self.written = Some((other, self.held_type));
        self.buffers.push((index, Buffer::SameAs(other)));
        self
    }

    /// The kernel's structure of parameters: numbers of 32 bits, floats by their bits.
    pub(crate) fn parameters(self, index: u32, words: &[u32]) -> Self {
        self.bytes(index, words.iter().flat_map(|word| word.to_ne_bytes()).collect())
    }

    /// Bytes that the kernel reads.
    pub(crate) fn bytes(mut self, index: u32, bytes: Vec<u8>) -> Self {
        self.buffers.push((index, Buffer::Bytes(bytes)));
        self
    }

    /// What the kernel has written, launched on `groups` groups of `threads` threads each.
    pub(crate) fn run(&self, groups: [usize; 3], threads: [usize; 3]) -> Vec<f32> {
        let found = self.run_in("forward", groups, threads);
        let reversed = self.run_in("reversed", groups, threads);
        assert!(
            found == reversed,
            "{}: the order of the threads changes the result",
            self.kernel
        );
        let (_, held_type) = self.written.unwrap();
        held_values(&found, held_type)
    }

    fn run_in(&self, order: &str, groups: [usize; 3], threads: [usize; 3]) -> Vec<u8> {
        let grid = groups.into_iter().chain(threads);
        let mut child = Command::new(self.program)
            .args([&self.kernel, order])
            .args(grid.map(|number| number.to_string()))
            .args(self.constants.iter().map(u16::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that fails reads less; its status and its words are told below.
        _ = child.stdin.take().unwrap().write_all(&self.sent());
        let output = child.wait_with_output().unwrap();
        let reason = match output.status.code() {
            Some(_) => String::from_utf8_lossy(&output.stderr),
            None => "it went beyond a buffer".into(),
        };
        assert!(
            output.status.success(),
            "{}: {reason} ({})",
            self.kernel,
            output.status
        );
        self.received(&output.stdout)
    }

    /// The buffers as the program takes them (`program.h`).
    fn sent(&self) -> Vec<u8> {
        let mut sent = Vec::new();
        for (index, buffer) in &self.buffers {
            sent.extend(index.to_ne_bytes());
            match buffer {
                Buffer::Bytes(bytes) => {
                    sent.extend(u32::try_from(bytes.len()).unwrap().to_ne_bytes());
                    sent.extend(bytes);
                }
                Buffer::SameAs(other) => sent.extend([u32::MAX, *other].map(u32::to_ne_bytes).concat()),
            }
        }
        sent
    }

    /// What was written, from all buffers that the program has sent back. The others are as they were.
    fn received(&self, mut all: &[u8]) -> Vec<u8> {
        let (written, _) = self.written.unwrap();
        let mut found = Vec::new();
        for (index, buffer) in &self.buffers {
            let Buffer::Bytes(before) = buffer else { continue };
            let (bytes, rest) = all.split_at(before.len());
            all = rest;
            if *index == written {
                found = bytes.to_vec();
            } else {
                assert!(bytes == before, "{} has changed its buffer {index}", self.kernel);
            }
        }
        found
    }
}

/// The values of a tensor in 32 bits, from its first one to its last one, with what is between them in a view.
fn storage(tensor: &Tensor) -> Vec<f32> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        panic!("not a tensor of 32-bit floats on the CPU");
    };
    let places = layout.dims().iter().zip(layout.stride());
    let last: usize = places.map(|(size, stride)| (size - 1) * stride).sum();
    values[layout.start_offset()..][..=last].to_vec()
}

fn held_bytes(values: &[f32], held_type: DType) -> Vec<u8> {
    match held_type {
        DType::F16 => values
            .iter()
            .flat_map(|&value| f16::from_f32(value).to_ne_bytes())
            .collect(),
        DType::BF16 => values
            .iter()
            .flat_map(|&value| bf16::from_f32(value).to_ne_bytes())
            .collect(),
        _ => values.iter().flat_map(|value| value.to_ne_bytes()).collect(),
    }
}

fn held_values(bytes: &[u8], held_type: DType) -> Vec<f32> {
    let (pairs, _) = bytes.as_chunks();
    let (fours, _) = bytes.as_chunks();
    match held_type {
        DType::F16 => pairs
            .iter()
            .map(|&bytes| f16::from_ne_bytes(bytes).to_f32())
            .collect(),
        DType::BF16 => pairs
            .iter()
            .map(|&bytes| bf16::from_ne_bytes(bytes).to_f32())
            .collect(),
        _ => fours.iter().map(|&bytes| f32::from_ne_bytes(bytes)).collect(),
    }
}
