//! Images with weights in 16-bit floats (`--dtype f16`) against those with weights in 32 bits.

use std::path::Path;

use crate::reference::{Pixels, model, model_in};
use sd_pipeline::{
    Bytes, DeviceChoice, Engine, Error, Event, ImageSize, Interrupt, ModelChoice, Request, TypeChoice,
};

/// The smallest ratio of signal to noise, in decibels: a difference of less than 1 of 255 in the mean.
const LEAST_PSNR: f64 = 48.0;

fn request(model: ModelChoice, weight_type: TypeChoice, memory: Option<Bytes>, output: &Path) -> Request {
    Request {
        steps: Some(4),
        size: Some(ImageSize::new(64, 64).unwrap().into()),
        output: output.to_owned(),
        device: DeviceChoice::Cpu,
        weight_type,
        memory,
        strict: true,
        ..Request::new("a red circle on the left", model)
    }
}

fn generate(model: ModelChoice, weight_type: TypeChoice, memory: Option<Bytes>) -> Result<Pixels, Error> {
    let folder = tempfile::tempdir().unwrap();
    let request = request(model, weight_type, memory, folder.path());
    let saved = Engine::new().run(&request, &mut |_: &Event<'_>| {}, &Interrupt::default())?;
    let metadata = std::fs::read_to_string(saved[0].image.with_extension("json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let name = match weight_type {
        TypeChoice::F16 => "f16",
        _ => "f32",
    };
    assert_eq!(metadata["dtype"], name);
    Ok(Pixels::read(&saved[0].image))
}

/// The ratio of signal to noise of `found`, in decibels.
fn psnr(found: &Pixels, expected: &Pixels) -> f64 {
    let pairs = found.bytes.iter().zip(&expected.bytes);
    let squares: f64 = pairs.map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    20.0 * (255.0 / (squares / found.bytes.len() as f64).sqrt()).log10()
}

#[test]
fn images_with_weights_in_f16_are_near_those_in_f32_and_equal_at_every_budget() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    for model in [
        model_in(&demo, "demo"),
        model("models/tiny-large"),
        model("families/sdxl"),
    ] {
        let name = model.name.clone();
        let expected = generate(model.clone(), TypeChoice::F32, None).unwrap();
        let found = generate(model.clone(), TypeChoice::F16, None).unwrap();
        let psnr = psnr(&found, &expected);
        assert!(psnr >= LEAST_PSNR, "{name}: {psnr:.1} dB");
        let smallest = match generate(model.clone(), TypeChoice::F16, Some(Bytes(1))) {
            Err(Error::BudgetTooSmall { smallest, .. }) => smallest,
            other => panic!("{name}: {other:?}"),
        };
        let streamed = generate(model, TypeChoice::F16, Some(smallest)).unwrap();
        assert!(streamed == found, "{name}: the budget changed a pixel");
    }
}
