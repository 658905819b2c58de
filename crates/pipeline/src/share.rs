//! Shares the images of requests out among several devices, each with a process of its own.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use sd_memory::Bytes;
use serde::{Deserialize, Serialize};

use crate::request::{DeviceChoice, ModelChoice, Request};
use crate::resume::{Bundles, LaterRequest, RunName};
use crate::save::{ImageNames, ImagesPart};
use crate::seed::Seeds;
use crate::user_dirs::UserDirs;
use crate::{Result, clock, memory};

/// The images that one of several devices generates. It can be written down for another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Share {
    device: DeviceChoice,
    images: Range<usize>,
    host_memory: Bytes,
    requests: Vec<LaterRequest>,
}

impl Share {
    /// Shares the images of `requests` out among `devices`: each gets as many as any other, or one less, in the order of
    /// the requests. So a device encodes few prompts, and images that share a forward pass stay together. A device
    /// for which there is no image has no share. The images and their file names are those of one device.
    ///
    /// Each device has the budget of the requests. Where they name none, CPUs share the memory that there is, and so do GPUs
    /// that of the host.
    ///
    /// # Errors
    /// A model or an initial image cannot be opened, or a setting does not suit them.
    pub fn out(requests: &[&Request], devices: &[DeviceChoice]) -> Result<Vec<Self>> {
        let total: usize = requests.iter().map(|request| request.images).sum();
        let count = devices.len().min(total);
        let default = memory::allowance().budget();
        let now = clock::now();
        let runs = RunName::of_parts(&now, count * requests.len());
        let numbers = numbers(requests, &runs);
        let mut bundles = Bundles::default();
        let shares = devices.iter().take(count).enumerate().map(|(index, &device)| {
            let images = share(total, count, index);
            let host_memory = requests.first().and_then(|request| request.host_memory);
            let of_device = |budget: Bytes| Bytes(budget.0 / count as u64);
            let mut parts = Vec::new();
            for (part, request) in parts_of(requests, &images) {
                let (whole, run) = (requests[request], &runs[request * count + index]);
                let mut of_part = Request {
                    images: part.len(),
                    seeds: seeds(&whole.seeds, &part),
                    device,
                    memory: match device {
                        DeviceChoice::Cpu => whole.memory.or(Some(of_device(default))),
                        _ => whole.memory,
                    },
                    run_name: Some(run.clone()),
                    ..whole.clone()
                };
                of_part.file_names.part = Some(ImagesPart {
                    numbers: numbers[request][part].to_vec(),
                    of: whole.images,
                });
                parts.push(LaterRequest::of(&of_part, &mut bundles, device)?);
            }
            Ok(Self {
                device,
                images,
                host_memory: of_device(host_memory.unwrap_or(default)),
                requests: parts,
            })
        });
        shares.collect()
    }

    /// The device.
    pub fn device(&self) -> DeviceChoice {
        self.device
    }

    /// Its images among those of all requests, counted from 0.
    pub fn images(&self) -> Range<usize> {
        self.images.clone()
    }

    /// The requests for its images. `find` finds a model by the user's name and its folder, or `None` for the built-in
    /// model.
    ///
    /// # Errors
    /// That of `find`.
    pub fn requests<E>(
        &self,
        user_dirs: &UserDirs,
        mut find: impl FnMut(&str, Option<&Path>) -> std::result::Result<ModelChoice, E>,
    ) -> std::result::Result<Vec<Request>, E> {
        let requests = self.requests.iter().map(|request| {
            let models = request
                .models()
                .into_iter()
                .map(|(name, folder)| find(name, folder));
            let models = models.collect::<std::result::Result<Vec<_>, E>>()?;
            Ok(Request {
                host_memory: Some(self.host_memory),
                ..request.request(models, user_dirs)
            })
        });
        requests.collect()
    }
}

/// The images of share `index` of `count`, among `total`.
fn share(total: usize, count: usize, index: usize) -> Range<usize> {
    let start = |index: usize| total * index / count.max(1);
    start(index)..start(index + 1)
}

