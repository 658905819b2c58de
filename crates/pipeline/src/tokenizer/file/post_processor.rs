//! Post-processors, which add special tokens around a text.

use std::collections::HashMap;

use serde::Deserialize;
use tokenizers::Tokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::{Template, TemplateProcessing};

use super::{Refusal, yes};

#[derive(Deserialize)]
#[serde(tag = "type")]
#[expect(clippy::enum_variant_names, reason = "the names are those of the file")]
pub(super) enum PostProcessor {
    RobertaProcessing {
        sep: (String, u32),
        cls: (String, u32),
        #[serde(default = "yes")]
        trim_offsets: bool,
        #[serde(default = "yes")]
        add_prefix_space: bool,
    },
    BertProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
    TemplateProcessing {
        single: Vec<Piece>,
        special_tokens: HashMap<String, SpecialToken>,
    },
}

#[derive(Deserialize)]
pub(super) enum Piece {
    Sequence { id: String },
    SpecialToken { id: String },
}

#[derive(Deserialize)]
pub(super) struct SpecialToken {
    ids: Vec<u32>,
    tokens: Vec<String>,
}

impl PostProcessor {
    /// Sets the special tokens that `tokenizer` adds around a text. They must be in its vocabulary.
    pub(super) fn add_to(self, tokenizer: &mut Tokenizer) -> Result<(), Refusal> {
        let known = |(token, id): (String, u32)| match tokenizer.token_to_id(&token) {
            Some(found) if found == id => Ok((token, id)),
            _ => Err(format!(
                "its post_processor has a token `{token}` of id {id}, its vocabulary has not"
            )),
        };
        match self {
            Self::RobertaProcessing {
                sep,
                cls,
                trim_offsets,
                add_prefix_space,
            } => {
                let around = RobertaProcessing::new(known(sep)?, known(cls)?);
                let around = around
                    .trim_offsets(trim_offsets)
                    .add_prefix_space(add_prefix_space);
                tokenizer.with_post_processor(Some(around));
            }
            Self::BertProcessing { sep, cls } => {
                let around = BertProcessing::new(known(sep)?, known(cls)?);
                tokenizer.with_post_processor(Some(around));
            }
            Self::TemplateProcessing {
                single,
                mut special_tokens,
            } => {
                let mut template = Vec::with_capacity(single.len().min(3));
                let mut tokens = Vec::new();
                for piece in &single {
                    match piece {
                        Piece::Sequence { id } if id == "A" => template.push("$A".to_owned()),
                        Piece::Sequence { id } => return Err(format!("its template has a text `{id}`")),
                        Piece::SpecialToken { id } => {
                            let token = special_tokens.remove(id).and_then(SpecialToken::only);
                            let token = token.ok_or_else(|| {
                                format!("its template has a token `{id}`, which is not one token of its special_tokens")
                            })?;
                            let (token, id) = known(token)?;
                            template.push(token.clone());
                            tokens.push((token, id));
                        }
                    }
                }
                let texts = template.iter().filter(|piece| *piece == "$A").count();
                // Every supported tokenizer adds at most one token before a text and one after it.
                let is_known =
                    texts == 1 && template.len() <= 3 && (template.len() < 3 || template[1] == "$A");
                let is_token = |piece: &String| piece == "$A" || !piece.starts_with('$');
                if !is_known || !template.iter().all(is_token) {
                    return Err(
                        "its template is not a text with a token before it and one after it".to_owned(),
                    );
                }
                let around = Template::try_from(template).and_then(|template| {
                    let mut builder = TemplateProcessing::builder();
                    let builder = builder.single(template).special_tokens(tokens);
                    builder.build().map_err(|error| error.to_string())
                })?;
                tokenizer.with_post_processor(Some(around));
            }
        }
        Ok(())
    }
}

impl SpecialToken {
    /// The token with its id, if there is exactly one.
    fn only(self) -> Option<(String, u32)> {
        match (<[String; 1]>::try_from(self.tokens), self.ids.as_slice()) {
            (Ok([token]), [id]) => Some((token, *id)),
            _ => None,
        }
    }
}
