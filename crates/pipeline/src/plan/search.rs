//! The search for the fastest plan within a budget.

use sd_memory::{Bytes, Limit};

use super::groups::{Groups, worth_a_reload};
use super::needs::{Denoising, Needs, OnePass};
use super::{DENOISE, Plan, StagePlan};

/// The number of resident blocks, and of images that share a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    kept: usize,
    images: usize,
}

/// The plan within `budget` that reads least. The smallest plan must fit. Its groups have the size that suits
/// this model best; [`Plan::in_groups_of`] sets the final one.
pub(super) fn fastest(needs: &Needs, images: usize, budget: Bytes, free_memory: Bytes) -> Plan {
    let choice = choose(&needs.denoising, images, budget);
    let blocks = needs.denoising.weights.blocks.len();
    let of_network = needs.denoising.streamed(choice.kept);
    let least = needs.denoising.peak(choice.kept, choice.images);
    let with_controls = least - needs.denoising.control_window + needs.denoising.control_weights;
    let controls_stay = with_controls <= budget.0;
    let streamed = of_network
        + if controls_stay {
            0
        } else {
            needs.denoising.control_weights
        };
    let mut denoise = StagePlan {
        name: DENOISE.to_owned(),
        resident: Bytes(
            needs.denoising.weights.always
                + needs.denoising.kept(choice.kept)
                + if controls_stay {
                    needs.denoising.control_weights
                } else {
                    0
                },
        ),
        streamed: Bytes(streamed),
        predicted_peak: Bytes(if controls_stay { with_controls } else { least }),
        streaming_saves: Bytes(needs.denoising.peak(blocks, choice.images).saturating_sub(least)),
        read_each_pass: Bytes(streamed),
        // For one batch, until the number of batches is known.
        passes: needs.denoising.evaluations,
        loads: 1,
        arithmetic: needs.denoising.arithmetic.times(images),
        duration: None,
    };
    let peak = denoise.predicted_peak;
    let mut decode = one_pass(&needs.decoding);
    decode.arithmetic = decode.arithmetic.times(images);
    // If all networks stay in memory, the decoder is held during the denoising, and the denoiser during the
    // decoding.
    let with_decoder = Bytes(peak.0 + needs.decoding.weights.always);
    let beside_denoiser = needs.denoising.held(choice.kept, controls_stay);
    let with_denoiser = Bytes(decode.predicted_peak.0 + beside_denoiser);
    let waiting_in_decode = (choice.images - 1) as u64 * needs.waiting;
    let networks_stay = needs.alone
        && images > choice.images
        && with_decoder <= budget
        && with_denoiser.0 + waiting_in_decode <= budget.0;
    if networks_stay {
        denoise.predicted_peak = with_decoder;
        decode.predicted_peak = with_denoiser;
    }
    let images_a_group = if networks_stay {
        choice.images
    } else {
        worth_a_reload(choice.images, needs.denoising.evaluations, needs.has_own_memory)
    };
    let mut stages: Vec<StagePlan> = needs.before.iter().map(one_pass).collect();
    stages.push(denoise);
    stages.push(decode);
    let mut plan = Plan {
        budget,
        budget_from: Limit::Requested,
        predicted_peak: Bytes(0),
        smallest_budget: needs.smallest_budget(),
        resident_budget: Bytes(needs.denoising.peak(blocks, 1)).max(needs.smallest_budget()),
        blocks,
        resident_blocks: choice.kept,
        controls_stay,
        images_per_pass: choice.images,
        groups: Groups::new(
            images,
            choice.images,
            networks_stay,
            needs.steps,
            needs.waiting,
            needs.alone,
        ),
        condition_bytes: Bytes(needs.denoising.conditions),
        // LRU caching is useless for a cyclic read of more than fits.
        release_page_cache: free_memory.saturating_sub(peak).0 < streamed,
        duration: None,
        stages,
        kept_encoders: Vec::new(),
    };
    plan.groups.most_images = plan.most_images_a_group();
    plan.groups.images_a_group = images_a_group;
    plan
}

fn one_pass(stage: &OnePass) -> StagePlan {
    let streamed: u64 = stage.weights.blocks.iter().sum();
    StagePlan {
        name: stage.name.to_owned(),
        resident: Bytes(stage.weights.always),
        streamed: Bytes(streamed),
        predicted_peak: Bytes(stage.peak()),
        streaming_saves: Bytes((stage.beside + stage.weights.always + streamed).saturating_sub(stage.peak())),
        read_each_pass: Bytes(streamed),
        passes: 1,
        loads: 1,
        arithmetic: stage.arithmetic,
        duration: None,
    }
}

/// If all blocks fit, sharing a pass gains nothing. Otherwise the choice with the fewest bytes read per step
/// of an image, and of equal ones that with fewer images, which holds less.
fn choose(denoising: &Denoising, images: usize, budget: Bytes) -> Choice {
    let blocks = denoising.weights.blocks.len();
    let most_kept = |images: usize| {
        (0..=blocks)
            .rev()
            .find(|&kept| denoising.peak(kept, images) <= budget.0)
    };
    let most = images.min(denoising.beside.len());
    let choices = (1..=most).map_while(|images| most_kept(images).map(|kept| Choice { kept, images }));
    let cost = |choice: &Choice| {
        let groups = images.div_ceil(choice.images) as u64;
        groups * denoising.streamed(choice.kept)
    };
    // `min_by_key` returns the first minimum.
    choices.min_by_key(cost).unwrap_or(Choice { kept: 0, images: 1 })
}

#[cfg(test)]
mod tests {
    use sd_models::WeightBytes;

    use super::super::Arithmetic;
    use super::super::needs::Beside;
    use super::*;

    fn beside(bytes: u64) -> Beside {
        Beside {
            throughout: bytes,
            of_blocks: vec![0; 10],
        }
    }

    fn denoising() -> Denoising {
        Denoising {
            weights: WeightBytes {
                blocks: vec![100; 10],
                always: 5,
            },
            conditions: 20,
            evaluations: 28,
            control_window: 0,
            control_weights: 0,
            control_conditions: 0,
            arithmetic: Arithmetic::default(),
            beside: [50, 70, 90, 110].map(beside).into(),
        }
    }

    #[test]
    fn what_fits_stays() {
        let all = choose(&denoising(), 4, Bytes(1055));
        assert_eq!(all, Choice { kept: 10, images: 1 });
        let nearly = choose(&denoising(), 1, Bytes(1054));
        // The window of two blocks takes the space of two resident ones.
        assert_eq!(nearly, Choice { kept: 7, images: 1 });
        assert_eq!(denoising().peak(nearly.kept, 1), 50 + 5 + 700 + 200);
    }

    #[test]
    fn images_share_a_pass_that_is_streamed() {
        assert_eq!(choose(&denoising(), 4, Bytes(400)), Choice { kept: 0, images: 4 });
        assert_eq!(choose(&denoising(), 4, Bytes(280)), Choice { kept: 0, images: 2 });
        assert_eq!(choose(&denoising(), 4, Bytes(255)), Choice { kept: 0, images: 1 });
    }

    #[test]
    fn more_memory_never_reads_more() {
        let denoising = denoising();
        let mut before = u64::MAX;
        for budget in 255..1200 {
            let choice = choose(&denoising, 4, Bytes(budget));
            assert!(denoising.peak(choice.kept, choice.images) <= budget);
            let read = 4_u64.div_ceil(choice.images as u64) * denoising.streamed(choice.kept);
            assert!(read <= before, "{budget}");
            before = read;
        }
    }
}
