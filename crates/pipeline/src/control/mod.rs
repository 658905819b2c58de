//! Control images for ControlNets, made from the images that the user names.

mod canny;

pub(crate) use canny::bytes as canny_bytes;
pub use canny::canny;
