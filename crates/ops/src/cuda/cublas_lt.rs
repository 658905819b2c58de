//! Matrix products of 16-bit values by cuBLASLt, with a bias, GELU and a residual in the same kernel.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::from_ref;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys;
use candle_core::cuda_backend::{WrapErr, cudarc::driver::CudaStream};
use candle_core::{CudaDevice, DType, Device, Error, bail};

use super::tensors::{Address, NONE, address, undefined};
use crate::Result;

/// The memory that products may use beside their results: what NVIDIA recommends for compute capability 9.0.
const WORKSPACE: usize = 32 << 20;

/// The library's number for a transposed matrix (`CUBLAS_OP_T`).
const TRANSPOSED: i32 = 1;

/// What is multiplied: `[rows, inputs]` by the transpose of `[outputs, inputs]`, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) held_type: DType,
    pub(super) has_bias: bool,
    pub(super) has_residual: bool,
    /// GELU by the tanh approximation.
    pub(super) then_gelu: bool,
}

/// The matrices of a product, contiguous.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrices {
    pub(super) x: Address,
    pub(super) weight: Address,
    pub(super) bias: Address,
    pub(super) residual: Address,
    pub(super) result: Address,
}

/// A product as the library has it.
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    result: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: the library's objects are used by one thread at a time, behind the lock of `LIBRARY`.
#[allow(unsafe_code)]
unsafe impl Send for Library {}

/// The library, and its plans by device and shape. `None` where it has no algorithm.
struct Library {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<(usize, Shape), Option<Plan>>,
}

static LIBRARY: Mutex<Option<Library>> = Mutex::new(None);

/// Queues a product on the device's stream. `false` if the library has no algorithm for the shape, so that nothing was
/// queued. The algorithm depends on the shape alone.
///
/// # Errors
/// The library or the device fails.
pub(super) fn multiply(device: &CudaDevice, shape: Shape, matrices: Matrices) -> Result<bool> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    let mut library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    let library = match &mut *library {
        Some(library) => library,
        none => none.insert(Library {
            handle: result::create_handle().map_err(failed)?,
            plans: HashMap::new(),
        }),
    };
    let handle = library.handle;
    let key = (stream.context().ordinal(), shape);
    let plan = match library.plans.entry(key) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert(plan(handle, shape)?),
    };
    let Some(plan) = plan else {
        return Ok(false);
    };
    let workspace = undefined(&Device::Cuda(device.clone()), &[WORKSPACE], DType::U8)?;
    run(handle, plan, shape, matrices, address(&workspace)?, &stream)?;
    Ok(true)
}

#[allow(unsafe_code)]
fn run(
    handle: sys::cublasLtHandle_t,
    plan: &Plan,
    shape: Shape,
    matrices: Matrices,
    workspace: Address,
    stream: &CudaStream,
) -> Result<()> {
    let (alpha, beta) = (1.0_f32, if shape.has_residual { 1.0_f32 } else { 0.0 });
    let addend = match shape.has_residual {
        true => matrices.residual,
        false => matrices.result,
    };
    let multiplied = || {
        if shape.has_bias {
            use sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            set(
                plan.description,
                CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                &matrices.bias,
            )?;
        }
        // SAFETY: the plan's objects live as long as the program. The matrices have the plan's shapes, and they and the
        // workspace are live until the kernel ends: memory is freed in the order of the stream.
        unsafe {
            result::matmul(
                handle,
                plan.description,
                from_ref(&alpha).cast(),
                from_ref(&beta).cast(),
                matrices.weight as *const c_void,
                plan.weight,
                matrices.x as *const c_void,
                plan.x,
                addend as *const c_void,
                plan.result,
                matrices.result as *mut c_void,
                plan.result,
                &plan.algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                stream.cu_stream().cast(),
            )
        }
    };
    multiplied().map_err(failed)
}

