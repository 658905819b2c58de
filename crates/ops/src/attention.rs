//! Scaled dot-product attention.

use candle_core::{CpuStorage, D, DType, Device, Layout, Storage, Tensor, bail};

use crate::Result;
use crate::capabilities::Backend;
use crate::cpu::attention as kernel;
pub use crate::cpu::attention::Precision;
use crate::cpu::simd::InstructionSet;
#[cfg(gpu)]
use crate::gpu::{has_kernels, on_gpu};

/// Scores that the plain definition computes at a time: 64 MiB of 32-bit floats.
const PLAIN_SCORES: usize = 1 << 24;

/// Scaled dot-product attention, `softmax(scale * q k^T + bias) v`. Vaswani et al., "Attention Is All You
/// Need", 2017.
///
/// - `q`: `[batch, heads, queries, head size]`
/// - `k`: `[batch, heads, keys, head size]`
/// - `v`: `[batch, heads, keys, value size]`
/// - `bias`: added to the scores before the softmax, such as a causal mask of `-inf` or T5's relative
///   position bias; anything that broadcasts to `[batch, heads, queries, keys]`
/// - `precision`: the type of the products on a CPU
///
/// Returns `[batch, heads, queries, value size]`; on a CPU as a view of
/// `[batch, queries, heads, value size]`, so that `transpose(1, 2)` and a reshape that concatenates the heads
/// copy nothing. The score matrix is never stored as a whole. A query whose keys are all masked by `-inf`
/// gets zeros.
///
/// # Errors
/// The shapes do not fit each other, or the device fails.
#[doc(alias = "cross attention")]
#[doc(alias = "scaled_dot_product_attention")]
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<&Tensor>,
    scale: f64,
    precision: Precision,
) -> Result<Tensor> {
    let (batch, heads, queries, size) = q.dims4()?;
    let (key_batch, key_heads, keys, key_size) = k.dims4()?;
    let (value_batch, value_heads, values, _) = v.dims4()?;
    if (key_batch, key_heads, key_size) != (batch, heads, size)
        || (value_batch, value_heads, values) != (batch, heads, keys)
    {
        bail!(
            "attention of queries {:?} to keys {:?} and values {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    let bias = bias
        .map(|bias| bias.broadcast_as((batch, heads, queries, keys)))
        .transpose()?;
    match Backend::of(q.device()) {
        Backend::Cpu => {
            let keys = [(k.clone(), v.clone())];
            on_cpu(InstructionSet::best(), q, &keys, bias.as_ref(), scale, precision)
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, attention(q, k, v, bias.as_ref(), scale)),
        _ => plain(q, k, v, bias.as_ref(), scale),
    }
}

/// Queries, keys and values of a token sequence, `[batch, tokens, heads, head size]` each.
#[derive(Debug, Clone)]
pub struct Heads {
    /// Queries.
    pub queries: Tensor,
    /// Keys.
    pub keys: Tensor,
    /// Values.
    pub values: Tensor,
}

/// Joint attention: the tokens of two streams attend to the tokens of both, as one concatenated sequence.
/// Returns `[batch, tokens, heads * head size]` for each stream. Heads are dropped after their last use; on a
/// CPU they are not concatenated.
///
/// # Errors
/// The shapes do not fit each other, or the device fails.
pub fn joint_attention(
    first: Heads,
    second: Heads,
    scale: f64,
    precision: Precision,
) -> Result<(Tensor, Tensor)> {
    let (batch, _, heads, size) = first.queries.dims4()?;
    for part in [&first, &second] {
        let (of_batch, tokens, of_heads, of_size) = part.queries.dims4()?;
        let (keys, values) = (part.keys.dims(), part.values.dims());
        if (of_batch, of_heads, of_size) != (batch, heads, size)
            || keys != [batch, tokens, heads, size]
            || values != keys
        {
            bail!(
                "joint attention of queries {:?} to keys {keys:?} and values {values:?} in {heads} heads of {size}",
                part.queries.dims()
            );
        }
    }
    match Backend::of(first.queries.device()) {
        Backend::Cpu => joint_on_cpu(&first, &second, scale, precision),
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, joint_attention(first, second, scale)),
        _ => plain_joint(first, second, scale),
    }
}

/// `[batch, tokens, heads, head size]` as `[batch, heads, tokens, head size]`.
fn by_heads(tensor: &Tensor) -> Result<Tensor> {
    tensor.transpose(1, 2)
}

/// `[batch, heads, tokens, head size]` as `[batch, tokens, heads * head size]`.
fn joined(mixed: &Tensor) -> Result<Tensor> {
    mixed.transpose(1, 2)?.flatten_from(2)
}

fn joint_on_cpu(first: &Heads, second: &Heads, scale: f64, precision: Precision) -> Result<(Tensor, Tensor)> {
    let keys = [
        (by_heads(&first.keys)?, by_heads(&first.values)?),
        (by_heads(&second.keys)?, by_heads(&second.values)?),
    ];
    let attend = |queries: &Tensor| {
        let queries = by_heads(queries)?;
        let mixed = on_cpu(InstructionSet::best(), &queries, &keys, None, scale, precision)?;
        joined(&mixed)
    };
    Ok((attend(&first.queries)?, attend(&second.queries)?))
}

/// The plain definition of joint attention: that of attention, of the concatenated streams.
fn plain_joint(first: Heads, second: Heads, scale: f64) -> Result<(Tensor, Tensor)> {
    // Both inputs are dropped at the end of each call.
    let join = |first: Tensor, second: Tensor| Tensor::cat(&[first, second], 1);
    let (of_first, of_second) = (first.queries.dim(1)?, second.queries.dim(1)?);
    let queries = join(first.queries, second.queries)?;
    let keys = join(first.keys, second.keys)?;
    let values = join(first.values, second.values)?;
    let mixed = plain(
        &by_heads(&queries)?,
        &by_heads(&keys)?,
        &by_heads(&values)?,
        None,
        scale,
    )?;
    drop((queries, keys, values));
    let mixed = joined(&mixed)?;
    // Copied, so that neither part keeps the memory of both.
    Ok((
        mixed.narrow(1, 0, of_first)?.force_contiguous()?,
        mixed.narrow(1, of_first, of_second)?.force_contiguous()?,
    ))
}

/// Runs the CPU kernel with queries, keys with their values, and a broadcast bias.
fn on_cpu(
    set: InstructionSet,
    q: &Tensor,
    keys: &[(Tensor, Tensor)],
    bias: Option<&Tensor>,
    scale: f64,
    precision: Precision,
) -> Result<Tensor> {
    let (batch, heads, queries, size) = q.dims4()?;
    let value_size = keys.first().map_or(Ok(0), |(_, v)| v.dim(3))?;
    // Heads that are slices of a row are read in place.
    let readable = |tensor: &Tensor| {
        if tensor.stride()[3] == 1 {
            Ok(tensor.clone())
        } else {
            tensor.contiguous()
        }
    };
    let q = readable(q)?;
    let keys: Vec<[Tensor; 2]> = keys
        .iter()
        .map(|(k, v)| Ok([readable(k)?, readable(v)?]))
        .collect::<Result<_>>()?;
    let (storage, layout) = q.storage_and_layout();
    let of_keys: Vec<_> = keys
        .iter()
        .map(|[k, v]| [k.storage_and_layout(), v.storage_and_layout()])
        .collect();
    let views = of_keys
        .iter()
        .zip(&keys)
        .map(|([k, v], [tensor, _])| {
            Ok(kernel::Keys {
                k: view(&k.0, k.1)?,
                v: view(&v.0, v.1)?,
                count: tensor.dim(2)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let bias = bias.map(Tensor::storage_and_layout);
    let settings = kernel::Attention {
        q: view(&storage, layout)?,
        keys: &views,
        bias: bias.as_ref().map(|bias| view(&bias.0, bias.1)).transpose()?,
        batch,
        heads,
        queries,
        size,
        value_size,
        scale: scale as f32,
        precision,
    };
    let result = kernel::attention(set, &settings);
    // The heads of a token are stored side by side, so that concatenating them copies nothing.
    Tensor::from_vec(result, (batch, queries, heads, value_size), &Device::Cpu)?.transpose(1, 2)
}

fn view<'a>(storage: &'a Storage, layout: &Layout) -> Result<kernel::View<'a>> {
    let (Storage::Cpu(CpuStorage::F32(values)), &[a, b, c, d]) = (storage, layout.stride()) else {
        bail!("activations on the CPU are f32");
    };
    Ok(kernel::View {
        values: &values[layout.start_offset()..],
        steps: [a, b, c, d],
    })
}

/// The plain definition, in chunks of queries, so that the scores stay small.
fn plain(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, scale: f64) -> Result<Tensor> {
    let (batch, heads, queries, _) = q.dims4()?;
    let keys = k.dim(2)?;
    let chunk = (PLAIN_SCORES / (batch * heads * keys).max(1)).clamp(1, queries.max(1));
    let (transposed, v) = (k.contiguous()?.t()?, v.contiguous()?);
    let mut chunks = Vec::new();
    for first in (0..queries).step_by(chunk) {
        let count = chunk.min(queries - first);
        let scores = (q
            .narrow(2, first, count)?
            .contiguous()?
            .matmul(&transposed)?
            .to_dtype(DType::F32)?
            * scale)?;
        let scores = match bias {
            Some(bias) => scores.broadcast_add(&bias.narrow(2, first, count)?)?,
            None => scores,
        };
        chunks.push(plain_softmax(scores)?.to_dtype(v.dtype())?.matmul(&v)?);
    }
    match chunks.len() {
        0 => Tensor::zeros((batch, heads, 0, v.dim(3)?), v.dtype(), v.device()),
        _ => Tensor::cat(&chunks, 2),
    }
}

/// The softmax of each row. Rows that are all `-inf` become zeros.
fn plain_softmax(scores: Tensor) -> Result<Tensor> {
    // A row that is all `-inf` has no maximum; 0 in its place avoids `-inf - -inf`.
    let greatest = scores.max_keepdim(D::Minus1)?.clamp(f32::MIN, f32::MAX)?;
    let apart = scores.broadcast_sub(&greatest)?;
    drop(scores);
    let weights = apart.exp()?;
    drop(apart);
    let sums = weights
        .sum_keepdim(D::Minus1)?
        .clamp(f32::MIN_POSITIVE, f32::MAX)?;
    weights.broadcast_div(&sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::kernel::tests::{close, eighths, equal, random};

    fn qkv(batch: usize, heads: usize, queries: usize, keys: usize, size: usize) -> [Tensor; 3] {
        let of = |rows: usize, seed: u64| (random(&[batch, heads, rows, size], seed) * 3.0).unwrap();
        [of(queries, 1), of(keys, 2), of(keys, 3)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_the_plain_definition(
            (batch, heads, size) in (1_usize..3, 1_usize..4, 1_usize..90),
            (queries, keys) in (1_usize..150, 1_usize..1200),
            bias in prop::option::of((any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>())),
        ) {
            let [q, k, v] = qkv(batch, heads, queries, keys, size);
            let bias = bias.map(|(by_batch, by_head, by_query, by_key)| {
                let dimension = |varies: bool, size: usize| if varies { size } else { 1 };
                random(
                    &[
                        dimension(by_batch, batch),
                        dimension(by_head, heads),
                        dimension(by_query, queries),
                        dimension(by_key, keys),
                    ],
                    4,
                )
            });
            let scale = 1.0 / (size as f64).sqrt();
            let bias = bias.map(|bias| bias.broadcast_as((batch, heads, queries, keys)).unwrap());
            let expected = plain(&q, &k, &v, bias.as_ref(), scale).unwrap();
            let keys = [(k, v)];
            for set in InstructionSet::all() {
                let with = |precision| on_cpu(set, &q, &keys, bias.as_ref(), scale, precision).unwrap();
                close(&with(Precision::Full), &expected, 1e-5);
                if set.has_bf16_dot() {
                    // The weights of the softmax are rounded too: what that does to a sum is chance. The next test leaves
                    // nothing to chance.
                    close(&with(Precision::Bf16), &expected, 2e-2);
                } else {
                    equal(&with(Precision::Bf16), &with(Precision::Full));
                }
            }
        }
    }

    /// Where the scores are whole powers of 2 every factor of both products is a number that bf16 holds.
    #[test]
    fn products_of_numbers_that_bf16_holds_lose_nothing() {
        for (batch, heads, queries, keys, size) in
            [(2, 3, 37, 1100, 40), (1, 2, 130, 77, 64), (1, 1, 3, 5, 7)]
        {
            let whole = |rows: usize, seed: u64| {
                let values = random(&[batch, heads, rows, size], seed);
                (values * 1.4).unwrap().round().unwrap()
            };
            let (q, k) = (whole(queries, 1), whole(keys, 2));
            let v = eighths(&[batch, heads, keys, size], 3);
            let scale = std::f64::consts::LN_2;
            let expected = plain(&q, &k, &v, None, scale).unwrap();
            let keys = [(k, v)];
            for set in InstructionSet::all() {
                let found = on_cpu(set, &q, &keys, None, scale, Precision::Bf16).unwrap();
                close(&found, &expected, 1e-5);
            }
        }
    }

    #[test]
    fn queries_of_several_tasks_are_what_they_are_alone() {
        // The fewer features there are, the more queries a task takes.
        for size in [8, 64, 100] {
            let [q, k, v] = qkv(1, 2, 500, 70, size);
            let expected = plain(&q, &k, &v, None, 0.2).unwrap();
            let keys = [(k, v)];
            for set in InstructionSet::all() {
                let of = |q: &Tensor| on_cpu(set, q, &keys, None, 0.2, Precision::Full).unwrap();
                let all = of(&q);
                close(&all, &expected, 1e-5);
                for first in [0, 150, 380] {
                    let some = |tensor: &Tensor| tensor.narrow(2, first, 60).unwrap().contiguous().unwrap();
                    equal(&of(&some(&q)), &some(&all));
                }
            }
        }
    }

    #[test]
    fn heads_are_read_and_joined_where_they_are() {
        let (batch, heads, tokens, size) = (2, 3, 70, 8);
        let joined = random(&[batch, tokens, 3 * heads * size], 1);
        let split = |index: usize| {
            let part = joined.narrow(2, index * heads * size, heads * size).unwrap();
            part.reshape((batch, tokens, heads, size))
                .unwrap()
                .transpose(1, 2)
                .unwrap()
        };
        let [q, k, v] = [split(0), split(1), split(2)];
        let found = attention(&q, &k, &v, None, 0.3, Precision::Full).unwrap();
        let contiguous = |tensor: &Tensor| tensor.contiguous().unwrap();
        equal(
            &found,
            &attention(
                &contiguous(&q),
                &contiguous(&k),
                &contiguous(&v),
                None,
                0.3,
                Precision::Full,
            )
            .unwrap(),
        );
        assert!(found.transpose(1, 2).unwrap().is_contiguous());
        // Features that do not lie side by side.
        let strided = |tensor: &Tensor| tensor.t().unwrap().contiguous().unwrap().t().unwrap();
        equal(
            &found,
            &attention(
                &strided(&q),
                &strided(&k),
                &strided(&v),
                None,
                0.3,
                Precision::Full,
            )
            .unwrap(),
        );
        let values = v.narrow(3, 0, 5).unwrap();
        assert_eq!(
            attention(&q, &k, &values, None, 0.3, Precision::Full)
                .unwrap()
                .dims(),
            [batch, heads, tokens, 5]
        );
    }

    #[test]
    fn joint_attention_is_that_of_all_tokens() {
        let (batch, heads, size) = (2, 3, 20);
        let of = |tokens: usize, seed: u64| random(&[batch, tokens, heads, size], seed);
        for (first, second) in [(1, 5), (130, 77), (128, 1), (40, 300), (7, 0)] {
            let parts = [
                [of(first, 1), of(first, 2), of(first, 3)],
                [of(second, 4), of(second, 5), of(second, 6)],
            ];
            let both = |index: usize| {
                let both = Tensor::cat(&[&parts[0][index], &parts[1][index]], 1).unwrap();
                both.transpose(1, 2).unwrap()
            };
            let expected = attention(&both(0), &both(1), &both(2), None, 0.5, Precision::Full).unwrap();
            let expected = expected.transpose(1, 2).unwrap().flatten_from(2).unwrap();
            let [of_first, of_second] = parts.map(|[queries, keys, values]| Heads {
                queries,
                keys,
                values,
            });
            let found = joint_attention(of_first, of_second, 0.5, Precision::Full).unwrap();
            equal(&found.0, &expected.narrow(1, 0, first).unwrap());
            equal(&found.1, &expected.narrow(1, first, second).unwrap());
        }
        let (three, four) = (of(3, 1), of(4, 1));
        let part = |queries: &Tensor, keys: &Tensor| Heads {
            queries: queries.clone(),
            keys: keys.clone(),
            values: keys.clone(),
        };
        assert!(joint_attention(part(&three, &three), part(&three, &four), 1.0, Precision::Full).is_err());
    }

    #[test]
    fn masked_keys_weigh_nothing() {
        let [q, k, v] = qkv(1, 2, 100, 1100, 16);
        // Whole blocks of keys are masked at either end, and one query sees none at all.
        let seen = |query: usize, key: usize| query != 7 && (600..600 + query).contains(&key);
        let mask = (0..100 * 1100).map(|at| {
            if seen(at / 1100, at % 1100) {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        });
        let mask = Tensor::from_vec(mask.collect(), (1, 1, 100, 1100), &Device::Cpu).unwrap();
        let found = attention(&q, &k, &v, Some(&mask), 0.25, Precision::Full).unwrap();
        close(&found, &plain(&q, &k, &v, Some(&mask), 0.25).unwrap(), 1e-5);
        let rows = found.get(0).unwrap().get(0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!((&rows[0], &rows[7]), (&vec![0.0; 16], &vec![0.0; 16]));
        let only = v
            .get(0)
            .unwrap()
            .get(0)
            .unwrap()
            .get(600)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(rows[1], only);
    }

    #[test]
    fn large_scores_stay_finite() {
        let [q, k, v] = qkv(1, 1, 5, 700, 32);
        let found = attention(
            &(q * 1e3).unwrap(),
            &(k * 1e3).unwrap(),
            &v,
            None,
            1.0,
            Precision::Full,
        )
        .unwrap();
        let rows = found.get(0).unwrap().get(0).unwrap().to_vec2::<f32>().unwrap();
        let values = v.get(0).unwrap().get(0).unwrap().to_vec2::<f32>().unwrap();
        // The greatest score is so far above the others that its value is all of the result.
        assert!(rows.iter().all(|row| values.contains(row)));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let [q, k, v] = qkv(1, 2, 5, 9, 4);
        assert!(attention(&q, &k, &q, None, 1.0, Precision::Full).is_err());
        assert!(attention(&q, &k.narrow(3, 0, 2).unwrap(), &v, None, 1.0, Precision::Full).is_err());
        assert!(attention(&q, &k, &v, Some(&random(&[1, 1, 5, 8], 1)), 1.0, Precision::Full).is_err());
        let none = q.narrow(2, 0, 0).unwrap();
        assert_eq!(
            attention(&none, &k, &v, None, 1.0, Precision::Full)
                .unwrap()
                .dims(),
            [1, 2, 0, 4]
        );
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let [q, k, v] = qkv(2, 3, 200, 700, 40);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| attention(&q, &k, &v, None, 0.2, Precision::Full).unwrap())
        };
        equal(&with(1), &with(3));
    }
}
