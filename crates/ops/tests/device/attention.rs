//! Attention, by each of a GPU's kernels.

use candle_core::{DType, Tensor};
use sd_ops::{Heads, Precision, attention, joint_attention};

#[cfg(feature = "cuda")]
use crate::CAPABILITY;
use crate::{IS_STANDIN, Target, compare, device};

/// These tests again, on a GPU of Hopper with the kernel for others.
#[test]
#[cfg(feature = "cuda")]
fn attention_as_on_gpus_before_hopper() {
    if std::env::var_os(CAPABILITY).is_some() {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let run = std::process::Command::new(program)
        .args(["attention", "--test-threads=1"])
        .env(CAPABILITY, "8.0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}");
}

#[test]
fn attention_of_two_streams() {
    compare("joint_attention", |target| {
        let heads = |tokens: usize, seed: u64| Heads {
            queries: target.random(&[2, tokens, 3, 64], seed),
            keys: target.random(&[2, tokens, 3, 64], seed + 1),
            values: target.random(&[2, tokens, 3, 64], seed + 2),
        };
        let (first, second) = joint_attention(heads(70, 1), heads(33, 4), 0.3, Precision::Full)?;
        Tensor::cat(&[first, second], 1)
    });
}

#[test]
fn attention_of_heads_of_every_size() {
    for size in [8, 40, 72, 80, 96, 128, 160, 256, 512, 600] {
        compare(&format!("attention of heads of {size}"), |target| {
            let of = |rows: usize, seed: u64| target.random(&[2, rows, 2, size], seed).transpose(1, 2);
            let scale = 1.0 / (size as f64).sqrt();
            attention(
                &of(45, 1)?,
                &of(70, 2)?,
                &of(70, 3)?,
                None,
                scale,
                Precision::Full,
            )
        });
    }
}

#[test]
fn attention_of_two_streams_with_heads_of_every_size() {
    for (size, of_first, of_second) in [(24, 130, 65), (96, 64, 1), (128, 1, 200), (512, 9, 8)] {
        compare(&format!("joint_attention of heads of {size}"), |target| {
            let heads = |tokens: usize, seed: u64| Heads {
                queries: target.random(&[2, tokens, 2, size], seed),
                keys: target.random(&[2, tokens, 2, size], seed + 1),
                values: target.random(&[2, tokens, 2, size], seed + 2),
            };
            let (first, second) =
                joint_attention(heads(of_first, 1), heads(of_second, 4), 0.2, Precision::Full)?;
            Tensor::cat(&[first, second], 1)
        });
    }
}

#[test]
fn attention_of_many_tiles() {
    // Batch, heads, tokens of the first stream and of the second one, size of heads. The first has more blocks than
    // a GPU has multiprocessors.
    for (batch, heads, of_first, of_second, size) in [
        (2, if IS_STANDIN { 2 } else { 40 }, 385, 77, 64),
        (1, 3, 500, 0, 64),
        (1, 3, 127, 129, 56),
        (2, 2, 193, 300, 40),
        (1, 2, 129, 257, 80),
        (1, 2, 128, 256, 72),
        (2, 3, 400, 130, 128),
    ] {
        compare(
            &format!("joint_attention, {of_first} + {of_second} tokens, heads of {size}"),
            |target| {
                // As a projection to queries, keys and values at once makes them.
                let heads = |tokens: usize, seed: u64| -> candle_core::Result<Heads> {
                    let parts = target.random(&[batch, tokens, 3 * heads, size], seed);
                    let part = |index: usize| parts.narrow(2, index * heads, heads);
                    Ok(Heads {
                        queries: part(0)?,
                        keys: part(1)?,
                        values: part(2)?,
                    })
                };
                if of_second == 0 {
                    let heads = heads(of_first, 1)?;
                    let [q, k, v] =
                        [heads.queries, heads.keys, heads.values].map(|part| part.transpose(1, 2));
                    return attention(&q?, &k?, &v?, None, 0.2, Precision::Full);
                }
                let (first, second) =
                    joint_attention(heads(of_first, 1)?, heads(of_second, 2)?, 0.2, Precision::Full)?;
                Tensor::cat(&[first, second], 1)
            },
        );
    }
}

#[test]
fn attention_to_few_keys() {
    for (queries, keys, size) in [
        (1000, 77, 64),
        (300, 77, 40),
        (200, 1, 80),
        (65, 130, 128),
        (1, 500, 64),
    ] {
        compare(&format!("attention to {keys} keys of {size}"), |target| {
            let of = |rows: usize, seed: u64| target.random(&[2, rows, 3, size], seed).transpose(1, 2);
            attention(
                &of(queries, 1)?,
                &of(keys, 2)?,
                &of(keys, 3)?,
                None,
                0.3,
                Precision::Full,
            )
        });
    }
}

#[test]
fn attention_with_scores_far_from_zero() {
    for (queries, keys) in [(300, 1000), (64, 77), (1, 1)] {
        compare("attention", |target| {
            let of = |rows: usize, seed: u64| (target.random(&[1, rows, 2, 64], seed) * 8.0)?.transpose(1, 2);
            attention(
                &of(queries, 1)?,
                &of(keys, 2)?,
                &of(keys, 3)?,
                None,
                0.125,
                Precision::Full,
            )
        });
    }
}

#[test]
fn attention_with_and_without_bias() {
    // The last case is split into chunks of queries where no kernel is fused, which a stand-in's are.
    let many = if IS_STANDIN {
        (2, 4, 150, 1030, 64)
    } else {
        (2, 4, 700, 4096, 64)
    };
    for (batch, heads, queries, keys, size) in [(2, 3, 77, 77, 64), (1, 2, 5, 300, 48), many] {
        for bias in [
            None,
            Some(vec![1, 1, queries, keys]),
            Some(vec![heads, queries, keys]),
        ] {
            compare("attention", |target| {
                // As the networks hand them over: heads split off a row of features.
                let of = |rows: usize, seed: u64| {
                    (target.random(&[batch, rows, heads, size], seed) * 2.0)?.transpose(1, 2)
                };
                let bias = bias.as_ref().map(|shape| target.wide(shape, 4));
                let scale = 1.0 / (size as f64).sqrt();
                attention(
                    &of(queries, 1)?,
                    &of(keys, 2)?,
                    &of(keys, 3)?,
                    bias.as_ref(),
                    scale,
                    Precision::Full,
                )
            });
        }
    }
}

#[test]
fn a_query_whose_every_key_is_masked_gets_zeros() {
    let device = device();
    let of = |seed: u64| {
        let target = Target {
            device: device.clone(),
            held_type: DType::BF16,
        };
        target.random(&[1, 1, 4, 8], seed)
    };
    let mask = Tensor::full(f32::NEG_INFINITY, (4, 4), &device).unwrap();
    let found = attention(&of(1), &of(2), &of(3), Some(&mask), 1.0, Precision::Full).unwrap();
    let sum = found
        .to_dtype(DType::F32)
        .unwrap()
        .abs()
        .unwrap()
        .sum_all()
        .unwrap();
    assert_eq!(sum.to_scalar::<f32>().unwrap(), 0.0);
}
