//! Unpickled values, which refer to each other by index, so that a shared value is stored once.

use std::rc::Rc;

use crate::ElementType;

/// The index of a value.
pub(super) type Id = usize;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
    /// `None`, a boolean or a float. No tensor depends on these.
    Other,
}

/// The globals that a pickle may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageType(ElementType),
    /// What training keeps beside the tensors: callbacks, settings, numbers of NumPy. Neither it nor what its
    /// calls would return is made.
    OfTraining,
}

/// The modules of what training keeps in a checkpoint, with the modules below them.
const MODULES_OF_TRAINING: [&str; 5] = [
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "numpy",
    "omegaconf",
];

impl Global {
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", storage) => Self::StorageType(match storage {
                "FloatStorage" => ElementType::F32,
                "HalfStorage" => ElementType::F16,
                "BFloat16Storage" => ElementType::Bf16,
                "DoubleStorage" => ElementType::F64,
                "LongStorage" => ElementType::I64,
                "IntStorage" => ElementType::I32,
                "ShortStorage" => ElementType::I16,
                "CharStorage" => ElementType::I8,
                "ByteStorage" => ElementType::U8,
                "BoolStorage" => ElementType::Bool,
                "Size" | "device" => return Some(Self::OfTraining),
                _ => return None,
            }),
            ("argparse", "Namespace")
            | ("collections", "defaultdict" | "Counter" | "deque")
            | ("_codecs", "encode")
            | ("typing", "Any")
            | (
                "builtins" | "__builtin__",
                "set" | "frozenset" | "dict" | "list" | "tuple" | "int" | "long" | "float" | "complex"
                | "slice" | "range",
            ) => Self::OfTraining,
            (module, _) if is_of_training(module) => Self::OfTraining,
            _ => return None,
        })
    }
}

/// Whether `module` is one of [`MODULES_OF_TRAINING`], or below one.
fn is_of_training(module: &str) -> bool {
    let top = module.split_once('.').map_or(module, |(top, _)| top);
    MODULES_OF_TRAINING.contains(&top)
}

/// A storage of tensors: an entry of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) element_type: ElementType,
}

/// A tensor as a view of a storage, in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) storage: Rc<Storage>,
    pub(super) first: u64,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<u64>,
}

/// All values of a pickle, and the index of its result.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
}
