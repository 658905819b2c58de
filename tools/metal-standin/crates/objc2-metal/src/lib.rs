//! A Metal device in host memory, as far as candle uses one. Buffers are counted allocations; what is encoded is kept
//! until its command buffer is committed, then run by the processor from the kernels' own source (`library`, `execute`).
#![allow(non_snake_case, non_upper_case_globals, clippy::missing_safety_doc)]

mod execute;
mod library;
mod memory;
pub mod standin;

use block2::{Block, DynBlock};
use execute::{Command, Encoded, Slot};
use library::{Constants, Function, Library};
use memory::Memory;
use objc2::{rc::Retained, runtime::ProtocolObject};
use objc2_foundation::{NSArray, NSError, NSRange, NSString};
use std::any::Any;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;
use standin::Pace;

type Object<P> = Retained<ProtocolObject<P>>;
fn object<P: ?Sized>(value: impl Any + Send + Sync) -> Object<P> {
    Retained::new(ProtocolObject::standin_new(Arc::new(value)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MTLResourceOptions(pub usize);
impl MTLResourceOptions {
    pub const StorageModeShared: Self = Self(0);
    pub const StorageModePrivate: Self = Self(2 << 4);
    pub const HazardTrackingModeUntracked: Self = Self(1 << 8);
}
impl std::ops::BitOr for MTLResourceOptions {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MTLSize {
    pub width: usize,
    pub height: usize,
    pub depth: usize,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MTLCommandBufferStatus {
    NotEnqueued,
    Enqueued,
    Committed,
    Scheduled,
    Completed,
    Error,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MTLDispatchType {
    Serial,
    Concurrent,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MTLBarrierScope {
    Buffers,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MTLDataType {
    Float,
    UShort,
    ULong,
    Bool,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MTLMathMode {
    Safe,
    Relaxed,
    Fast,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MTLMathFloatingPointFunctions {
    Fast,
    Precise,
}
/// How a GPU's compiler may round is not this processor's matter: the options are taken and left.
pub struct MTLCompileOptions;
impl MTLCompileOptions {
    pub fn new() -> Retained<Self> {
        Retained::new(Self)
    }
    pub fn setMathMode(&self, _: MTLMathMode) {}
    pub fn setMathFloatingPointFunctions(&self, _: MTLMathFloatingPointFunctions) {}
    pub fn setFastMathEnabled(&self, _: bool) {}
}

// Buffers.

pub trait MTLAllocation {}
pub trait MTLResource: MTLAllocation {
    fn setLabel(&self, label: Option<&NSString>);
}
pub trait MTLBuffer: MTLResource {
    fn contents(&self) -> NonNull<c_void>;
    fn length(&self) -> usize;
    fn didModifyRange(&self, range: NSRange);
}
impl MTLAllocation for ProtocolObject<dyn MTLBuffer> {}
impl MTLResource for ProtocolObject<dyn MTLBuffer> {
    fn setLabel(&self, _: Option<&NSString>) {}
}
impl MTLBuffer for ProtocolObject<dyn MTLBuffer> {
    fn contents(&self) -> NonNull<c_void> {
        let memory: &Memory = self.standin();
        assert!(!memory.is_private(), "a pointer to the contents of a private buffer is requested");
        memory.at()
    }
    fn length(&self) -> usize {
        self.standin::<Memory>().len()
    }
    fn didModifyRange(&self, _: NSRange) {}
}

// Libraries and pipelines.

pub trait MTLFunction {}
pub trait MTLLibrary {
    fn newFunctionWithName(&self, name: &NSString) -> Option<Object<dyn MTLFunction>>;
    fn newFunctionWithName_constantValues_error(
        &self,
        name: &NSString,
        constants: &MTLFunctionConstantValues,
    ) -> Result<Object<dyn MTLFunction>, Retained<NSError>>;
}
pub struct MTLFunctionConstantValues(Mutex<Constants>);
impl MTLFunctionConstantValues {
    pub fn new() -> Retained<Self> {
        Retained::new(Self(Mutex::default()))
    }
    pub unsafe fn setConstantValue_type_atIndex(&self, value: NonNull<c_void>, kind: MTLDataType, index: usize) {
        let text = match kind {
            MTLDataType::Float => format!("standin::of_bits({:#x}u)", value.cast::<u32>().read_unaligned()),
            MTLDataType::UShort => value.cast::<u16>().read_unaligned().to_string(),
            MTLDataType::ULong => format!("{}ul", value.cast::<u64>().read_unaligned()),
            MTLDataType::Bool => (value.cast::<u8>().read() != 0).to_string(),
        };
        self.0.lock().unwrap().insert(index, text);
    }
}
impl MTLLibrary for ProtocolObject<dyn MTLLibrary> {
    fn newFunctionWithName(&self, name: &NSString) -> Option<Object<dyn MTLFunction>> {
        let found = self.standin::<Arc<Library>>().function(&name.to_string(), Constants::new());
        // The real one says nothing either; whoever looks for the reason finds it here.
        found.map_err(|error| eprintln!("metal stand-in: {error}")).ok().map(object)
    }
    fn newFunctionWithName_constantValues_error(
        &self,
        name: &NSString,
        constants: &MTLFunctionConstantValues,
    ) -> Result<Object<dyn MTLFunction>, Retained<NSError>> {
        let constants = constants.0.lock().unwrap().clone();
        self.standin::<Arc<Library>>()
            .function(&name.to_string(), constants)
            .map(object)
            .map_err(|error| Retained::new(NSError(error)))
    }
}
pub trait MTLComputePipelineState {
    fn maxTotalThreadsPerThreadgroup(&self) -> usize;
}
impl MTLComputePipelineState for ProtocolObject<dyn MTLComputePipelineState> {
    fn maxTotalThreadsPerThreadgroup(&self) -> usize {
        self.standin::<Arc<Function>>().most_threads()
    }
}

// The device.

pub struct MTLArchitecture;
impl MTLArchitecture {
    pub fn name(&self) -> Retained<NSString> {
        NSString::from_str(&standin::settings().architecture)
    }
}
pub trait MTLFence {}
struct FenceState;

pub trait MTLDevice {
    fn registryID(&self) -> u64;
    fn newBufferWithLength_options(&self, length: usize, options: MTLResourceOptions) -> Option<Object<dyn MTLBuffer>>;
    unsafe fn newBufferWithBytes_length_options(
        &self,
        bytes: NonNull<c_void>,
        length: usize,
        options: MTLResourceOptions,
    ) -> Option<Object<dyn MTLBuffer>>;
    unsafe fn newBufferWithBytesNoCopy_length_options_deallocator(
        &self,
        pointer: NonNull<c_void>,
        length: usize,
        options: MTLResourceOptions,
        deallocator: Option<&DynBlock<dyn Fn(NonNull<c_void>, usize)>>,
    ) -> Option<Object<dyn MTLBuffer>>;
    fn newLibraryWithSource_options_error(
        &self,
        source: &NSString,
        options: Option<&MTLCompileOptions>,
    ) -> Result<Object<dyn MTLLibrary>, Retained<NSError>>;
    fn newComputePipelineStateWithFunction_error(
        &self,
        function: &ProtocolObject<dyn MTLFunction>,
    ) -> Result<Object<dyn MTLComputePipelineState>, Retained<NSError>>;
    fn newCommandQueue(&self) -> Option<Object<dyn MTLCommandQueue>>;
    fn name(&self) -> Retained<NSString>;
    fn maxBufferLength(&self) -> usize;
    fn recommendedMaxWorkingSetSize(&self) -> u64;
    fn currentAllocatedSize(&self) -> usize;
    fn architecture(&self) -> Retained<MTLArchitecture>;
    fn newFence(&self) -> Option<Object<dyn MTLFence>>;
    fn newResidencySetWithDescriptor_error(
        &self,
        descriptor: &MTLResidencySetDescriptor,
    ) -> Result<Object<dyn MTLResidencySet>, Retained<NSError>>;
}
struct DeviceState;
fn the_device() -> Object<dyn MTLDevice> {
    object(DeviceState)
}
pub fn MTLCopyAllDevices() -> Retained<NSArray<ProtocolObject<dyn MTLDevice>>> {
    let found = standin::settings().has_gpu.then(the_device);
    Retained::new(NSArray(found.into_iter().collect()))
}
pub fn MTLCreateSystemDefaultDevice() -> Option<Object<dyn MTLDevice>> {
    standin::settings().has_gpu.then(the_device)
}
impl MTLDevice for ProtocolObject<dyn MTLDevice> {
    fn registryID(&self) -> u64 {
        standin::settings().registry_id
    }
    fn newBufferWithLength_options(&self, length: usize, options: MTLResourceOptions) -> Option<Object<dyn MTLBuffer>> {
        Memory::new(length, options == options_of(options, MTLResourceOptions::StorageModePrivate)).map(object)
    }
    unsafe fn newBufferWithBytes_length_options(
        &self,
        bytes: NonNull<c_void>,
        length: usize,
        options: MTLResourceOptions,
    ) -> Option<Object<dyn MTLBuffer>> {
        let memory = Memory::new(length, options == options_of(options, MTLResourceOptions::StorageModePrivate))?;
        memory.upload(bytes);
        Some(object(memory))
    }
    unsafe fn newBufferWithBytesNoCopy_length_options_deallocator(
        &self,
        pointer: NonNull<c_void>,
        length: usize,
        _: MTLResourceOptions,
        deallocator: Option<&DynBlock<dyn Fn(NonNull<c_void>, usize)>>,
    ) -> Option<Object<dyn MTLBuffer>> {
        Memory::of_others(pointer, length, deallocator.map(DynBlock::standin)).map(object)
    }
    fn newLibraryWithSource_options_error(
        &self,
        source: &NSString,
        _: Option<&MTLCompileOptions>,
    ) -> Result<Object<dyn MTLLibrary>, Retained<NSError>> {
        let library = Library::new(&source.to_string()).map_err(|error| Retained::new(NSError(error)))?;
        Ok(object(Arc::new(library)))
    }
    fn newComputePipelineStateWithFunction_error(
        &self,
        function: &ProtocolObject<dyn MTLFunction>,
    ) -> Result<Object<dyn MTLComputePipelineState>, Retained<NSError>> {
        Ok(object(Arc::clone(function.standin::<Arc<Function>>())))
    }
    fn newCommandQueue(&self) -> Option<Object<dyn MTLCommandQueue>> {
        Some(object(QueueState))
    }
    fn name(&self) -> Retained<NSString> {
        NSString::from_str("Apple GPU (stand-in)")
    }
    fn maxBufferLength(&self) -> usize {
        standin::settings().longest_buffer
    }
    fn recommendedMaxWorkingSetSize(&self) -> u64 {
        standin::settings().working_set
    }
    fn currentAllocatedSize(&self) -> usize {
        standin::counts().live as usize
    }
    fn architecture(&self) -> Retained<MTLArchitecture> {
        Retained::new(MTLArchitecture)
    }
    fn newFence(&self) -> Option<Object<dyn MTLFence>> {
        Some(object(FenceState))
    }
    fn newResidencySetWithDescriptor_error(
        &self,
        _: &MTLResidencySetDescriptor,
    ) -> Result<Object<dyn MTLResidencySet>, Retained<NSError>> {
        Ok(object(ResidencyState::default()))
    }
}
fn options_of(options: MTLResourceOptions, flag: MTLResourceOptions) -> MTLResourceOptions {
    MTLResourceOptions(options.0 | flag.0)
}

// The residency set holds its buffers, as the real one does: what is not taken out stays.

pub struct MTLResidencySetDescriptor;
impl MTLResidencySetDescriptor {
    /// Without the class, objc2 panics in these words.
    pub fn new() -> Retained<Self> {
        assert!(standin::settings().has_residency_sets, "class MTLResidencySetDescriptor could not be found");
        Retained::new(Self)
    }
}
#[derive(Default)]
struct ResidencyState {
    held: Mutex<std::collections::HashMap<usize, Arc<Memory>>>,
}
pub trait MTLResidencySet {
    fn addAllocation(&self, allocation: &ProtocolObject<dyn MTLAllocation>);
    fn removeAllocation(&self, allocation: &ProtocolObject<dyn MTLAllocation>);
    fn commit(&self);
    fn requestResidency(&self);
}
impl MTLResidencySet for ProtocolObject<dyn MTLResidencySet> {
    fn addAllocation(&self, allocation: &ProtocolObject<dyn MTLAllocation>) {
        let memory = allocation.standin_arc::<Memory>();
        let state: &ResidencyState = self.standin();
        state.held.lock().unwrap().insert(Arc::as_ptr(&memory) as usize, memory);
    }
    fn removeAllocation(&self, allocation: &ProtocolObject<dyn MTLAllocation>) {
        let memory = allocation.standin_arc::<Memory>();
        let state: &ResidencyState = self.standin();
        state.held.lock().unwrap().remove(&(Arc::as_ptr(&memory) as usize));
    }
    fn commit(&self) {
        standin::count(|counts| counts.residency_commits += 1);
    }
    fn requestResidency(&self) {}
}

// Queues, command buffers and encoders.

struct QueueState;
pub trait MTLCommandQueue {
    fn commandBuffer(&self) -> Option<Object<dyn MTLCommandBuffer>>;
    fn addResidencySet(&self, set: &ProtocolObject<dyn MTLResidencySet>);
    fn device(&self) -> Object<dyn MTLDevice>;
    fn setLabel(&self, label: Option<&NSString>);
}
impl MTLCommandQueue for ProtocolObject<dyn MTLCommandQueue> {
    fn commandBuffer(&self) -> Option<Object<dyn MTLCommandBuffer>> {
        // A queue has at most 64 that have not completed; a request for one more waits for the first.
        let full = pending() >= PENDING_MOST;
        let first = PENDING.lock().unwrap().first().filter(|_| full).cloned();
        if let Some(first) = first {
            complete(&first);
        }
        Some(object(Arc::new(BufferState::default())))
    }
    fn addResidencySet(&self, _: &ProtocolObject<dyn MTLResidencySet>) {}
    fn device(&self) -> Object<dyn MTLDevice> {
        the_device()
    }
    fn setLabel(&self, _: Option<&NSString>) {}
}

type Completed = dyn Fn(NonNull<ProtocolObject<dyn MTLCommandBuffer>>);
struct Handler(Arc<Completed>);
// They run on the thread that commits.
unsafe impl Send for Handler {}
unsafe impl Sync for Handler {}

const PENDING_MOST: usize = 63;
/// What was committed and is not over, in the order of the queue.
static PENDING: Mutex<Vec<Arc<BufferState>>> = Mutex::new(Vec::new());
fn pending() -> usize {
    PENDING.lock().map_or(0, |pending| pending.len())
}
/// Ends `last` and what was committed before it.
fn complete(last: &Arc<BufferState>) {
    // Who waits for what another thread is ending waits for that thread.
    static ENDING: Mutex<()> = Mutex::new(());
    let _ending = ENDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let over: Vec<_> = {
        let mut pending = PENDING.lock().unwrap();
        let Some(at) = pending.iter().position(|state| Arc::ptr_eq(state, last)) else { return };
        pending.drain(..=at).collect()
    };
    for state in over {
        drop(std::mem::take(&mut *state.encoders.lock().unwrap()));
        execute::over(state.number.load(std::sync::atomic::Ordering::Relaxed));
        let failed = state.error.lock().unwrap().is_some();
        *state.status.lock().unwrap() = if failed { MTLCommandBufferStatus::Error } else { MTLCommandBufferStatus::Completed };
        let itself: Object<dyn MTLCommandBuffer> = object(Arc::clone(&state));
        for handler in std::mem::take(&mut *state.handlers.lock().unwrap()) {
            handler.0(NonNull::from(&*itself));
        }
    }
}

/// Ends command buffers a while after they were committed, on a thread of its own, as a device does.
fn complete_later(state: &Arc<BufferState>, pace: std::time::Duration) {
    static DEVICE: OnceLock<Sender<(Instant, Arc<BufferState>)>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel::<(Instant, Arc<BufferState>)>();
        std::thread::spawn(move || {
            for (due, state) in receiver {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                complete(&state);
            }
        });
        sender
    });
    let _ = device.send((Instant::now() + pace, Arc::clone(state)));
}

struct BufferState {
    number: std::sync::atomic::AtomicUsize,
    status: Mutex<MTLCommandBufferStatus>,
    encoders: Mutex<Vec<Arc<Encoded>>>,
    handlers: Mutex<Vec<Handler>>,
    error: Mutex<Option<String>>,
}
impl Default for BufferState {
    fn default() -> Self {
        Self {
            number: Default::default(),
            status: Mutex::new(MTLCommandBufferStatus::NotEnqueued),
            encoders: Mutex::default(),
            handlers: Mutex::default(),
            error: Mutex::default(),
        }
    }
}
pub trait MTLCommandBuffer {
    fn computeCommandEncoderWithDispatchType(&self, kind: MTLDispatchType) -> Option<Object<dyn MTLComputeCommandEncoder>>;
    fn blitCommandEncoder(&self) -> Option<Object<dyn MTLBlitCommandEncoder>>;
    fn device(&self) -> Object<dyn MTLDevice>;
    fn commit(&self);
    fn enqueue(&self);
    fn setLabel(&self, label: Option<&NSString>);
    fn status(&self) -> MTLCommandBufferStatus;
    fn error(&self) -> Option<Retained<NSError>>;
    fn waitUntilCompleted(&self);
    unsafe fn addCompletedHandler(&self, block: *mut Block<Completed>);
}
impl MTLCommandBuffer for ProtocolObject<dyn MTLCommandBuffer> {
    fn computeCommandEncoderWithDispatchType(&self, kind: MTLDispatchType) -> Option<Object<dyn MTLComputeCommandEncoder>> {
        let state: &Arc<BufferState> = self.standin();
        let mut encoders = state.encoders.lock().unwrap();
        assert!(encoders.last().is_none_or(|last| last.is_ended()), "an encoder is opened while another is open");
        let encoder = Arc::new(Encoded::new(kind == MTLDispatchType::Concurrent));
        encoders.push(Arc::clone(&encoder));
        Some(object(encoder))
    }
    fn blitCommandEncoder(&self) -> Option<Object<dyn MTLBlitCommandEncoder>> {
        let state: &Arc<BufferState> = self.standin();
        let mut encoders = state.encoders.lock().unwrap();
        assert!(encoders.last().is_none_or(|last| last.is_ended()), "an encoder is opened while another is open");
        let encoder = Arc::new(Encoded::new(false));
        encoders.push(Arc::clone(&encoder));
        Some(object(encoder))
    }
    fn device(&self) -> Object<dyn MTLDevice> {
        the_device()
    }
    fn commit(&self) {
        let state: &Arc<BufferState> = self.standin();
        {
            let mut status = state.status.lock().unwrap();
            assert!(*status as usize <= MTLCommandBufferStatus::Enqueued as usize, "a command buffer is committed twice");
            *status = MTLCommandBufferStatus::Committed;
        }
        // It is run now and over when somebody waits, or when the queue is full: buffers are held as long as a slow device would.
        let (number, outcome) = execute::run(&state.encoders.lock().unwrap());
        state.number.store(number, std::sync::atomic::Ordering::Relaxed);
        *state.error.lock().unwrap() = outcome.err();
        PENDING.lock().unwrap().push(Arc::clone(state));
        match standin::settings().pace {
            Pace::AtOnce => complete(state),
            Pace::After(pace) => complete_later(state, pace),
            Pace::WhenWaitedFor => {}
        }
        standin::committed();
    }
    fn enqueue(&self) {
        *self.standin::<Arc<BufferState>>().status.lock().unwrap() = MTLCommandBufferStatus::Enqueued;
    }
    fn setLabel(&self, _: Option<&NSString>) {}
    fn status(&self) -> MTLCommandBufferStatus {
        *self.standin::<Arc<BufferState>>().status.lock().unwrap()
    }
    fn error(&self) -> Option<Retained<NSError>> {
        let error = self.standin::<Arc<BufferState>>().error.lock().unwrap().clone();
        error.map(|error| Retained::new(NSError(error)))
    }
    fn waitUntilCompleted(&self) {
        let status = *self.standin::<Arc<BufferState>>().status.lock().unwrap();
        assert!(status as usize >= MTLCommandBufferStatus::Committed as usize, "what was never committed is waited for");
        standin::count(|counts| counts.waits += 1);
        complete(self.standin::<Arc<BufferState>>());
    }
    unsafe fn addCompletedHandler(&self, block: *mut Block<Completed>) {
        let state: &Arc<BufferState> = self.standin();
        state.handlers.lock().unwrap().push(Handler((*block).standin()));
    }
}
pub trait MTLCommandEncoder {
    fn endEncoding(&self);
    fn setLabel(&self, label: Option<&NSString>);
    fn pushDebugGroup(&self, label: &NSString);
    fn popDebugGroup(&self);
}
impl MTLCommandEncoder for ProtocolObject<dyn MTLComputeCommandEncoder> {
    fn endEncoding(&self) {
        self.standin::<Arc<Encoded>>().end();
    }
    fn setLabel(&self, _: Option<&NSString>) {}
    fn pushDebugGroup(&self, _: &NSString) {}
    fn popDebugGroup(&self) {}
}
impl MTLCommandEncoder for ProtocolObject<dyn MTLBlitCommandEncoder> {
    fn endEncoding(&self) {
        self.standin::<Arc<Encoded>>().end();
    }
    fn setLabel(&self, _: Option<&NSString>) {}
    fn pushDebugGroup(&self, _: &NSString) {}
    fn popDebugGroup(&self) {}
}
fn fence_key(fence: &ProtocolObject<dyn MTLFence>) -> usize {
    std::ptr::from_ref(fence).addr()
}

pub trait MTLComputeCommandEncoder: MTLCommandEncoder {
    unsafe fn setThreadgroupMemoryLength_atIndex(&self, length: usize, index: usize);
    fn dispatchThreads_threadsPerThreadgroup(&self, threads: MTLSize, group: MTLSize);
    fn dispatchThreadgroups_threadsPerThreadgroup(&self, groups: MTLSize, group: MTLSize);
    fn memoryBarrierWithScope(&self, scope: MTLBarrierScope);
    unsafe fn setBuffer_offset_atIndex(&self, buffer: Option<&ProtocolObject<dyn MTLBuffer>>, offset: usize, index: usize);
    unsafe fn setBytes_length_atIndex(&self, bytes: NonNull<c_void>, length: usize, index: usize);
    fn setComputePipelineState(&self, pipeline: &ProtocolObject<dyn MTLComputePipelineState>);
    fn waitForFence(&self, fence: &ProtocolObject<dyn MTLFence>);
    fn updateFence(&self, fence: &ProtocolObject<dyn MTLFence>);
}
impl MTLComputeCommandEncoder for ProtocolObject<dyn MTLComputeCommandEncoder> {
    unsafe fn setThreadgroupMemoryLength_atIndex(&self, length: usize, index: usize) {
        self.standin::<Arc<Encoded>>().bind(|bound| {
            bound.shared.resize(bound.shared.len().max(index + 1), 0);
            bound.shared[index] = length;
        });
    }
    fn dispatchThreads_threadsPerThreadgroup(&self, threads: MTLSize, group: MTLSize) {
        self.standin::<Arc<Encoded>>().dispatch(threads, group, false);
    }
    fn dispatchThreadgroups_threadsPerThreadgroup(&self, groups: MTLSize, group: MTLSize) {
        self.standin::<Arc<Encoded>>().dispatch(groups, group, true);
    }
    fn memoryBarrierWithScope(&self, _: MTLBarrierScope) {
        self.standin::<Arc<Encoded>>().push(Command::Barrier);
    }
    unsafe fn setBuffer_offset_atIndex(&self, buffer: Option<&ProtocolObject<dyn MTLBuffer>>, offset: usize, index: usize) {
        let slot = match buffer {
            Some(buffer) => {
                let memory = buffer.standin_arc::<Memory>();
                assert!(offset <= memory.len(), "an offset of {offset} into a buffer of {}", memory.len());
                Slot::Buffer(memory, offset)
            }
            None => Slot::Empty,
        };
        self.standin::<Arc<Encoded>>().bind(|bound| bound.set(index, slot));
    }
    unsafe fn setBytes_length_atIndex(&self, bytes: NonNull<c_void>, length: usize, index: usize) {
        assert!(length <= 4096, "{length} bytes are set at once: Metal takes 4096");
        let bytes = std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), length);
        self.standin::<Arc<Encoded>>().bind(|bound| bound.set(index, Slot::bytes(bytes)));
    }
    fn setComputePipelineState(&self, pipeline: &ProtocolObject<dyn MTLComputePipelineState>) {
        let function = Arc::clone(pipeline.standin::<Arc<Function>>());
        self.standin::<Arc<Encoded>>().bind(|bound| bound.function = Some(function));
    }
    fn waitForFence(&self, fence: &ProtocolObject<dyn MTLFence>) {
        self.standin::<Arc<Encoded>>().push(Command::WaitForFence(fence_key(fence)));
    }
    fn updateFence(&self, fence: &ProtocolObject<dyn MTLFence>) {
        self.standin::<Arc<Encoded>>().push(Command::UpdateFence(fence_key(fence)));
    }
}
pub trait MTLBlitCommandEncoder: MTLCommandEncoder {
    fn waitForFence(&self, fence: &ProtocolObject<dyn MTLFence>);
    fn updateFence(&self, fence: &ProtocolObject<dyn MTLFence>);
    unsafe fn copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
        &self,
        from: &ProtocolObject<dyn MTLBuffer>,
        from_offset: usize,
        to: &ProtocolObject<dyn MTLBuffer>,
        to_offset: usize,
        size: usize,
    );
    fn fillBuffer_range_value(&self, buffer: &ProtocolObject<dyn MTLBuffer>, range: NSRange, value: u8);
}
impl MTLBlitCommandEncoder for ProtocolObject<dyn MTLBlitCommandEncoder> {
    fn waitForFence(&self, fence: &ProtocolObject<dyn MTLFence>) {
        self.standin::<Arc<Encoded>>().push(Command::WaitForFence(fence_key(fence)));
    }
    fn updateFence(&self, fence: &ProtocolObject<dyn MTLFence>) {
        self.standin::<Arc<Encoded>>().push(Command::UpdateFence(fence_key(fence)));
    }
    unsafe fn copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
        &self,
        from: &ProtocolObject<dyn MTLBuffer>,
        from_offset: usize,
        to: &ProtocolObject<dyn MTLBuffer>,
        to_offset: usize,
        size: usize,
    ) {
        let (from, to) = (from.standin_arc::<Memory>(), to.standin_arc::<Memory>());
        assert!(from_offset + size <= from.len() && to_offset + size <= to.len(), "a copy beyond the end of a buffer");
        self.standin::<Arc<Encoded>>().push(Command::Copy { from, from_offset, to, to_offset, size });
    }
    fn fillBuffer_range_value(&self, buffer: &ProtocolObject<dyn MTLBuffer>, range: NSRange, value: u8) {
        let memory = buffer.standin_arc::<Memory>();
        assert!(range.location + range.length <= memory.len(), "a fill beyond the end of a buffer");
        self.standin::<Arc<Encoded>>().push(Command::Fill { memory, start: range.location, len: range.length, value });
    }
}

// Captures, which there are none of.

pub enum MTLCaptureDestination {
    GPUTraceDocument,
}
pub struct MTLCaptureDescriptor;
impl MTLCaptureDescriptor {
    pub fn new() -> Retained<Self> {
        Retained::new(Self)
    }
    pub fn setDestination(&self, _: MTLCaptureDestination) {}
    pub fn set_capture_device(&self, _: &ProtocolObject<dyn MTLDevice>) {}
    pub fn setOutputURL(&self, _: Option<&objc2_foundation::NSURL>) {}
}
pub struct MTLCaptureManager;
impl MTLCaptureManager {
    pub unsafe fn sharedCaptureManager() -> Retained<Self> {
        Retained::new(Self)
    }
    pub fn startCaptureWithDescriptor_error(&self, _: &MTLCaptureDescriptor) -> Result<(), Retained<NSError>> {
        Err(Retained::new(NSError("the stand-in captures nothing".to_owned())))
    }
}
