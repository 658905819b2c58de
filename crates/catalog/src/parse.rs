//! Parses the texts of settings and checks their ranges, for the command line and the configuration file. An
//! error says in one line what is accepted.

use sd_pipeline::seed::NoiseSource;
use sd_pipeline::{Bytes, DeviceChoice, Prediction, SizeChoice, TypeChoice};

use crate::devices::Devices;
use crate::seed_choice::SeedChoice;
use crate::styles::{self, Style};

/// Most images of one run.
const MOST_IMAGES: u64 = 10_000;
/// Most denoising steps.
const MOST_STEPS: u64 = 1000;
/// The most CLIP layers that can be skipped, counted as in stable-diffusion-webui.
const MOST_CLIP_SKIP: u64 = 12;

/// A count of images.
///
/// # Errors
/// It is no whole number, or out of range.
pub fn images(text: &str) -> Result<u64, String> {
    whole(text, 1, MOST_IMAGES)
}

/// Seeds: a number, `random` or `-1`, a list `1,2,3`, a range `10..20` with both ends, or a list of both.
///
/// # Errors
/// A part is no seed, or there are too many.
pub fn seed(text: &str) -> Result<SeedChoice, String> {
    if matches!(text, "random" | "-1") {
        return Ok(SeedChoice::Random);
    }
    if let Ok(seed) = text.parse() {
        return Ok(SeedChoice::First(seed));
    }
    let refused =
        || "a seed is a whole number from 0, `random`, a list like 1,2,3 or a range like 10..20".to_owned();
    if !text.contains([',', '.']) {
        return Err(refused());
    }
    let too_many = || format!("these are more than {MOST_IMAGES} seeds");
    let mut seeds: Vec<u64> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let last = last.strip_prefix('=').unwrap_or(last);
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| refused());
        let (first, last) = (number(first)?, number(last)?);
        let count = last.checked_sub(first).ok_or_else(refused)?;
        if count >= MOST_IMAGES {
            return Err(too_many());
        }
        seeds.extend(first..=last);
        if seeds.len() as u64 > MOST_IMAGES {
            return Err(too_many());
        }
    }
    Ok(SeedChoice::Each(seeds))
}

/// The quality of JPEG files.
///
/// # Errors
/// It is no whole number from 1 to 100.
pub fn jpeg_quality(text: &str) -> Result<u8, String> {
    whole(text, 1, 100).map(|quality| quality as u8)
}

/// A count of denoising steps.
///
/// # Errors
/// It is no whole number, or out of range.
pub fn steps(text: &str) -> Result<u64, String> {
    whole(text, 1, MOST_STEPS)
}

/// CLIP skip, counted as in stable-diffusion-webui: 1 for the last layer.
///
/// # Errors
/// It is no whole number, or out of range.
pub fn clip_skip(text: &str) -> Result<u64, String> {
    whole(text, 1, MOST_CLIP_SKIP)
}

fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("it takes a whole number from {least} to {most}"))
}

/// An image size: `WxH`, an aspect ratio `W:H`, `portrait`, `landscape` or `square`.
///
/// # Errors
/// It has not the form of a size, or networks do not support it.
pub fn size(text: &str) -> Result<SizeChoice, String> {
    text.parse()
        .map_err(|error: sd_pipeline::BadSize| error.to_string())
}

/// A memory budget, written like 8GB.
///
/// # Errors
/// It is no number of bytes, or a number without a unit that is no budget in bytes.
pub fn memory(text: &str) -> Result<Bytes, String> {
    /// No run fits into less, whoever writes a smaller number means another unit.
    const LEAST: Bytes = Bytes(1 << 20);
    let bytes = text.parse::<Bytes>().map_err(|error| error.to_string())?;
    let number = text.trim();
    let has_unit = number.ends_with(|last: char| last.is_ascii_alphabetic());
    if bytes < LEAST && !has_unit {
        return Err(format!(
            "{number} without a unit is a number of bytes: {number}GB?"
        ));
    }
    Ok(bytes)
}

/// The generator of the noise, by name.
///
/// # Errors
/// The name is unknown.
pub fn rng(text: &str) -> Result<NoiseSource, String> {
    match text {
        "torch" => Ok(NoiseSource::Torch),
        "philox" => Ok(NoiseSource::Philox),
        _ => Err("the generators are torch and philox".to_owned()),
    }
}

/// A guidance scale.
///
/// # Errors
/// It is no number from 0 to 100.
pub fn guidance_scale(text: &str) -> Result<f64, String> {
    number(text, 100.0).ok_or_else(|| "a guidance scale is a number from 0 to 100".to_owned())
}

/// A guidance rescale factor.
///
/// # Errors
/// It is no number from 0 to 1.
pub fn guidance_rescale(text: &str) -> Result<f64, String> {
    number(text, 1.0).ok_or_else(|| "guidance is rescaled by a number from 0 to 1".to_owned())
}

/// The conditioning scale of a ControlNet.
///
/// # Errors
/// It is no number from 0 to 10.
pub fn control_scale(text: &str) -> Result<f64, String> {
    number(text, 10.0).ok_or_else(|| "a control scale is a number from 0 to 10".to_owned())
}

/// The strength of image-to-image, or the fraction of the denoising at which a refiner takes over.
///
/// # Errors
/// It is no number from 0 to 1.
pub fn strength(text: &str) -> Result<f64, String> {
    number(text, 1.0).ok_or_else(|| "a strength is a number from 0 to 1".to_owned())
}

