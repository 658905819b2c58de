//! What was encoded, kept until it is committed and then run in order.

use crate::MTLSize;
use crate::library::{Function, PARTS};
use crate::memory::Memory;
use crate::standin::{count, settings};
use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
pub(crate) enum Slot {
    #[default]
    Empty,
    /// In units of 16 bytes, for their alignment.
    Bytes(Arc<[u128]>),
    Buffer(Arc<Memory>, usize),
}
impl Slot {
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        let mut units = vec![0_u128; bytes.len().div_ceil(16).max(1)];
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), units.as_mut_ptr().cast(), bytes.len()) };
        Self::Bytes(units.into())
    }
}

/// What is set on an encoder, which stays from one dispatch to the next.
#[derive(Clone, Default)]
pub(crate) struct Bound {
    pub(crate) slots: Vec<Slot>,
    pub(crate) shared: Vec<usize>,
    pub(crate) function: Option<Arc<Function>>,
}
impl Bound {
    pub(crate) fn set(&mut self, index: usize, slot: Slot) {
        assert!(index < 31, "there is no buffer {index}");
        self.slots.resize(self.slots.len().max(index + 1), Slot::Empty);
        self.slots[index] = slot;
    }
    /// The bytes that its function may read and write.
    fn bytes(&self) -> u64 {
        let Some(touched) = self.function.as_ref().map(|function| function.touched) else { return 0 };
        let of = |(index, slot): (usize, &Slot)| match slot {
            Slot::Buffer(memory, offset) => {
                let times = (touched.reads >> index & 1) + (touched.writes >> index & 1);
                u64::from(times) * (memory.len() - offset) as u64
            }
            _ => 0,
        };
        self.slots.iter().enumerate().map(of).sum()
    }
}
pub(crate) struct Dispatch {
    pub(crate) bound: Bound,
    pub(crate) grid: MTLSize,
    pub(crate) group: MTLSize,
    /// Whether the grid is counted in groups.
    pub(crate) in_groups: bool,
}
pub(crate) enum Command {
    Dispatch(Dispatch),
    Barrier,
    WaitForFence(usize),
    UpdateFence(usize),
    Copy { from: Arc<Memory>, from_offset: usize, to: Arc<Memory>, to_offset: usize, size: usize },
    Fill { memory: Arc<Memory>, start: usize, len: usize, value: u8 },
}

pub(crate) struct Encoded {
    concurrent: bool,
    ended: AtomicBool,
    bound: Mutex<Bound>,
    commands: Mutex<Vec<Command>>,
}
impl Encoded {
    pub(crate) fn new(concurrent: bool) -> Self {
        Self { concurrent, ended: AtomicBool::new(false), bound: Mutex::default(), commands: Mutex::default() }
    }
    pub(crate) fn bind(&self, with: impl FnOnce(&mut Bound)) {
        assert!(!self.is_ended(), "an encoder is used after its end");
        with(&mut self.bound.lock().unwrap());
    }
    pub(crate) fn push(&self, command: Command) {
        assert!(!self.is_ended(), "an encoder is used after its end");
        self.commands.lock().unwrap().push(command);
    }
    pub(crate) fn dispatch(&self, grid: MTLSize, group: MTLSize, in_groups: bool) {
        let bound = self.bound.lock().unwrap().clone();
        let most = bound.function.as_ref().expect("a dispatch without a pipeline").most_threads();
        let threads = group.width * group.height * group.depth;
        assert!(threads > 0 && threads <= most, "{threads} threads in a group");
        count(|counts| {
            counts.dispatches += 1;
            counts.moved += bound.bytes();
            let name = bound.function.as_ref().unwrap().name();
            if let Some(of_name) = counts.kernels.get_mut(name) {
                *of_name += 1;
            } else {
                counts.kernels.insert(name.to_owned(), 1);
            }
        });
        self.push(Command::Dispatch(Dispatch { bound, grid, group, in_groups }));
    }
    pub(crate) fn end(&self) {
        assert!(!self.ended.swap(true, Relaxed), "an encoder is ended twice");
        // What was bound last is not held any longer.
        *self.bound.lock().unwrap() = Bound::default();
    }
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }
}

/// As the C++ side has it (msl/standin.h).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Call {
    buffers: [*mut c_void; 31],
    shared: [usize; 8],
    grid: [u32; 3],
    group: [u32; 3],
    in_groups: u32,
    part: u32,
    parts: u32,
}
// What its pointers show is not changed while it is used, but by the kernel that it is for.
unsafe impl Sync for Call {}
impl Call {
    /// Groups that have less to do than a thread costs are run by one.
    fn is_small(&self) -> bool {
        const THREADS: u64 = 4096;
        let of = |sizes: [u32; 3]| sizes.into_iter().map(u64::from).product::<u64>();
        let threads = of(self.grid) * if self.in_groups == 1 { of(self.group) } else { 1 };
        threads < THREADS
    }
}

