//! The predicted scratch memory of merging a LoRA against the measured one. A single test, so that nothing
//! else allocates in the meantime.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sd_weights::{
    Adapters, CountingAllocator, Fit, LoraFile, ModelFolder, ModelPart, Residency, WeightOptions, WeightType,
    Weights, allocated_bytes, allocated_peak, restart_allocated_peak,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn adding_takes_what_it_says() {
    // Another thread might take part for the first time while it is measured, and then make what it keeps for
    // itself. All widths are multiples of what a product goes in steps of, as those of networks are: others
    // it packs first.
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
        .unwrap();
    for (kind, lora_kind, weight_type, shape, ranks) in [
        (
            DType::BF16,
            DType::F16,
            WeightType::AsStored,
            [3008, 1504],
            [64, 8],
        ),
        (DType::F32, DType::F32, WeightType::Bf16, [912, 4000], [16, 4]),
        (DType::F16, DType::F32, WeightType::F32, [320, 320], [4, 150]),
        (
            DType::BF16,
            DType::BF16,
            WeightType::AsStored,
            [5008, 704],
            [256, 700],
        ),
    ] {
        let files = ranks.map(|rank| low_rank(shape, rank, lora_kind));
        check(kind, weight_type, shape, &files, 1.0);
    }
    let shape = [1008, 1536];
    let loha = [
        ("hada_w1_a", [shape[0], 16]),
        ("hada_w1_b", [16, shape[1]]),
        ("hada_w2_a", [shape[0], 32]),
        ("hada_w2_b", [32, shape[1]]),
    ];
    let lokr = [
        ("lokr_w1_a", [8, 2]),
        ("lokr_w1_b", [2, 8]),
        ("lokr_w2_a", [126, 16]),
        ("lokr_w2_b", [16, 192]),
    ];
    let whole_lokr = [("lokr_w1", [4, 4]), ("lokr_w2", [252, 384])];
    for tensors in [&loha[..], &lokr, &whole_lokr] {
        let file = tensors
            .iter()
            .map(|&(role, shape)| zeros(role, &shape, DType::F16));
        let file: File = file.collect();
        check(
            DType::BF16,
            WeightType::AsStored,
            shape,
            std::slice::from_ref(&file),
            1.0,
        );
        // With the other kinds before it, and magnitudes of its own.
        for magnitudes in [[shape[0], 1], [1, shape[1]]] {
            let mut dora = file.clone();
            dora.extend([zeros("dora_scale", &magnitudes, DType::F32)]);
            let files = [low_rank(shape, 24, DType::F16), dora];
            check(DType::F16, WeightType::F32, shape, &files, 0.5);
        }
    }
}

/// The tensors of a file, by their roles in the layer `a`.
type File = HashMap<String, Tensor>;

fn zeros(role: &str, shape: &[usize], kind: DType) -> (String, Tensor) {
    let tensor = Tensor::zeros(shape, kind, &Device::Cpu).unwrap();
    (format!("a.{role}"), tensor)
}

fn low_rank([rows, columns]: [usize; 2], rank: usize, kind: DType) -> File {
    HashMap::from([
        zeros("lora_A.weight", &[rank, columns], kind),
        zeros("lora_B.weight", &[rows, rank], kind),
    ])
}

/// Reads a tensor of `shape`, stored as `kind`, with all `files` at `scale`.
fn check(kind: DType, weight_type: WeightType, shape: [usize; 2], files: &[File], scale: f32) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("network")).unwrap();
    let save = |name: &str, tensors: &File| {
        let path = directory.path().join(name);
        candle_core::safetensors::save(tensors, &path).unwrap();
        path
    };
    save(
        "network/model.safetensors",
        &File::from([zeros("weight", &shape, kind)]),
    );
    let network = ModelFolder::on_disk(directory.path())
        .checkpoint("network")
        .unwrap();
    let fits = files.iter().enumerate().map(|(index, tensors)| {
        let path = save(&format!("{index}.safetensors"), tensors);
        let file = Arc::new(LoraFile::open(path).unwrap());
        file.fit(&[(ModelPart::Denoiser, &network)]).unwrap()
    });
    let fits: Vec<Fit> = fits.collect();
    let scaled: Vec<(&Fit, f32)> = fits.iter().map(|fit| (fit, scale)).collect();
    let adapters = Arc::new(Adapters::new(ModelPart::Denoiser, &scaled));
    let options = WeightOptions::new(Device::Cpu, weight_type, Residency::Resident);
    let weights = Weights::new(network, options).with_adapters(adapters.clone());
    // What threads keep for themselves is there from the first product on.
    drop(weights.tensor("a.weight", &shape).unwrap());
    let before = allocated_bytes();
    restart_allocated_peak();
    let tensor = weights.tensor("a.weight", &shape).unwrap();
    let held = (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
    let taken = allocated_peak() - before - held;
    let said = adapters.scratch_bytes();
    let mut roles: Vec<&String> = files.iter().flat_map(HashMap::keys).collect();
    roles.sort();
    assert!(
        taken <= said + (16 << 10) && said * 9 <= taken * 10,
        "{shape:?}, {roles:?}: {taken} bytes taken, {said} said"
    );
}
