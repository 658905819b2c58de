//! The saved images of a run with their file numbers.

use serde::{Deserialize, Serialize};

/// Consecutive images with consecutive file numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stretch {
    image: usize,
    number: usize,
    count: usize,
}

impl Stretch {
    /// One past the last image.
    fn end(&self) -> usize {
        self.image + self.count
    }

    /// Whether `next` continues this stretch.
    fn leads_to(&self, next: &Self) -> bool {
        self.end() == next.image && self.number + self.count == next.number
    }
}

/// The saved images of a run. As long as no file number is taken by another file it is a single stretch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct SavedImages(Vec<Stretch>);

impl SavedImages {
    /// Adds `image`, which is saved under `number`.
    pub(super) fn insert(&mut self, image: usize, number: usize) {
        if self.contains(image) {
            return;
        }
        let count = 1;
        let new = Stretch { image, number, count };
        let at = self.0.partition_point(|stretch| stretch.image < image);
        self.0.insert(at, new);
        if self.0.get(at + 1).is_some_and(|next| self.0[at].leads_to(next)) {
            self.0[at].count += self.0.remove(at + 1).count;
        }
        if at > 0 && self.0[at - 1].leads_to(&self.0[at]) {
            self.0[at - 1].count += self.0.remove(at).count;
        }
    }

    /// Whether `image` is saved.
    pub(super) fn contains(&self, image: usize) -> bool {
        let after = self.0.partition_point(|stretch| stretch.image <= image);
        after > 0 && image < self.0[after - 1].end()
    }

    /// The number of saved images.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|stretch| stretch.count).sum()
    }

    /// The saved images with their file numbers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let of = |stretch: &Stretch| {
            let Stretch { image, number, count } = *stretch;
            (0..count).map(move |offset| (image + offset, number + offset))
        };
        self.0.iter().flat_map(of)
    }

    /// The unsaved images from `from` on, of a run of `images`.
    pub(super) fn missing(&self, from: usize, images: usize) -> impl Iterator<Item = usize> + '_ {
        (from..images).filter(|&image| !self.contains(image))
    }

    /// The first unsaved image.
    pub(super) fn first_missing(&self) -> usize {
        match self.0.first() {
            Some(stretch) if stretch.image == 0 => stretch.end(),
            _ => 0,
        }
    }

    /// Whether these can be the saved images of a run of `images`.
    pub(super) fn are_of(&self, images: usize) -> bool {
        let mut end = 0;
        self.0.iter().all(|stretch| {
            let after = stretch.image.checked_add(stretch.count);
            let last_number = stretch.number.checked_add(stretch.count);
            let is_sound = stretch.count > 0
                && stretch.number > 0
                && stretch.image >= end
                && last_number.is_some()
                && after.is_some_and(|after| after <= images);
            end = after.unwrap_or(usize::MAX);
            is_sound
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_follow_one_another_are_one_stretch() {
        let mut saved = SavedImages::default();
        for image in [0, 1, 2, 5, 4, 3, 3] {
            saved.insert(image, image + 1);
        }
        assert_eq!(saved.0.len(), 1);
        assert_eq!((saved.count(), saved.first_missing()), (6, 6));
        // A number is taken by another file.
        saved.insert(6, 9);
        saved.insert(8, 11);
        assert_eq!(saved.0.len(), 3);
        assert!(saved.contains(8) && !saved.contains(7) && !saved.contains(9));
        assert_eq!(saved.missing(3, 11).collect::<Vec<_>>(), [7, 9, 10]);
        let last: Vec<(usize, usize)> = saved.iter().skip(5).collect();
        assert_eq!(last, [(5, 6), (6, 9), (8, 11)]);
        assert!(saved.are_of(9) && !saved.are_of(8));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            r#"[{"image":0,"number":1,"count":0}]"#,
            r#"[{"image":0,"number":0,"count":1}]"#,
            r#"[{"image":18446744073709551615,"number":1,"count":1}]"#,
            r#"[{"image":0,"number":18446744073709551615,"count":1}]"#,
            r#"[{"image":0,"number":1,"count":2},{"image":1,"number":3,"count":1}]"#,
            r#"[{"image":2,"number":1,"count":1},{"image":0,"number":3,"count":1}]"#,
        ] {
            let saved: SavedImages = serde_json::from_str(text).unwrap();
            assert!(!saved.are_of(4), "{text}");
        }
    }
}
