//! Computes the colours of a model's latents for previews (`src/preview.rs`): the linear map from latents to pixels that
//! fits what the model's own decoder makes of its images best.
//!
//!     cargo run --release -p sd-pipeline --example latent_colors [MODEL]
//!
//! It draws an image for each of some prompts and seeds, decodes them, and solves the least squares problem of each of red,
//! green and blue over all latents, with the mean of a latent's 8x8 pixels.

#![allow(clippy::print_stdout)] // For whoever runs it.

use std::error::Error;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use sd_pipeline::bundle::Bundle;
use sd_pipeline::family::Task;
use sd_pipeline::save::RgbImage;
use sd_pipeline::stage::{self, Denoise};
use sd_pipeline::{Interrupt, ModelChoice, ModelFiles, Recipe, Recommended, Request};
use sd_weights::{Residency, WeightOptions, WeightType};

const PROMPTS: [&str; 8] = [
    "a red circle above a blue square",
    "a green triangle",
    "a yellow star on a black background",
    "a purple square left of an orange circle",
    "a white circle on a blue background",
    "a black triangle on a white background",
    "a pink star above a green circle",
    "a gray square on a red background",
];
const SEEDS: u64 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let built_in = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let model = std::env::args_os().nth(1).map_or_else(built_in, PathBuf::from);
    let bundle = Bundle::open(&ModelFiles::at(&model))?;
    let weight_options = WeightOptions::new(Device::Cpu, WeightType::AsStored, Residency::Resident);
    let interrupt = Interrupt::default();
    // Rows of the problem: the channels of a latent and 1, then its red, green and blue.
    let mut rows: Vec<(Vec<f64>, [f64; 3])> = Vec::new();
    for prompt in PROMPTS {
        let choice = ModelChoice {
            name: "model".to_owned(),
            files: ModelFiles::at(&model),
            recommended: Recommended::default(),
        };
        let recipe = Recipe::new(&Request::new(prompt, choice), &bundle, None)?;
        let encoded = stage::encode(&bundle, &["", prompt], 0, &weight_options, &interrupt)?;
        let denoise = Denoise::load(&bundle, &recipe, &encoded, &weight_options, true)?;
        let mut all: Vec<Tensor> = Vec::new();
        for seed in 0..SEEDS {
            let mut sample = [denoise.begin(seed, None)?];
            for _ in 0..denoise.sampler().evaluations() {
                denoise.step(&mut sample)?;
            }
            let [sample] = sample;
            all.push(sample.progress.sampler_state.latents);
        }
        let scaling = bundle.family.decoding(Task::TextToImage, false);
        stage::decode(
            &bundle,
            &all,
            scaling,
            &weight_options,
            &interrupt,
            |index, image| {
                rows.extend(pairs(&all[index], &image)?);
                Ok(())
            },
        )?;
    }
    let unknowns = rows[0].0.len();
    let solutions = [0, 1, 2].map(|color| least_squares(&rows, unknowns, color));
    let [red, green, blue] = &solutions;
    for ((red, green), blue) in red.iter().zip(green).zip(blue) {
        println!("[{red:.4}, {green:.4}, {blue:.4}],");
    }
    let (mut squares, mut count) = (0.0, 0);
    for (latent, colors) in &rows {
        for (color, solution) in colors.iter().zip(&solutions) {
            let found: f64 = latent
                .iter()
                .zip(solution)
                .map(|(value, factor)| value * factor)
                .sum();
            squares += (found - color).powi(2);
            count += 1;
        }
    }
    println!(
        "root mean square error: {:.3} of 2",
        (squares / f64::from(count)).sqrt()
    );
    Ok(())
}

/// The channels of each latent, `[1, channels, rows, columns]`, and 1, with the mean of its pixels.
fn pairs(latents: &Tensor, image: &RgbImage) -> sd_pipeline::Result<Vec<(Vec<f64>, [f64; 3])>> {
    let (_, channels, rows, columns) = latents.dims4()?;
    let values = latents.flatten_all()?.to_vec1::<f32>()?;
    let side = image.height() / rows;
    let mut pairs = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let at = |channel: usize| f64::from(values[(channel * rows + row) * columns + column]);
            let latent = (0..channels).map(at).chain([1.0]).collect();
            let mut sums = [0.0; 3];
            for y in row * side..(row + 1) * side {
                for x in column * side..(column + 1) * side {
                    let pixel = &image.pixels()[3 * (y * image.width() + x)..][..3];
                    for (sum, &byte) in sums.iter_mut().zip(pixel) {
                        *sum += f64::from(byte) / 127.5 - 1.0;
                    }
                }
            }
            pairs.push((latent, sums.map(|sum| sum / (side * side) as f64)));
        }
    }
    Ok(pairs)
}

/// The factors that fit `color` best, by the normal equations.
fn least_squares(rows: &[(Vec<f64>, [f64; 3])], unknowns: usize, color: usize) -> Vec<f64> {
    let mut system = vec![vec![0.0; unknowns + 1]; unknowns];
    for (latent, colors) in rows {
        for (equation, left) in system.iter_mut().zip(latent) {
            for (entry, right) in equation.iter_mut().zip(latent.iter().chain([&colors[color]])) {
                *entry += left * right;
            }
        }
    }
    // Gauss and Jordan, with the largest pivot.
    for pivot in 0..unknowns {
        let largest = (pivot..unknowns)
            .max_by(|&left, &right| system[left][pivot].abs().total_cmp(&system[right][pivot].abs()));
        system.swap(pivot, largest.unwrap_or(pivot));
        let of_pivot = system[pivot].clone();
        for (index, equation) in system.iter_mut().enumerate() {
            if index != pivot {
                let factor = equation[pivot] / of_pivot[pivot];
                for (entry, value) in equation.iter_mut().zip(&of_pivot) {
                    *entry -= factor * value;
                }
            }
        }
    }
    (0..unknowns)
        .map(|index| system[index][unknowns] / system[index][index])
        .collect()
}