/// A finite number from 0 to `most`.
fn number(text: &str, most: f64) -> Option<f64> {
    text.parse().ok().filter(|number| (0.0..=most).contains(number))
}

/// A factor of upscaling.
///
/// # Errors
/// It is neither 2 nor 4.
pub fn upscale(text: &str) -> Result<usize, String> {
    match text {
        "2" => Ok(2),
        "4" => Ok(4),
        _ => Err("the upscaling factor is 2 or 4".to_owned()),
    }
}

/// A style by name.
///
/// # Errors
/// The name is unknown.
pub fn style(text: &str) -> Result<&'static Style, String> {
    let names = styles::ALL.map(|style| style.name).join(", ");
    Style::find(text).ok_or_else(|| format!("the styles are {names}"))
}

/// A device by name. It need not exist on this machine.
///
/// # Errors
/// The name is unknown.
pub fn device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Automatic),
        "cpu" => Ok(DeviceChoice::Cpu),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        "metal" => Ok(DeviceChoice::Metal),
        other => match other.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => Ok(DeviceChoice::Cuda(index)),
            None => Err("the devices are auto, cpu, cuda, cuda:N and metal".to_owned()),
        },
    }
}

/// One device, or several of one kind: `cuda:all`, or a list such as `cuda:0,cuda:2`.
///
/// # Errors
/// A name is unknown, a GPU is named twice, or the kinds differ.
pub fn devices(text: &str) -> Result<Devices, String> {
    if text == "cuda:all" {
        return Ok(Devices::EveryCuda);
    }
    let Some((first, others)) = text.split_once(',') else {
        return device(text)
            .map(Devices::One)
            .map_err(|reason| format!("{reason}, or several: cuda:all, or a list such as cuda:0,cuda:2"));
    };
    let names = std::iter::once(first).chain(others.split(','));
    let devices = names
        .map(|name| device(name.trim()))
        .collect::<Result<Vec<_>, _>>()?;
    let is_cuda = |device: &DeviceChoice| matches!(device, DeviceChoice::Cuda(_));
    if devices.iter().all(|device| *device == DeviceChoice::Cpu) {
        return Ok(Devices::Several(devices));
    }
    if !devices.iter().all(is_cuda) {
        return Err("several devices are all GPUs, cuda:N, or all cpu".to_owned());
    }
    let twice = (1..devices.len()).find(|&at| devices[..at].contains(&devices[at]));
    match twice {
        Some(_) => Err("a GPU is named twice".to_owned()),
        None => Ok(Devices::Several(devices)),
    }
}

/// What a model predicts, by name.
///
/// # Errors
/// The name is unknown.
pub fn prediction(text: &str) -> Result<Prediction, String> {
    match text {
        "epsilon" => Ok(Prediction::Epsilon),
        "v" => Ok(Prediction::V),
        "flow" => Ok(Prediction::Flow),
        _ => Err("models predict epsilon, v or flow".to_owned()),
    }
}

/// A data type of weights by name.
///
/// # Errors
/// The name is unknown.
pub fn weight_type(text: &str) -> Result<TypeChoice, String> {
    match text {
        "auto" => Ok(TypeChoice::Automatic),
        "f32" => Ok(TypeChoice::F32),
        "bf16" => Ok(TypeChoice::Bf16),
        "f16" => Ok(TypeChoice::F16),
        _ => Err("the types are auto, f32, f16 and bf16".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_one_or_several_of_a_kind() {
        let cuda =
            |numbers: &[usize]| Devices::Several(numbers.iter().copied().map(DeviceChoice::Cuda).collect());
        for (text, expected) in [
            ("auto", Devices::One(DeviceChoice::Automatic)),
            ("cuda", Devices::One(DeviceChoice::Cuda(0))),
            ("cuda:3", Devices::One(DeviceChoice::Cuda(3))),
            ("cuda:all", Devices::EveryCuda),
            ("cuda:2,cuda:0", cuda(&[2, 0])),
            ("cuda, cuda:1", cuda(&[0, 1])),
            ("cpu,cpu", Devices::Several(vec![DeviceChoice::Cpu; 2])),
        ] {
            assert_eq!(devices(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "gpu",
            "cuda:all,cpu",
            "cuda:0,cpu",
            "cuda:1,cuda:1",
            "cuda:0,",
            "auto,auto",
            "metal,metal",
        ] {
            assert!(devices(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seeds_are_numbers_lists_and_ranges() {
        for (text, expected) in [
            ("7", SeedChoice::First(7)),
            ("18446744073709551615", SeedChoice::First(u64::MAX)),
            ("-1", SeedChoice::Random),
            ("random", SeedChoice::Random),
            ("1,2,3", SeedChoice::Each(vec![1, 2, 3])),
            ("10..12", SeedChoice::Each(vec![10, 11, 12])),
            ("5, 1..=2, 5", SeedChoice::Each(vec![5, 1, 2, 5])),
        ] {
            assert_eq!(seed(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "-2",
            "a",
            "1,",
            "..",
            "1..",
            "3..1",
            "0..18446744073709551615",
            "1.5",
            "0..9999,1",
        ] {
            assert!(seed(text).is_err(), "{text}");
        }
    }
}
