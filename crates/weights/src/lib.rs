//! Files of named tensors, and where the blocks of a network live.