fn random() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let mut x = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed) ^ settings().shuffle.unwrap_or(0);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Whether what was encoded would come out the same on a device that runs an encoder's dispatches side by side up to a barrier,
/// and encoders side by side up to a fence, as untracked resources require. Whatever a command buffer held is
/// over when it has run, so that fences between command buffers are not looked at.
#[derive(Default)]
struct Order {
    /// By buffer: the encoder that wrote it last, and those that read it since.
    written: HashMap<u64, usize>,
    read: HashMap<u64, HashSet<usize>>,
    /// By fence and by encoder: the encoders that are over where it is passed, or where the encoder begins.
    fences: HashMap<usize, HashSet<usize>>,
    over: HashSet<usize>,
    /// By encoder that is not over, its command buffer.
    buffers: HashMap<usize, usize>,
    encoder: usize,
    buffer: usize,
    concurrent: bool,
    /// What was accessed since the last barrier.
    open_reads: HashSet<u64>,
    open_writes: HashSet<u64>,
}
impl Order {
    fn begin(&mut self, concurrent: bool) {
        self.encoder += 1;
        self.concurrent = concurrent;
        self.buffers.insert(self.encoder, self.buffer);
        self.over.clear();
        self.barrier();
    }
    /// The host was told that this command buffer is over.
    fn forget(&mut self, buffer: usize) {
        let gone: HashSet<usize> = self.buffers.iter().filter(|(_, of)| **of == buffer).map(|(encoder, _)| *encoder).collect();
        self.buffers.retain(|encoder, _| !gone.contains(encoder));
        self.written.retain(|_, encoder| !gone.contains(encoder));
        self.read.retain(|_, readers| {
            readers.retain(|encoder| !gone.contains(encoder));
            !readers.is_empty()
        });
        self.fences.retain(|_, over| {
            over.retain(|encoder| !gone.contains(encoder));
            !over.is_empty()
        });
    }
    fn barrier(&mut self) {
        self.open_reads.clear();
        self.open_writes.clear();
    }
    fn wait(&mut self, fence: usize) {
        self.over.extend(self.fences.get(&fence).into_iter().flatten());
    }
    fn update(&mut self, fence: usize) {
        let mut over = self.over.clone();
        over.insert(self.encoder);
        self.fences.insert(fence, over);
    }
    fn access(&mut self, name: &str, reads: &[&Arc<Memory>], writes: &[&Arc<Memory>]) {
        let mut found = Vec::new();
        let is_over = |over: &HashSet<usize>, encoder: usize, own: usize| encoder == own || over.contains(&encoder);
        for (memory, is_write) in reads.iter().map(|memory| (memory, false)).chain(writes.iter().map(|memory| (memory, true))) {
            let id = memory.id;
            if self.concurrent && (self.open_writes.contains(&id) || is_write && self.open_reads.contains(&id)) {
                found.push((memory.len(), is_write, "before a barrier"));
            }
            let unfinished = self.written.get(&id).is_some_and(|writer| !is_over(&self.over, *writer, self.encoder))
                || is_write && self.read.get(&id).into_iter().flatten().any(|reader| !is_over(&self.over, *reader, self.encoder));
            if unfinished {
                found.push((memory.len(), is_write, "before a fence"));
            }
        }
        for memory in reads {
            self.open_reads.insert(memory.id);
            self.read.entry(memory.id).or_default().insert(self.encoder);
        }
        for memory in writes {
            self.open_writes.insert(memory.id);
            self.written.insert(memory.id, self.encoder);
            self.read.remove(&memory.id);
        }
        for (len, is_write, place) in found {
            count(|counts| {
                counts.hazards += 1;
                let verb = if is_write { "writes" } else { "reads" };
                counts.first_hazard.get_or_insert_with(|| format!("{name} {verb} a buffer of {len} bytes {place}"));
            });
        }
    }
}

