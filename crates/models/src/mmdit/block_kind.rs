//! The variants of a joint block: whether it has a second self-attention, and what it does with the text
//! stream.

/// What differs from block to block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockKind {
    /// Whether the image stream has a second self-attention (diffusers: `use_dual_attention`).
    pub(super) dual_attention: bool,
    /// What the block does with the text stream.
    pub(super) context: ContextStream,
}

/// What a block does with the text stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContextStream {
    /// The text tokens pass through the whole block, as the image tokens do.
    Full,
    /// The text tokens give keys and values to the image tokens and end here (diffusers: `context_pre_only`).
    KeysValuesOnly,
    /// The block reads no text. The image tokens attend to themselves alone.
    None,
}
