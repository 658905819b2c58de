//! Pictures that steer what is drawn, made from other pictures.

mod canny;

pub use canny::canny;
