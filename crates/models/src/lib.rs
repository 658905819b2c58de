//! The networks of Stable Diffusion: text encoders, transformers, autoencoders.
