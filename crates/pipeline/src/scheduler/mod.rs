//! Schedulers: which noise levels a picture passes through, and how a prediction of the network moves it from
//! one to the next.

mod flow_match_euler;

pub use flow_match_euler::{FlowMatchEuler, FlowMatchEulerConfig};