static ORDER: Mutex<Option<Order>> = Mutex::new(None);
/// The host was told that the command buffer of this number is over.
pub(crate) fn over(number: usize) {
    if let Some(order) = ORDER.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut() {
        order.forget(number);
    }
}
/// Runs a command buffer and gives it a number.
pub(crate) fn run(encoders: &[Arc<Encoded>]) -> (usize, Result<(), String>) {
    let mut order = ORDER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let order = order.get_or_insert_default();
    order.buffer += 1;
    if settings().fails == Some(order.buffer as u64) {
        let error = "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)";
        return (order.buffer, Err(error.to_owned()));
    }
    (order.buffer, run_in(order, encoders))
}
fn run_in(order: &mut Order, encoders: &[Arc<Encoded>]) -> Result<(), String> {
    for encoder in encoders {
        order.begin(encoder.concurrent);
        if !encoder.is_ended() {
            return Err("an encoder was not ended before its command buffer was committed".to_owned());
        }
        let commands = encoder.commands.lock().unwrap();
        let mut open: Vec<&Dispatch> = Vec::new();
        for command in commands.iter() {
            match command {
                Command::Dispatch(dispatch) => {
                    let (function, slots) = (dispatch.bound.function.as_ref().expect("a pipeline"), &dispatch.bound.slots);
                    let of = |mask: u32| {
                        let at = slots.iter().enumerate().filter(move |(index, _)| mask >> index & 1 == 1);
                        at.filter_map(|(_, slot)| if let Slot::Buffer(memory, _) = slot { Some(memory) } else { None }).collect::<Vec<_>>()
                    };
                    order.access(function.name(), &of(function.touched.reads), &of(function.touched.writes));
                    open.push(dispatch);
                    if !encoder.concurrent || settings().shuffle.is_none() {
                        finish(&mut open)?;
                    }
                }
                Command::Barrier => {
                    count(|counts| counts.barriers += 1);
                    order.barrier();
                    finish(&mut open)?;
                }
                Command::WaitForFence(fence) => order.wait(*fence),
                Command::UpdateFence(fence) => order.update(*fence),
                Command::Copy { from, from_offset, to, to_offset, size } => {
                    order.access("a copy", &[from], &[to]);
                    count(|counts| {
                        counts.blits += 1;
                        counts.blit_bytes += *size as u64;
                    });
                    if !settings().dry {
                        unsafe {
                            std::ptr::copy(
                                from.at().cast::<u8>().as_ptr().add(*from_offset),
                                to.at().cast::<u8>().as_ptr().add(*to_offset),
                                *size,
                            );
                        }
                    }
                }
                Command::Fill { memory, start, len, value } => {
                    order.access("a fill", &[], &[memory]);
                    count(|counts| {
                        counts.blits += 1;
                        counts.blit_bytes += *len as u64;
                    });
                    if !settings().dry {
                        unsafe { memory.at().cast::<u8>().add(*start).write_bytes(*value, *len) };
                    }
                }
            }
        }
        finish(&mut open)?;
    }
    Ok(())
}

/// Runs what no barrier parts: in any order, where `METAL_STANDIN_SHUFFLE` is set.
fn finish(open: &mut Vec<&Dispatch>) -> Result<(), String> {
    while !open.is_empty() {
        let next = if settings().shuffle.is_some() { (random() % open.len() as u64) as usize } else { 0 };
        launch(open.remove(next))?;
    }
    Ok(())
}

fn launch(dispatch: &Dispatch) -> Result<(), String> {
    if settings().dry {
        return Ok(());
    }
    let function = dispatch.bound.function.as_ref().expect("a dispatch without a pipeline");
    // What a kernel's optional parameters point to where nothing was set.
    static NOTHING: [u64; 512] = [0; 512];
    let mut call = Call {
        buffers: [NOTHING.as_ptr().cast_mut().cast(); 31],
        shared: [0; 8],
        grid: [dispatch.grid.width as u32, dispatch.grid.height as u32, dispatch.grid.depth as u32],
        group: [dispatch.group.width as u32, dispatch.group.height as u32, dispatch.group.depth as u32],
        in_groups: u32::from(dispatch.in_groups),
        part: 0,
        parts: 1,
    };
    for (at, slot) in call.buffers.iter_mut().zip(&dispatch.bound.slots) {
        match slot {
            Slot::Empty => {}
            Slot::Bytes(bytes) => *at = bytes.as_ptr().cast_mut().cast(),
            Slot::Buffer(memory, offset) => *at = unsafe { memory.at().cast::<u8>().as_ptr().add(*offset).cast() },
        }
    }
    for (at, length) in call.shared.iter_mut().zip(&dispatch.bound.shared) {
        *at = *length;
    }
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let [first, second] = function.compiled()?;
    if call.is_small() {
        unsafe { first(&call) };
    } else {
        call.parts = PARTS as u32;
        let other = Call { part: 1, ..call };
        std::thread::scope(|scope| {
            scope.spawn(|| unsafe { second(&other) });
            unsafe { first(&call) };
        });
    }
    drop(one);
    for slot in &dispatch.bound.slots {
        if let Slot::Buffer(memory, _) = slot {
            if !memory.is_sound() {
                return Err(format!("{} wrote beyond the end of a buffer of {} bytes", function.name(), memory.len()));
            }
        }
    }
    Ok(())
}
