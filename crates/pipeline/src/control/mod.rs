//! Pictures that steer what is drawn, made from other pictures.

mod canny;

pub(crate) use canny::bytes as canny_bytes;
pub use canny::canny;
