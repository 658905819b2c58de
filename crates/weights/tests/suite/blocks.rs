//! What a pass over blocks reads, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd_weights::{BlockCache, Blocks, ModelFolder, Residency, WeightOptions, WeightType, Weights};

/// Three blocks, `layers.0` to `layers.2`, whose `weight` is their number; and how often one was read.
fn blocks(residency: Residency) -> (tempfile::TempDir, Blocks<f32>, Arc<AtomicUsize>) {
    let (directory, weights) = weights(residency);
    let (blocks, reads) = counted(&weights);
    (directory, blocks, reads)
}

fn counted(weights: &Weights) -> (Blocks<f32>, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let scopes = (0..3).map(|layer| weights.scope("layers").scope(layer));
    let blocks = Blocks::new(scopes, move |_, weights| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(weights.tensor("weight", &[1])?.to_vec1::<f32>()?[0])
    });
    let blocks = blocks.unwrap();
    // To see that everything is there each was built once with zeros; that read nothing.
    assert_eq!(reads.swap(0, Ordering::Relaxed), 3);
    (blocks, reads)
}

fn weights(residency: Residency) -> (tempfile::TempDir, Weights) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("network")).unwrap();
    let values: Vec<[u8; 4]> = (0..3).map(|layer| (layer as f32).to_le_bytes()).collect();
    let tensors = values.iter().enumerate().map(|(layer, value)| {
        (
            format!("layers.{layer}.weight"),
            TensorView::new(Dtype::F32, vec![1], value).unwrap(),
        )
    });
    let path = directory.path().join("network/model.safetensors");
    safetensors::serialize_to_file(tensors, None, &path).unwrap();

    let checkpoint = ModelFolder::on_disk(directory.path())
        .checkpoint("network")
        .unwrap();
    let weights = Weights::new(
        checkpoint,
        WeightOptions::new(Device::Cpu, WeightType::AsStored, residency),
    );
    (directory, weights)
}

fn walk(blocks: &Blocks<f32>) -> Vec<f32> {
    blocks.pass().unwrap().map(|block| *block.unwrap()).collect()
}

#[test]
fn listing_blocks_reads_nothing() {
    let (directory, weights) = weights(Residency::Resident);
    let path = directory.path().join("network/model.safetensors");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(10).unwrap();
    // What is not there any more cannot have been read.
    let (blocks, _) = counted(&weights);
    assert!(blocks.load().is_err());
}

#[test]
fn resident_blocks_are_read_once() {
    let (_directory, blocks, reads) = blocks(Residency::Resident);
    assert_eq!(
        reads.load(Ordering::Relaxed),
        0,
        "nothing is read before it is requested"
    );
    blocks.load().unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 3);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(reads.load(Ordering::Relaxed), 3);
}

#[test]
fn the_first_pass_reads_what_stays_ahead_of_its_turn() {
    let (_directory, blocks, reads) = blocks(Residency::Resident);
    let mut pass = blocks.pass().unwrap();
    assert_eq!(*pass.next().unwrap().unwrap(), 0.);
    let begin = std::time::Instant::now();
    while reads.load(Ordering::Relaxed) < 3 {
        assert!(begin.elapsed().as_secs() < 60, "nothing is read ahead");
        std::thread::yield_now();
    }
    drop(pass);
    // A walk that ended early: what was read ahead is not read again.
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(reads.load(Ordering::Relaxed), 3);
}

#[test]
fn what_stays_and_what_is_streamed_are_read_by_turns() {
    for kept in 0..=3 {
        let (_directory, blocks, reads) = blocks(Residency::Partly(kept));
        for _ in 0..3 {
            assert_eq!(walk(&blocks), [0., 1., 2.]);
        }
        drop(blocks);
        // What is streamed is read once a pass, and from the second on one block ahead of the next.
        let ahead = usize::from(kept < 3);
        assert_eq!(reads.load(Ordering::Relaxed), kept + 3 * (3 - kept) + ahead);
    }
}