/// The plan of a product. The library sees matrices by columns: the transposes of ours, so that it multiplies the
/// weight by `x`, and a bias is added to each column.
#[allow(unsafe_code)]
fn plan(handle: sys::cublasLtHandle_t, shape: Shape) -> Result<Option<Plan>> {
    use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_TRANSA};
    use sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    let kind = match shape.held_type {
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
        other => bail!("a product of {other:?} by cuBLASLt"),
    };
    let epilogue = match (shape.has_bias, shape.then_gelu) {
        (false, false) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
        (true, false) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
        (false, true) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU,
        (true, true) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
    };
    let Shape {
        rows,
        inputs,
        outputs,
        ..
    } = shape;
    let planned = || {
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F)?;
        set(description, CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        let layout = |height: usize, width: usize| {
            result::create_matrix_layout(kind, height as u64, width as u64, height as i64)
        };
        let (weight, x, product) = (
            layout(inputs, outputs)?,
            layout(inputs, rows)?,
            layout(outputs, rows)?,
        );
        let preference = result::create_matmul_pref()?;
        // SAFETY: the objects were just made, and the value has the size that is given.
        let found = unsafe {
            result::set_matmul_pref_attribute(
                preference,
                CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                from_ref(&WORKSPACE).cast(),
                size_of::<usize>(),
            )?;
            let found = algorithms(handle, description, [weight, x, product], preference);
            result::destroy_matmul_pref(preference)?;
            found?
        };
        let suits = |algorithm: &sys::cublasLtMatmulAlgo_t| shape.then_gelu && is_of_large_tiles(algorithm);
        let algorithm = found.iter().find(|&algorithm| suits(algorithm)).or(found.first());
        Ok(algorithm.map(|&algorithm| Plan {
            description,
            weight,
            x,
            result: product,
            algorithm,
        }))
    };
    planned().map_err(failed)
}

/// The algorithms that the library has for a product, those first that it deems fastest.
///
/// # Safety
/// The library's objects live.
#[allow(unsafe_code)]
unsafe fn algorithms(
    handle: sys::cublasLtHandle_t,
    description: sys::cublasLtMatmulDesc_t,
    [weight, x, result]: [sys::cublasLtMatrixLayout_t; 3],
    preference: sys::cublasLtMatmulPreference_t,
) -> std::result::Result<Vec<sys::cublasLtMatmulAlgo_t>, CublasError> {
    const MOST: usize = 8;
    let mut found = Vec::<sys::cublasLtMatmulHeuristicResult_t>::with_capacity(MOST);
    let mut count = 0;
    // SAFETY: as the caller says. The library writes at most as many results as there is room for, and says how many.
    let status = unsafe {
        let status = sys::cublasLtMatmulAlgoGetHeuristic(
            handle,
            description,
            weight,
            x,
            result,
            result,
            preference,
            MOST as i32,
            found.as_mut_ptr(),
            &raw mut count,
        );
        if status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            found.set_len(usize::try_from(count).unwrap_or_default().min(MOST));
        }
        status
    };
    if status == sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED {
        return Ok(Vec::new());
    }
    status.result()?;
    let usable = |found: &sys::cublasLtMatmulHeuristicResult_t| found.state.result().is_ok();
    Ok(found
        .iter()
        .filter(|&found| usable(found))
        .map(|found| found.algo)
        .collect())
}

/// Whether a GELU is fast in an algorithm's kernel. For products of the size of Large's MLP the library puts tiles of
/// 192x192 first, whose GELU makes them 16% slower than these on an H200.
#[allow(unsafe_code)]
fn is_of_large_tiles(algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
    use sys::cublasLtMatmulAlgoConfigAttributes_t::CUBLASLT_ALGO_CONFIG_TILE_ID;
    use sys::cublasLtMatmulTile_t::{CUBLASLT_MATMUL_TILE_128x256, CUBLASLT_MATMUL_TILE_256x128};
    let (mut tile, mut written) = (0_u32, 0);
    // SAFETY: the library writes a number of the size that is given.
    let status = unsafe {
        sys::cublasLtMatmulAlgoConfigGetAttribute(
            algorithm,
            CUBLASLT_ALGO_CONFIG_TILE_ID,
            (&raw mut tile).cast(),
            size_of::<u32>(),
            &raw mut written,
        )
    };
    let large = [CUBLASLT_MATMUL_TILE_128x256, CUBLASLT_MATMUL_TILE_256x128];
    status.result().is_ok() && large.iter().any(|&large| large as u32 == tile)
}

/// Sets an attribute of a product.
#[allow(unsafe_code)]
fn set<A>(
    description: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &A,
) -> std::result::Result<(), CublasError> {
    // SAFETY: the description lives, and the library copies the value, of the attribute's type.
    unsafe {
        result::set_matmul_desc_attribute(description, attribute, from_ref(value).cast(), size_of::<A>())
    }
}

fn failed(error: CublasError) -> Error {
    Error::wrap(error)
}

/// Whether the library takes matrices at these addresses with rows of so many values.
pub(super) fn takes(matrices: &Matrices, widths: [usize; 2]) -> bool {
    let Matrices {
        x,
        weight,
        bias,
        residual,
        result,
    } = *matrices;
    let addresses = [x, weight, bias, residual, result];
    addresses
        .iter()
        .all(|address| *address == NONE || address % 16 == 0)
        && widths.iter().all(|width| width % 8 == 0)
}
