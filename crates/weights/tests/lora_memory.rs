//! The predicted scratch memory of merging a LoRA against the measured one. A single test, so that nothing
//! else allocates in the meantime.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sd_weights::{
    Adapters, CountingAllocator, LoraFile, ModelFolder, ModelPart, Residency, WeightOptions, WeightType,
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
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("network")).unwrap();
        let save = |name: &str, tensors: HashMap<&str, Tensor>| {
            let path = directory.path().join(name);
            candle_core::safetensors::save(&tensors, &path).unwrap();
            path
        };
        let zeros = |shape: [usize; 2], kind| Tensor::zeros(&shape, kind, &Device::Cpu).unwrap();
        save(
            "network/model.safetensors",
            HashMap::from([("a.weight", zeros(shape, kind))]),
        );
        let network = ModelFolder::on_disk(directory.path())
            .checkpoint("network")
            .unwrap();
        let fits = ranks.map(|rank| {
            let path = save(
                &format!("{rank}.safetensors"),
                HashMap::from([
                    ("a.lora_A.weight", zeros([rank, shape[1]], lora_kind)),
                    ("a.lora_B.weight", zeros([shape[0], rank], lora_kind)),
                ]),
            );
            let file = Arc::new(LoraFile::open(path).unwrap());
            file.fit(&[(ModelPart::Denoiser, &network)]).unwrap()
        });
        let adapters = Arc::new(Adapters::new(
            ModelPart::Denoiser,
            &[(&fits[0], 1.0), (&fits[1], 1.0)],
        ));
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
        assert!(
            taken <= said + (16 << 10) && said * 9 <= taken * 10,
            "{shape:?}: {taken} bytes taken, {said} said"
        );
    }
}
