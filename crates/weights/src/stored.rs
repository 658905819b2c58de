//! One tensor of a file, read in any data type, in parts or by rows, with LoRA updates added.

use std::sync::Arc;

use bytemuck::Zeroable;
use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use sd_ops::Quantization;

use crate::naming::Layout;
use crate::quantized::{self, Form, Quantized};
use crate::source::Source;
use crate::weight_update::WeightUpdate;
use crate::{ElementType, Error, Result, TensorHeader};

/// The number of values that are converted at a time, where the type of the file is not the held type.
const CONVERTED_AT_A_TIME: usize = 1 << 20;

/// The number of values of `element_bytes` each that are converted at a time.
const fn converted_at_a_time(element_bytes: usize) -> usize {
    match element_bytes {
        8 => CONVERTED_AT_A_TIME / 2,
        _ => CONVERTED_AT_A_TIME,
    }
}

/// The scratch bytes of reading `count` elements as 32-bit floats.
pub(crate) fn converting_takes(count: usize, element_type: ElementType) -> usize {
    match element_type {
        ElementType::F32 => 0,
        ElementType::F16 | ElementType::Bf16 => count.min(converted_at_a_time(2)) * 2,
        ElementType::F64 => count.min(converted_at_a_time(8)) * 8,
        _ => quantized::decoding_takes(count, element_type),
    }
}

/// The type in which elements are held by default: the type of the file, 32-bit floats for 64-bit floats, and
/// `bfloat16` for quantised elements. `None` for types that are not weights.
pub(crate) fn default_type(element_type: ElementType) -> Option<DType> {
    match element_type {
        ElementType::F32 | ElementType::F64 => Some(DType::F32),
        ElementType::F16 => Some(DType::F16),
        ElementType::Bf16 => Some(DType::BF16),
        _ => quantized::is_quantized(element_type).then_some(DType::BF16),
    }
}

/// A tensor of a file: its header and the file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The header, with the shape of the tensor. In the file the values may lie in another `order`.
    pub(crate) header: TensorHeader,
    pub(crate) source: Arc<Source>,
    /// The name in the file, where the tensor was renamed.
    pub(crate) saved_as: Option<String>,
    /// The order of the values in the file.
    pub(crate) order: Order,
    /// How the values are decoded, where they are no numbers of their own.
    pub(crate) quantized: Option<QuantizedRange>,
}

/// A range of the values of a quantised tensor.
#[derive(Debug, Clone)]
pub(crate) struct QuantizedRange {
    pub(crate) of: Arc<Quantized>,
    /// The index of the first value of the range.
    pub(crate) first: usize,
}

/// The rows of a quantised matrix as products take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldRows {
    pub(crate) quantization: Quantization,
    /// The number of rows.
    pub(crate) rows: usize,
    /// The bytes of a row.
    pub(crate) row_bytes: usize,
}

impl HeldRows {
    /// The bytes of all rows.
    pub(crate) fn bytes(self) -> usize {
        self.rows * self.row_bytes
    }
}

/// The bytes of the longest row that is held quantised. A row is read at once, and devices of their own memory have
/// staging buffers of this size.
pub(crate) const LONGEST_ROW: usize = 16 << 20;

/// The order in which a file stores the values of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Order {
    /// Row after row.
    #[default]
    Rows,
    /// The second half of the rows before the first.
    HalvesSwapped,
    /// Column after column of a matrix.
    Columns,
    /// Nowhere: the tensor is the identity matrix.
    Identity,
}

/// The elements of a tensor from index `first` on, with the update that is added to them.
pub(crate) struct Part<'a> {
    stored: &'a Stored,
    first: usize,
    update: Option<&'a WeightUpdate>,
}

impl Part<'_> {
    /// Fills `values` with elements. `narrow` rounds them once to the held type, where that is not the stored
    /// type.
    pub(crate) fn fill<T: bytemuck::Pod + WithDType>(
        &self,
        values: &mut [T],
        narrow: impl Fn(f32) -> T + Sync,
    ) -> Result<()> {
        let stored = self.stored;
        match self.update {
            None => stored.fill(values, self.first, narrow),
            Some(update) => update.fill(values, self.first, narrow, |wide, first| {
                stored.fill(wide, first, |value: f32| value)
            }),
        }
    }
}

