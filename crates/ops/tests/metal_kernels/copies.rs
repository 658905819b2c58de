//! Copies of views, and images of twice the height and width.

use candle_core::{D, DType, Tensor};
use sd_ops::upsample_nearest;

use super::comparison::{TYPES, held, in_every_type, random, values};
use super::compiler::{self, Source};
use super::launch::Launch;

/// The dimensions that the kernel takes.
const RANK: usize = 6;
const THREADS: usize = 256;

/// A contiguous tensor that copies are written to, undefined where there are none yet.
struct Whole {
    values: Vec<f32>,
    dims: Vec<usize>,
    held_type: DType,
}

impl Whole {
    fn of(dims: &[usize], held_type: DType) -> Self {
        Self {
            values: vec![f32::NAN; dims.iter().product()],
            dims: dims.to_vec(),
            held_type,
        }
    }

    /// The values between neighbours in each dimension.
    fn strides(&self) -> Vec<usize> {
        let behind = (1..=self.dims.len()).map(|next| &self.dims[next..]);
        behind.map(|dims| dims.iter().product()).collect()
    }

    /// Writes `part` from the value number `first` on, with zeros behind its rows to make them of `width`.
    fn put(&mut self, part: &Tensor, first: usize, width: usize) {
        let own = part.dim(D::Minus1).unwrap();
        let count = part.elem_count() / own * width;
        // The last dimension first, and as many as the kernel has.
        let reversed = |of: &[usize], otherwise: u32| {
            let mut all = [otherwise; RANK];
            for (to, &from) in all.iter_mut().zip(of.iter().rev()) {
                *to = from as u32;
            }
            all
        };
        let mut sizes = reversed(part.dims(), 1);
        sizes[0] = width as u32;
        let (from, to) = (reversed(part.stride(), 0), reversed(&self.strides(), 0));
        let written = Launch::of(Source::Copy, "copy", self.held_type)
            .input(0, part)
            .in_place(1, &self.values[first..])
            .parameters(
                2,
                &[&[count as u32], &sizes[..], &from, &to, &[own as u32]].concat(),
            )
            .run([count.div_ceil(THREADS), 1, 1], [THREADS, 1, 1]);
        self.values[first..].copy_from_slice(&written);
    }

    fn assert_is(&self, expected: &Tensor) {
        assert_eq!(expected.dims(), self.dims);
        let expected = values(&held(expected, self.held_type));
        assert_eq!(self.values, expected, "{:?} in {:?}", self.dims, self.held_type);
    }
}

#[test]
fn views_become_contiguous() {
    if !compiler::is_there() {
        return;
    }
    let x = random(&[9, 40], 1);
    let of_six = random(&[2, 3, 2, 3, 2, 7], 1);
    let views = [
        random(&[37, 50], 1).t(),
        random(&[2, 37, 50], 1).transpose(1, 2),
        random(&[2, 5, 3, 33], 1).transpose(1, 2),
        random(&[2, 3, 4, 5, 6], 1).permute((4, 2, 0, 3, 1)),
        of_six.permute((5, 3, 1, 4, 2, 0)),
        x.narrow(1, 7, 1),
        x.narrow(0, 2, 5).and_then(|x| x.narrow(1, 7, 33)),
        x.narrow(0, 3, 1).and_then(|x| x.broadcast_as((5, 40))),
        x.flatten_all().and_then(|x| x.narrow(0, 8, 1)),
    ];
    for view in views.map(Result::unwrap) {
        for held_type in TYPES {
            let mut whole = Whole::of(view.dims(), held_type);
            whole.put(&view, 0, view.dim(D::Minus1).unwrap());
            whole.assert_is(&view);
        }
    }
}

#[test]
fn rows_are_padded_by_zeros() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, [own, width]) in in_every_type(&[[40, 64], [1, 7], [33, 33]]) {
        // Heads, as attention takes them.
        let view = random(&[2, 5, 3, own], 1).transpose(1, 2).unwrap();
        let expected = view.pad_with_zeros(3, 0, width - own).unwrap();
        let mut whole = Whole::of(expected.dims(), held_type);
        whole.put(&view, 0, width);
        whole.assert_is(&expected);
    }
}

#[test]
fn views_are_concatenated() {
    if !compiler::is_there() {
        return;
    }
    for (held_type, dimension) in in_every_type(&[0, 1, 2]) {
        let parts = [5, 1, 7].map(|size| {
            let mut shape = [33, 3, 2];
            shape[2 - dimension] = size;
            random(&shape, size as u64).permute((2, 1, 0)).unwrap()
        });
        let expected = Tensor::cat(&parts, dimension).unwrap();
        let mut whole = Whole::of(expected.dims(), held_type);
        let mut before = 0;
        for part in &parts {
            let first = before * whole.strides()[dimension];
            whole.put(part, first, part.dim(D::Minus1).unwrap());
            before += part.dim(dimension).unwrap();
        }
        whole.assert_is(&expected);
    }
}

#[test]
fn pixels_become_four() {
    if !compiler::is_there() {
        return;
    }
    const COLUMNS: usize = 64;
    for (held_type, [height, width]) in in_every_type(&[[1, 1], [17, 23], [3, 33]]) {
        let x = held(&random(&[2, 5, height, width], 1), held_type);
        let groups = [(2 * width).div_ceil(COLUMNS), 2 * 5 * 2 * height, 1];
        let found = Launch::of(Source::Copy, "upsample_nearest", held_type)
            .input(0, &x)
            .output(1, 4 * x.elem_count())
            .parameters(2, &[height as u32, width as u32])
            .run(groups, [COLUMNS, 1, 1]);
        let expected = values(&upsample_nearest(&x).unwrap());
        assert_eq!(found, expected, "{height} x {width} in {held_type:?}");
    }
}
