//! Bytes: what memory there is, what a run uses and when.