#[test]
fn streamed_blocks_are_read_for_every_pass_and_give_the_same() {
    let (_directory, blocks, reads) = blocks(Residency::Streamed);
    blocks.load().unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(reads.load(Ordering::Relaxed), 3);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    drop(blocks);
    // From the second pass on the first block of the next one is read ahead.
    assert_eq!(reads.load(Ordering::Relaxed), 10);
}

#[test]
fn a_share_of_the_blocks_can_stay() {
    let (_directory, blocks, reads) = blocks(Residency::Partly(1));
    blocks.load().unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 1);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(reads.load(Ordering::Relaxed), 3);
}

#[test]
fn blocks_are_released_between_two_turns_on_request() {
    let (_directory, weights) = weights(Residency::Resident);
    let memory_pressure = weights.options().memory_pressure.clone();
    let (blocks, reads) = counted(&weights);
    blocks.load().unwrap();
    let mut pass = blocks.pass().unwrap();
    assert_eq!(*pass.next().unwrap().unwrap(), 0.);
    memory_pressure.request(5);
    assert_eq!(*pass.next().unwrap().unwrap(), 1.);
    // Two blocks of four bytes: the one before, and the one after this, which is further away than this.
    assert_eq!(memory_pressure.take_released(), 8);
    assert_eq!(*pass.next().unwrap().unwrap(), 2.);
    assert!(pass.next().is_none());
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert!(reads.load(Ordering::Relaxed) > 3);
    memory_pressure.request(u64::MAX);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(memory_pressure.take_released(), 4);
}

#[test]
fn a_walk_that_ends_early_leaves_the_next_one_right() {
    let (_directory, blocks, _) = blocks(Residency::Streamed);
    for taken in 0..=3 {
        let some: Vec<f32> = blocks
            .pass()
            .unwrap()
            .take(taken)
            .map(|block| *block.unwrap())
            .collect();
        assert_eq!(some, [0., 1., 2.][..taken]);
    }
    assert_eq!(walk(&blocks), [0., 1., 2.]);
}

#[test]
fn a_block_that_cannot_be_read_is_an_error_in_its_turn() {
    let (directory, blocks, _) = blocks(Residency::Streamed);
    let path = directory.path().join("network/model.safetensors");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(10).unwrap();
    assert!(blocks.pass().unwrap().next().unwrap().is_err());
}

#[test]
fn a_network_takes_the_resident_blocks_of_the_one_before() {
    let (_directory, weights) = weights(Residency::Resident);
    let cache = BlockCache::default();
    cache.limit_to(u64::MAX);
    let named = |name: &str, residency: Residency| {
        let options = WeightOptions {
            block_cache: Some(cache.clone()),
            ..WeightOptions::new(Device::Cpu, WeightType::AsStored, residency)
        };
        Weights::new(weights.checkpoint().clone(), options).cached_as(name)
    };
    let reads_of = |weights: &Weights, passes: usize| {
        let (blocks, reads) = counted(weights);
        for _ in 0..passes {
            assert_eq!(walk(&blocks), [0., 1., 2.]);
        }
        drop(blocks);
        reads.load(Ordering::Relaxed)
    };
    let resident = named("one", Residency::Resident);
    assert_eq!(reads_of(&resident, 2), 3);
    assert_eq!(cache.bytes_of("one"), 12);
    assert_eq!(reads_of(&resident, 2), 0);
    // A network that is never run returns what it took.
    assert_eq!(reads_of(&resident, 0), 0);
    assert_eq!(cache.bytes(), 12);
    // One with fewer resident blocks takes those alone, and streams the others.
    assert_eq!(reads_of(&named("one", Residency::Partly(1)), 1), 2);
    assert_eq!(cache.bytes(), 12);
    // One of other weights takes none, and one that runs once leaves none.
    assert_eq!(reads_of(&named("two", Residency::Resident), 1), 3);
    assert_eq!(reads_of(&resident.for_one_pass(), 1), 3);
    assert_eq!((cache.bytes_of("one"), cache.bytes_of("two")), (12, 12));
    cache.retain(&["two".to_owned()]);
    assert_eq!(reads_of(&resident, 1), 3);
    cache.limit_to(8);
    assert_eq!(reads_of(&resident, 1), 3);
}
