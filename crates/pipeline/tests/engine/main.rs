//! The cache of an engine between two requests, and its release.
//!
//! The bytes that are read and allocated are counted for the whole process. So this is a separate program
//! that runs its tests one after another.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.
#![allow(clippy::print_stdout, clippy::print_stderr)] // For whoever runs the test.

mod ahead;
mod generated;
mod kept;
mod models;
#[path = "../reference/mod.rs"]
mod reference;
mod released;

use sd_pipeline::memory::{CountingAllocator, keep_heap_small};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

type Test = (&'static str, fn());

const TESTS: [Test; 14] = [
    (
        "a_second_request_reads_no_resident_block_again",
        kept::a_second_request_reads_no_resident_block_again,
    ),
    (
        "a_second_request_with_another_prompt_reads_no_text_encoder_again",
        kept::a_second_request_with_another_prompt_reads_no_text_encoder_again,
    ),
    (
        "text_encoders_stay_only_where_everything_fits",
        kept::text_encoders_stay_only_where_everything_fits,
    ),
    (
        "other_settings_of_the_same_model_use_its_blocks",
        kept::other_settings_of_the_same_model_use_its_blocks,
    ),
    (
        "blocks_of_a_refiner_and_of_controlnets_are_kept",
        kept::blocks_of_a_refiner_and_of_controlnets_are_kept,
    ),
    (
        "no_budget_is_exceeded_and_no_image_changed_by_what_is_kept",
        kept::no_budget_is_exceeded_and_no_image_changed_by_what_is_kept,
    ),
    ("a_changed_file_is_read_again", kept::a_changed_file_is_read_again),
    (
        "the_encoders_are_read_once_for_all_prompts",
        ahead::the_encoders_are_read_once_for_all_prompts,
    ),
    (
        "a_small_budget_encodes_fewer_prompts_at_once",
        ahead::a_small_budget_encodes_fewer_prompts_at_once,
    ),
    (
        "another_model_s_request_gives_everything_back_first",
        released::another_model_s_request_gives_everything_back_first,
    ),
    (
        "nothing_grows_from_request_to_request",
        released::nothing_grows_from_request_to_request,
    ),
    (
        "ten_prompts_leave_what_the_first_has_left",
        released::ten_prompts_leave_what_the_first_has_left,
    ),
    (
        "an_interrupted_request_leaves_the_engine_usable",
        released::an_interrupted_request_leaves_the_engine_usable,
    ),
    (
        "a_failed_request_leaves_the_engine_usable",
        released::a_failed_request_leaves_the_engine_usable,
    ),
];

fn main() {
    keep_heap_small();
    // The threads, tables and caches of the first request in a process are not part of the engine's cache.
    generated::warm_up();
    let mut failed = false;
    for (name, test) in TESTS {
        let outcome = std::panic::catch_unwind(test);
        println!(
            "test {name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        failed |= outcome.is_err();
    }
    if failed {
        std::process::exit(1);
    }
}
