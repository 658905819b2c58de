//! Rows of quantised tensors as products take them: each row with its scales.

use sd_ops::Quantization;

use super::{Form, FourBits, MicroFloat, Microscaled, PIECE, Quantized, Scaled};
use crate::source::Source;
use crate::{ElementType, Result};

/// The values of a block of [`Quantization::FourBits`].
const FOUR_BITS_BLOCK: usize = 64;

impl Quantized {
    /// The form in which rows of `columns` values are held, each of which begins at a multiple of `columns`.
    /// `None` if they have no such form: blocks that go on from row to row, scales that change inside of a row,
    /// values that were rotated.
    pub(crate) fn held_form(&self, columns: usize) -> Option<Quantization> {
        let form = match &self.form {
            Form::Rows(form) => *form,
            Form::Scaled(Scaled {
                shared_by,
                factor,
                rotated: None,
                ..
            }) if columns > 0 && shared_by.is_multiple_of(columns) => match (self.element_type, factor) {
                (ElementType::F8E4M3, None) => Quantization::ScaledE4M3,
                (ElementType::F8E5M2, None) => Quantization::ScaledE5M2,
                (ElementType::ScaledI8, _) => Quantization::ScaledInt8,
                _ => return None,
            },
            Form::FourBits(form) if form.block.is_multiple_of(FOUR_BITS_BLOCK) => Quantization::FourBits,
            Form::Microscaled(form) if form.columns == columns => match (form.numbers, &form.whole) {
                (MicroFloat::Mxfp8, None) => Quantization::Mxfp8,
                (MicroFloat::Nvfp4 { .. }, _) => Quantization::Nvfp4,
                (MicroFloat::Mxfp8, Some(_)) => return None,
            },
            _ => return None,
        };
        form.row_bytes(columns).map(|_| form)
    }

    /// Fills `to` with rows of `columns` values from `row` on, in their [`held_form`](Self::held_form).
    pub(crate) fn read_held(&self, source: &Source, columns: usize, row: usize, to: &mut [u8]) -> Result<()> {
        let Some((form, row_bytes)) = self
            .held_form(columns)
            .and_then(|form| Some((form, form.row_bytes(columns)?)))
        else {
            return Ok(());
        };
        if let Form::Rows(_) = self.form {
            let (offset, length) = self.bytes_of(row * columns, to.len() / row_bytes.max(1) * columns);
            let length = (length as usize).min(to.len());
            return source.read_at(offset, &mut to[..length]);
        }
        let at_a_time = (PIECE / columns.max(1)).max(1);
        for (index, to) in to.chunks_mut(at_a_time * row_bytes.max(1)).enumerate() {
            let first = row + index * at_a_time;
            let rows = Rows {
                form,
                columns,
                first,
                count: to.len() / row_bytes,
            };
            // The bytes of the file are read to the end, from where they move to their places.
            let (offset, length) = self.bytes_of(first * columns, rows.count * columns);
            let start = to.len() - length as usize;
            source.read_at(offset, &mut to[start..])?;
            match &self.form {
                Form::Rows(_) => {}
                Form::Scaled(scaled) => rows.lay_scaled(scaled, to)?,
                Form::FourBits(four_bits) => rows.lay_four_bits(four_bits, self.element_type, to)?,
                Form::Microscaled(microscaled) => rows.lay_microscaled(microscaled, to)?,
            }
        }
        Ok(())
    }
}

/// Some rows.
struct Rows {
    form: Quantization,
    columns: usize,
    first: usize,
    count: usize,
}

impl Rows {
    /// Moves the bytes of the file, which are at the end of `to`, to their places. `header` fills the header of a
    /// row, and `scale` the scale of a block, of which it gets the row and the index in the row. Rows are counted
    /// from the first of these.
    ///
    /// What is moved is always behind where it belongs, and before what is moved later.
    fn lay(&self, to: &mut [u8], header: impl Fn(usize, &mut [u8]), scale: impl Fn(usize, usize, &mut [u8])) {
        let (values, block_bytes) = (self.form.block_values(), self.form.block_bytes());
        let header_bytes = self.form.header_bytes();
        // Where blocks have no scale, the row moves as one.
        let (blocks, whole, stored) = match values {
            1 => (1, self.columns, self.columns),
            _ => {
                let stored = match self.form {
                    Quantization::Mxfp8 => values,
                    _ => values / 2,
                };
                (self.columns / values, block_bytes, stored)
            }
        };
        let mut from = to.len() - self.count * blocks * stored;
        let mut place = 0;
        for row in 0..self.count {
            header(row, &mut to[place..place + header_bytes]);
            place += header_bytes;
            for block in 0..blocks {
                let numbers = place + whole - stored;
                scale(row, block, &mut to[place..numbers]);
                to.copy_within(from..from + stored, numbers);
                place += whole;
                from += stored;
            }
        }
    }

    fn lay_scaled(&self, scaled: &Scaled, to: &mut [u8]) -> Result<()> {
        let scale = |row: usize| row * self.columns / scaled.shared_by;
        let first = scale(self.first);
        let last = scale(self.first + self.count.saturating_sub(1));
        let scales = scaled.scales.floats(first, last + 1 - first)?;
        let factor = scaled.factor.unwrap_or(1.0).to_le_bytes();
        let header = |row: usize, to: &mut [u8]| {
            let found = scales.get(scale(self.first + row) - first);
            let (own, rest) = to.split_at_mut(4);
            own.copy_from_slice(&found.copied().unwrap_or(0.0).to_le_bytes());
            rest.copy_from_slice(&factor[..rest.len()]);
        };
        self.lay(to, header, |_, _, _| {});
        Ok(())
    }

    fn lay_four_bits(&self, form: &FourBits, element_type: ElementType, to: &mut [u8]) -> Result<()> {
        let levels = form.levels(element_type)?.map(f32::to_le_bytes);
        let first = self.first * self.columns / form.block;
        let end = ((self.first + self.count) * self.columns).div_ceil(form.block);
        let magnitudes = form.magnitudes.read(first, end - first)?;
        let scale = |row: usize, block: usize, to: &mut [u8]| {
            let value = (self.first + row) * self.columns + block * FOUR_BITS_BLOCK;
            let magnitude = magnitudes.get(value / form.block - first);
            to.copy_from_slice(&magnitude.copied().unwrap_or(0.0).to_le_bytes());
        };
        self.lay(to, |_, to| to.copy_from_slice(levels.as_flattened()), scale);
        Ok(())
    }

    fn lay_microscaled(&self, form: &Microscaled, to: &mut [u8]) -> Result<()> {
        let columns = self.columns / form.numbers.group();
        let together = form.order.rows();
        let first = form.order.place(self.first / together * together, 0, columns);
        let end = (self.first + self.count).next_multiple_of(together);
        let count = form.order.place(end, 0, columns) - first;
        let scales = form.scales.bytes(first, count)?;
        let whole = match &form.whole {
            Some(whole) => whole.float()?,
            None => 1.0,
        };
        let swapped = form.numbers == MicroFloat::Nvfp4 { high_first: true };
        let header = |_: usize, to: &mut [u8]| to.copy_from_slice(&whole.to_le_bytes()[..to.len()]);
        let scale = |row: usize, block: usize, to: &mut [u8]| {
            let place = form.order.place(self.first + row, block, columns);
            to.fill(scales.get(place - first).copied().unwrap_or(0));
        };
        if swapped {
            let start = to.len() - self.count * self.columns / 2;
            to[start..]
                .iter_mut()
                .for_each(|byte| *byte = byte.rotate_left(4));
        }
        self.lay(to, header, scale);
        Ok(())
    }
}
