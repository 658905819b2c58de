//! The tensor operations that networks are written in.