/// The parts of `images`, counted over all `requests`: which images of which request.
fn parts_of(requests: &[&Request], images: &Range<usize>) -> Vec<(Range<usize>, usize)> {
    let mut parts = Vec::new();
    let mut before = 0;
    for (index, request) in requests.iter().enumerate() {
        let first = images.start.max(before) - before;
        let end = images.end.min(before + request.images).saturating_sub(before);
        if first < end {
            parts.push((first..end, index));
        }
        before += request.images;
    }
    parts
}

/// The seeds of the images `part`.
fn seeds(seeds: &Seeds, part: &Range<usize>) -> Seeds {
    match seeds {
        Seeds::From(_) => Seeds::From(seeds.of(part.start)),
        Seeds::Each(_) => Seeds::Each(part.clone().map(|image| seeds.of(image)).collect()),
    }
}

/// The number of each image of each request, as one device would choose them one request after another. All `runs`
/// have the same names of files.
fn numbers(requests: &[&Request], runs: &[RunName]) -> Vec<Vec<usize>> {
    let Some(run) = runs.first() else {
        return Vec::new();
    };
    let mut taken = HashSet::new();
    let numbers = requests.iter().map(|request| {
        let names = ImageNames {
            names: request.file_names.clone(),
            run: run.clone(),
            seeds: request.seeds.clone(),
            model: request.model.name.clone(),
            images: request.images,
        };
        names.numbers_in(&request.output, &mut taken)
    });
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use sd_weights::ModelFiles;

    use super::*;
    use crate::request::Recommended;

    fn request(images: usize, seeds: Seeds) -> Request {
        let model = ModelChoice {
            name: "none".to_owned(),
            files: ModelFiles::at("none"),
            recommended: Recommended::default(),
        };
        Request {
            images,
            seeds,
            ..Request::new("a cat", model)
        }
    }

    #[test]
    fn every_image_is_in_one_share() {
        for (total, count) in [(1, 1), (2, 2), (7, 3), (8, 3), (16, 5), (1000, 7)] {
            let shares: Vec<Range<usize>> = (0..count).map(|index| share(total, count, index)).collect();
            assert!(shares.iter().flat_map(Clone::clone).eq(0..total), "{shares:?}");
            let (least, most) = (total / count, total.div_ceil(count));
            assert!(shares.iter().all(|share| (least..=most).contains(&share.len())));
        }
    }

    #[test]
    fn a_share_goes_over_several_requests() {
        let [one, two, three] = [3, 1, 4].map(|images| request(images, Seeds::From(42)));
        let requests = [&one, &two, &three];
        assert_eq!(parts_of(&requests, &(0..4)), [(0..3, 0), (0..1, 1)]);
        assert_eq!(parts_of(&requests, &(2..6)), [(2..3, 0), (0..1, 1), (0..2, 2)]);
        assert_eq!(parts_of(&requests, &(6..8)), [(2..4, 2)]);
    }

    #[test]
    fn numbers_are_those_of_one_run_after_another() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("002.png"), "").unwrap();
        std::fs::write(folder.path().join("005.json"), "").unwrap();
        let named = |images: usize| {
            let mut request = request(images, Seeds::From(42));
            request.output = folder.path().to_owned();
            request.file_names.template = Some("%03d".parse().unwrap());
            request
        };
        let (one, two) = (named(3), named(2));
        let runs = RunName::of_parts(&clock::now(), 2);
        assert_eq!(numbers(&[&one, &two], &runs), [vec![1, 3, 4], vec![6, 7]]);
    }

    #[test]
    fn the_images_of_a_part_keep_their_seeds() {
        for all in [Seeds::From(42), Seeds::Each(vec![7, 3, 9]), Seeds::Each(vec![5])] {
            let part = seeds(&all, &(2..5));
            for image in 0..3 {
                assert_eq!(part.of(image), all.of(image + 2), "{all:?}");
            }
        }
    }
}
