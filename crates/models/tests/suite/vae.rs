//! The autoencoder against diffusers' `AutoencoderKL`.

use crate::random;
use crate::reference::{Case, assert_close, compare};
use candle_core::{Device, Tensor};
use sd_models::vae::{Banding, Config, Decoder, Encoder, Scaling};
use sd_weights::{Residency, WeightType};

fn agrees(name: &str) {
    let case = Case::open("vae", name);
    let config: Config = case.config();
    compare(&case, |weights| {
        let decoded = Decoder::new(weights.clone(), &config)
            .unwrap()
            .decode(case.tensor("latents"))
            .unwrap();
        let encoded = Encoder::new(weights, &config)
            .unwrap()
            .encode(case.tensor("image"))
            .unwrap();
        vec![
            ("decoded", decoded),
            ("encoded_mean", encoded.mean),
            ("encoded_logvar", encoded.log_variance),
        ]
    });
}

#[test]
fn without_quant_convolutions() {
    agrees("plain");
}

#[test]
fn with_quant_convolutions() {
    agrees("quant");
}

#[test]
fn the_names_and_the_configuration_of_the_first_releases() {
    // What Stable Diffusion 1.5 was published with says nothing of scale or of quant convolutions.
    let published: Config = serde_json::from_str(
        r#"{
            "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
            "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
            "sample_size": 512,
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
        }"#,
    )
    .unwrap();
    assert!(published.use_quant_conv && published.use_post_quant_conv && published.mid_block_add_attention);
    assert_eq!(
        (
            published.scaling_factor,
            published.shift_factor,
            published.downsampling()
        ),
        (0.18215, None, 8)
    );

    let case = Case::open("vae", "quant");
    let weights = case.weights(WeightType::F32, Residency::Resident);
    let older = |name: &str| {
        let pairs = [
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ];
        pairs
            .iter()
            .fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
    };
    let tensors: std::collections::HashMap<String, Tensor> = weights
        .checkpoint()
        .tensors()
        .map(|(name, header)| (older(name), weights.tensor(name, &header.shape).unwrap()))
        .collect();
    assert!(tensors.contains_key("decoder.mid_block.attentions.0.query.weight"));
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("vae");
    std::fs::create_dir(&folder).unwrap();
    candle_core::safetensors::save(&tensors, folder.join("diffusion_pytorch_model.safetensors")).unwrap();
    let checkpoint = sd_weights::ModelFolder::on_disk(directory.path())
        .checkpoint("vae")
        .unwrap();
    let renamed = sd_weights::Weights::new(checkpoint, weights.options().clone());
    let config: Config = case.config();
    let decode = |weights| {
        let decoder = Decoder::new(weights, &config).unwrap();
        decoder.decode(case.tensor("latents")).unwrap()
    };
    assert_equal(&decode(renamed), &decode(weights), "decoded");
}

#[test]
fn scales_are_undone() {
    let case = Case::open("vae", "plain");
    let config: Config = case.config();
    assert_eq!(
        (config.scaling_factor, config.shift_factor, config.downsampling()),
        (1.5305, Some(0.0609), 8)
    );
    let latents = case.tensor("latents");
    let scaled = config.scale(latents, Scaling::Shifted).unwrap();
    let expected = ((latents - 0.0609).unwrap() * 1.5305).unwrap();
    assert_close(&scaled, &expected, 1e-6, "scaled");
    assert_close(
        &config.unscale(&scaled, Scaling::Shifted).unwrap(),
        latents,
        1e-6,
        "unscaled",
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::open("vae", "plain");
    let config: Config = case.config();
    let weights = || case.weights(WeightType::F32, Residency::Resident);
    let decoder = Decoder::new(weights(), &config).unwrap();
    let wrong = Case::open("vae", "quant");
    assert!(matches!(
        decoder.decode(wrong.tensor("latents")),
        Err(sd_models::Error::Input { .. })
    ));
    let groups = Config {
        norm_num_groups: 5,
        ..config.clone()
    };
    assert!(matches!(
        Decoder::new(weights(), &groups),
        Err(sd_models::Error::Config { .. })
    ));
    let wider = Config {
        block_out_channels: vec![8, 12, 16, 20],
        ..config
    };
    // By the header, before anything is decoded.
    let error = Decoder::new(weights(), &wider).unwrap_err();
    assert!(
        matches!(
            &error,
            sd_models::Error::Weights(error) if matches!(error.first(), sd_weights::Error::WrongShape { .. })
        ),
        "{error:?}"
    );
}

fn assert_equal(found: &Tensor, expected: &Tensor, what: &str) {
    let bits = |tensor: &Tensor| -> Vec<u32> {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    assert_eq!(found.dims(), expected.dims(), "{what}");
    assert!(bits(found) == bits(expected), "{what} is not equal to the bit");
}

fn input(shape: [usize; 4]) -> Tensor {
    Tensor::from_vec(random::values(shape.iter().product()), &shape, &Device::Cpu).unwrap()
}

/// Bandings, from single rows without whole images to whole images of some sizes.
fn bandings(row: usize) -> impl Iterator<Item = Banding> {
    let bands = [1, 3 * row, 10 * row].into_iter();
    bands.flat_map(move |band| [0, 60 * row, 300 * row, usize::MAX].map(|stored| Banding { band, stored }))
}

#[test]
fn banding_changes_no_bit() {
    for (channels, convolution, attention, [batch, height, width]) in [
        (vec![8, 12, 12], true, true, [2, 5, 3]),
        (vec![12, 8, 16], false, false, [1, 7, 9]),
        (vec![8, 24], false, true, [1, 13, 4]),
        (vec![16, 16, 16, 16], true, false, [2, 3, 5]),
    ] {
        let config = Config {
            block_out_channels: channels,
            norm_num_groups: 4,
            use_quant_conv: convolution,
            use_post_quant_conv: convolution,
            mid_block_add_attention: attention,
            ..Config::default()
        };
        let weights = random::autoencoder(&config, WeightType::F32);
        let decoder = || Decoder::new(weights.clone(), &config).unwrap();
        let encoder = || Encoder::new(weights.clone(), &config).unwrap();
        let latents = input([batch, config.latent_channels, height, width]);
        let factor = config.downsampling();
        let image = input([batch, 3, factor * height, factor * width]);
        let decoded = decoder().with_banding(Banding::WHOLE).decode(&latents).unwrap();
        let encoded = encoder().with_banding(Banding::WHOLE).encode(&image).unwrap();
        assert_equal(&decoder().decode(&latents).unwrap(), &decoded, "by its size");
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let by_threads = threads.install(|| decoder().decode(&latents).unwrap());
        assert_equal(&by_threads, &decoded, "by three threads");
        for banding in bandings(batch * 8 * factor * width) {
            let what = format!("{:?} by {banding:?}", config.block_out_channels);
            let by_bands = decoder().with_banding(banding).decode(&latents).unwrap();
            assert_equal(&by_bands, &decoded, &what);
            let by_bands = encoder().with_banding(banding).encode(&image).unwrap();
            assert_equal(&by_bands.mean, &encoded.mean, &what);
            assert_equal(&by_bands.log_variance, &encoded.log_variance, &what);
        }
    }
}