impl Stored {
    /// The tensor of `header` in `source`, under its own name.
    pub(crate) fn new(header: TensorHeader, source: Arc<Source>) -> Self {
        let quantized = Quantized::plain(&header).map(|of| QuantizedRange {
            of: Arc::new(of),
            first: 0,
        });
        Self {
            header,
            source,
            saved_as: None,
            order: Order::default(),
            quantized,
        }
    }

    /// The tensor of `header` in `source`, whose values are computed as `form` says.
    pub(crate) fn quantized(header: TensorHeader, source: Arc<Source>, form: Form) -> Self {
        let of = Arc::new(Quantized::new(&header, form));
        Self {
            quantized: Some(QuantizedRange { of, first: 0 }),
            ..Self::new(header, source)
        }
    }

    /// The bytes of the tensor in its file, with the scales that belong to it.
    pub(crate) fn bytes(&self) -> u64 {
        let sidecars = self.quantized.iter().flat_map(|range| range.of.sidecars());
        self.header.bytes + sidecars.map(|sidecar| sidecar.header.bytes).sum::<u64>()
    }

    /// The files that the values are read from.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Source> {
        let sidecars = self.quantized.iter().flat_map(|range| range.of.sidecars());
        std::iter::once(&*self.source).chain(sidecars.map(|sidecar| &*sidecar.source))
    }

    /// The form in which products take the rows of this tensor, a matrix, without widening its values. `None` if
    /// it has no such form.
    pub(crate) fn held_rows(&self) -> Option<HeldRows> {
        let (&[rows, columns], Some(range)) = (self.header.shape.as_slice(), &self.quantized) else {
            return None;
        };
        let in_rows = match self.order {
            Order::Rows => true,
            Order::HalvesSwapped => rows.is_multiple_of(2),
            Order::Columns | Order::Identity => false,
        };
        if !in_rows || columns == 0 || !range.first.is_multiple_of(columns) {
            return None;
        }
        let quantization = range.of.held_form(columns)?;
        let row_bytes = quantization.row_bytes(columns)?;
        (row_bytes <= LONGEST_ROW).then_some(HeldRows {
            quantization,
            rows,
            row_bytes,
        })
    }

    /// Fills `bytes` with rows from `row` on in the form of [`Stored::held_rows`].
    pub(crate) fn fill_rows(&self, row: usize, bytes: &mut [u8]) -> Result<()> {
        let (Some(held), Some(range)) = (self.held_rows(), &self.quantized) else {
            return Ok(());
        };
        let columns = self.header.shape.last().map_or(1, |&columns| columns.max(1));
        let first = range.first / columns;
        let read = |row: usize, to: &mut [u8]| range.of.read_held(&self.source, columns, first + row, to);
        if self.order != Order::HalvesSwapped {
            return read(row, bytes);
        }
        let half = held.rows / 2;
        let upper = half.saturating_sub(row) * held.row_bytes;
        let (upper, lower) = bytes.split_at_mut(upper.min(bytes.len()));
        if !upper.is_empty() {
            read(row + half, upper)?;
        }
        read(row.max(half) - half, lower)
    }

    /// The tensor of which this one is the form that another program lays out as `layout`. `None` where this
    /// shape has no such form.
    pub(crate) fn laid_out(&self, layout: Layout) -> Option<Self> {
        let (&rows, inner) = self.header.shape.split_first()?;
        match (layout, self.order) {
            (Layout::Same, _) => Some(self.clone()),
            (Layout::Part { index, of }, Order::Rows) => {
                let part = rows / of;
                (rows.is_multiple_of(of) && index < of).then(|| self.rows_of(index * part, part))
            }
            (Layout::HalvesSwapped, Order::Rows | Order::HalvesSwapped) => {
                rows.is_multiple_of(2).then(|| Self {
                    order: match self.order {
                        Order::Rows => Order::HalvesSwapped,
                        _ => Order::Rows,
                    },
                    ..self.clone()
                })
            }
            (Layout::Transposed, Order::Rows | Order::Columns | Order::Identity) => {
                let &[columns] = inner else { return None };
                let mut transposed = self.clone();
                transposed.header.shape = vec![columns, rows];
                transposed.order = match self.order {
                    Order::Rows => Order::Columns,
                    Order::Columns => Order::Rows,
                    other => other,
                };
                Some(transposed)
            }
            _ => None,
        }
    }

    /// The identity matrix of as many rows as this tensor has columns, in its data type.
    pub(crate) fn identity(&self) -> Self {
        let mut identity = self.clone();
        let header = &mut identity.header;
        let side = header.shape.last().copied().unwrap_or(0);
        header.shape = vec![side, side];
        header.bytes = 0;
        identity.order = Order::Identity;
        identity
    }

    /// `count` rows, of the outermost dimension, from `first` on.
    fn rows_of(&self, first: usize, count: usize) -> Self {
        let mut part = self.clone();
        let header = &mut part.header;
        if let Some(range) = &mut part.quantized {
            let row: usize = header.shape.iter().skip(1).product();
            range.first += first * row;
            (header.offset, header.bytes) = range.of.bytes_of(range.first, count * row);
            if let Some(rows) = header.shape.first_mut() {
                *rows = count;
            }
            return part;
        }
        let row = header.bytes / header.shape.first().map_or(1, |&rows| rows.max(1) as u64);
        header.offset += first as u64 * row;
        header.bytes = count as u64 * row;
        if let Some(rows) = header.shape.first_mut() {
            *rows = count;
        }
        part
    }

    pub(crate) fn part<'a>(&'a self, first: usize, update: Option<&'a WeightUpdate>) -> Part<'a> {
        Part {
            stored: self,
            first,
            update,
        }
    }

    pub(crate) fn first<const BYTES: usize>(&self, number: impl Fn([u8; BYTES]) -> f32) -> Result<f32> {
        let mut bytes = [0; BYTES];
        self.source.read_at(self.header.offset, &mut bytes)?;
        Ok(number(bytes))
    }

    /// Whether every element is finite as a 32-bit float. Integers are. The tensor is read a stretch at a
    /// time.
    pub(crate) fn is_finite(&self) -> Result<bool> {
        if let Some(range) = &self.quantized {
            let count: usize = self.header.shape.iter().product();
            let mut values = vec![0.0; count.min(CONVERTED_AT_A_TIME)];
            for first in (0..count).step_by(CONVERTED_AT_A_TIME) {
                let values = &mut values[..CONVERTED_AT_A_TIME.min(count - first)];
                let narrow = |value: f32| value;
                range.of.fill(&self.source, values, range.first + first, narrow)?;
                if !values.iter().all(|value| value.is_finite()) {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        match self.header.element_type {
            ElementType::F64 => self.all(|value: f64| (value as f32).is_finite()),
            ElementType::F32 => self.all(|value: f32| value.is_finite()),
            ElementType::F16 => self.all(|value: f16| value.is_finite()),
            ElementType::Bf16 => self.all(|value: bf16| value.is_finite()),
            _ => Ok(true),
        }
    }

    /// Whether `is` holds for every element.
    fn all<T: bytemuck::Pod>(&self, is: impl Fn(T) -> bool) -> Result<bool> {
        let count = self.header.bytes as usize / size_of::<T>();
        let at_a_time = converted_at_a_time(size_of::<T>());
        let mut elements = vec![T::zeroed(); count.min(at_a_time)];
        for first in (0..count).step_by(at_a_time) {
            let elements = &mut elements[..at_a_time.min(count - first)];
            let offset = self.header.offset + (first * size_of::<T>()) as u64;
            self.source.read_at(offset, bytemuck::cast_slice_mut(elements))?;
            if !elements.iter().all(|&element| is(element)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The type in which the elements, which must be floats or quantised, are held by default.
    pub(crate) fn default_type(&self, name: &str) -> Result<DType> {
        let element_type = self.header.element_type;
        default_type(element_type).ok_or_else(|| self.unsupported(name, element_type))
    }

    /// Reads the elements from `first` on into `values`. `narrow` rounds them to the held type, where that is
    /// not the stored type.
    pub(crate) fn fill<T: bytemuck::Pod + WithDType>(
        &self,
        values: &mut [T],
        first: usize,
        narrow: impl Fn(f32) -> T + Sync,
    ) -> Result<()> {
        match self.order {
            Order::Rows => self.fill_in_order(values, first, &narrow),
            Order::HalvesSwapped => {
                let count: usize = self.header.shape.iter().product();
                let (half, mut first, mut rest) = (count / 2, first, values);
                while !rest.is_empty() {
                    let (place, until_boundary) = match first.checked_sub(half) {
                        None => (first + half, half - first),
                        Some(place) => (place, count - first),
                    };
                    let (run, later) = rest.split_at_mut(rest.len().min(until_boundary));
                    self.fill_in_order(run, place, &narrow)?;
                    first += run.len();
                    rest = later;
                }
                Ok(())
            }
            Order::Columns => self.fill_from_columns(values, first, &narrow),
            Order::Identity => {
                let columns = self.header.shape.last().map_or(1, |&columns| columns.max(1));
                for (place, value) in (first..).zip(values) {
                    let is_one = place / columns == place % columns;
                    *value = if is_one { T::from_f64(1.0) } else { T::zeroed() };
                }
                Ok(())
            }
        }
    }

    /// As [`Stored::fill`], for a matrix that is stored column after column.
    fn fill_from_columns<T: bytemuck::Pod + WithDType>(
        &self,
        values: &mut [T],
        first: usize,
        narrow: impl Fn(f32) -> T + Sync,
    ) -> Result<()> {
        let &[rows, columns] = self.header.shape.as_slice() else {
            return Ok(());
        };
        let end = first + values.len();
        let (first_row, rows_end) = (first / columns.max(1), end.div_ceil(columns.max(1)));
        let mut stored = vec![T::zeroed(); rows_end - first_row];
        for column in 0..columns {
            self.fill_in_order(&mut stored, column * rows + first_row, &narrow)?;
            for (row, &value) in (first_row..).zip(&stored) {
                let place = row * columns + column;
                if (first..end).contains(&place) {
                    values[place - first] = value;
                }
            }
        }
        Ok(())
    }

    /// Reads the elements that the file stores from `first` on into `values`, directly where the types agree,
    /// else through `narrow`.
    fn fill_in_order<T: bytemuck::Pod + WithDType>(
        &self,
        values: &mut [T],
        first: usize,
        narrow: impl Fn(f32) -> T + Sync,
    ) -> Result<()> {
        if let Some(range) = &self.quantized {
            return range.of.fill(&self.source, values, range.first + first, narrow);
        }
        let (element_type, first) = (self.header.element_type, first as u64);
        let offset = |size: u64| self.header.offset + first * size;
        match (element_type, T::DTYPE) {
            (ElementType::F32, DType::F32) => self.read_into(values, offset(4)),
            (ElementType::F16, DType::F16) | (ElementType::Bf16, DType::BF16) => {
                self.read_into(values, offset(2))
            }
            (ElementType::F64, DType::F64) => self.read_into(values, offset(8)),
            (ElementType::F32, _) => self.convert::<f32, T>(values, offset(4), narrow),
            (ElementType::F16, _) => {
                self.convert::<f16, T>(values, offset(2), |value| narrow(value.to_f32()))
            }
            (ElementType::Bf16, _) => {
                self.convert::<bf16, T>(values, offset(2), |value| narrow(value.to_f32()))
            }
            (ElementType::F64, _) => self.convert::<f64, T>(values, offset(8), |value| narrow(value as f32)),
            (found, _) => Err(self.unsupported("", found)),
        }
    }

    /// Reads elements of the type of the file.
    fn read_into<T: bytemuck::Pod>(&self, values: &mut [T], offset: u64) -> Result<()> {
        self.source.read_at(offset, bytemuck::cast_slice_mut(values))
    }

    fn convert<S: bytemuck::Pod, T>(
        &self,
        values: &mut [T],
        mut offset: u64,
        convert: impl Fn(S) -> T,
    ) -> Result<()> {
        let at_a_time = converted_at_a_time(size_of::<S>());
        let mut read = vec![S::zeroed(); values.len().min(at_a_time)];
        for values in values.chunks_mut(at_a_time) {
            let read = &mut read[..values.len()];
            self.source.read_at(offset, bytemuck::cast_slice_mut(read))?;
            offset += size_of_val(read) as u64;
            for (value, &read) in values.iter_mut().zip(read.iter()) {
                *value = convert(read);
            }
        }
        Ok(())
    }

    pub(crate) fn rows<T: bytemuck::Pod + Zeroable + WithDType>(
        &self,
        name: &str,
        rows: &[usize],
        read: impl Fn(usize, &mut [T]) -> Result<()>,
    ) -> Result<Tensor> {
        let (&width, leading) = self.header.shape.split_last().unwrap_or((&1, &[]));
        let available: usize = leading.iter().product();
        let mut elements = vec![T::zeroed(); width * rows.len()];
        for (&row, target) in rows.iter().zip(elements.chunks_exact_mut(width.max(1))) {
            if row >= available {
                return Err(Error::RowOutOfRange {
                    file: self.source.path().to_owned(),
                    tensor: name.to_owned(),
                    row,
                    rows: available,
                });
            }
            read(row * width, target)?;
        }
        Ok(Tensor::from_vec(elements, (rows.len(), width), &Device::Cpu)?)
    }

    /// The name of the tensor `name` in the file.
    pub(crate) fn saved_as(&self, name: &str) -> String {
        self.saved_as.as_deref().unwrap_or(name).to_owned()
    }

    pub(crate) fn unsupported(&self, name: &str, found: ElementType) -> Error {
        Error::UnsupportedType {
            file: self.source.path().to_owned(),
            tensor: self.saved_as(name),
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tensor of the numbers 0, 1, 2 … in the order of the file.
    fn counting(shape: &[usize], folder: &tempfile::TempDir) -> Stored {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|value| value as f32).collect();
        let path = folder.path().join("values");
        std::fs::write(&path, bytemuck::cast_slice(&values)).unwrap();
        let header = TensorHeader {
            element_type: ElementType::F32,
            shape: shape.into(),
            offset: 0,
            bytes: 4 * count as u64,
        };
        Stored::new(header, Arc::new(Source::open(path).unwrap()))
    }

    /// The values from `first` on, as 16-bit and as 32-bit floats.
    fn values(stored: &Stored, first: usize, count: usize) -> Vec<f32> {
        let mut narrow = vec![f16::ZERO; count];
        stored.fill(&mut narrow, first, f16::from_f32).unwrap();
        let mut wide = vec![0.0; count];
        stored.fill(&mut wide, first, |value| value).unwrap();
        assert!(
            narrow
                .iter()
                .zip(&wide)
                .all(|(narrow, &wide)| narrow.to_f32() == wide)
        );
        wide
    }

    #[test]
    fn values_are_read_in_the_order_of_the_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let stored = counting(&[6, 2], &folder);
        let thirds = [0, 1, 2].map(|index| stored.laid_out(Layout::Part { index, of: 3 }).unwrap());
        assert_eq!(thirds[1].header.shape, [2, 2]);
        assert_eq!(values(&thirds[1], 0, 4), [4.0, 5.0, 6.0, 7.0]);
        assert_eq!(values(&thirds[2], 1, 2), [9.0, 10.0]);
        let swapped = stored.laid_out(Layout::HalvesSwapped).unwrap();
        assert_eq!(
            values(&swapped, 0, 12),
            [6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        );
        assert_eq!(values(&swapped, 5, 3), [11.0, 0.0, 1.0]);
        assert_eq!(values(&swapped, 7, 2), [1.0, 2.0]);
        let transposed = stored.laid_out(Layout::Transposed).unwrap();
        assert_eq!(transposed.header.shape, [2, 6]);
        assert_eq!(
            values(&transposed, 0, 12),
            [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 1.0, 3.0, 5.0, 7.0, 9.0, 11.0]
        );
        assert_eq!(values(&transposed, 4, 4), [8.0, 10.0, 1.0, 3.0]);
    }

    #[test]
    fn shapes_without_such_a_form_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let odd = counting(&[5, 2, 1], &folder);
        for layout in [
            Layout::Part { index: 0, of: 3 },
            Layout::HalvesSwapped,
            Layout::Transposed,
        ] {
            assert!(odd.laid_out(layout).is_none(), "{layout:?}");
        }
    }
}
