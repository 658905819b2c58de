//! The output buffer of tasks that run in parallel.

/// An output buffer of rows, of which each task writes its own part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    values: *mut f32,
    length: usize,
    /// Values from one row to the next.
    pub(crate) row_step: usize,
}

// SAFETY: what lies behind a Target is only ever written through the pointer that `block` gives, which is
// unsafe: whoever does so vouches that no two threads share an element.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// A target of `length` uninitialised values in rows of `row_step`, in the spare capacity of `values`.
    pub(crate) fn uninitialized(values: &mut Vec<f32>, length: usize, row_step: usize) -> Self {
        assert!(
            values.capacity() >= length,
            "the target is too small. This is a bug."
        );
        Self {
            values: values.as_mut_ptr(),
            length,
            row_step,
        }
    }

    /// A target of the values of `buffer`, which no one else uses as long as the target is written.
    pub(crate) fn of(buffer: &mut [f32]) -> Self {
        Self {
            values: buffer.as_mut_ptr(),
            length: buffer.len(),
            row_step: 0,
        }
    }

    /// The target from `offset` values on.
    pub(crate) fn at(self, offset: usize) -> Self {
        assert!(
            offset <= self.length,
            "a block begins outside of its target. This is a bug."
        );
        // SAFETY: the offset lies inside of the values that the target was made of, or at their end.
        Self {
            values: unsafe { self.values.add(offset) },
            length: self.length - offset,
            ..self
        }
    }

    /// The pointer to a block of `rows` rows of `columns` values.
    pub(crate) fn block(self, rows: usize, columns: usize) -> *mut f32 {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * self.row_step + columns <= self.length,
            "a block lies outside of its target. This is a bug."
        );
        self.values
    }
}
