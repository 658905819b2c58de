//! LoRAs that a prompt names: `<lora:name:0.8>`.

/// A LoRA that a prompt asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraTag {
    /// Its name, as a file without its ending.
    pub name: String,
    /// How much of it the denoising network gets.
    pub scale: f64,
    /// How much of it the text encoders get.
    pub text_scale: f64,
}

/// A text without its LoRAs' tags.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Untagged {
    pub(super) text: String,
    pub(super) loras: Vec<LoraTag>,
    /// Tags that name a LoRA and cannot be read.
    pub(super) unread: Vec<String>,
}

/// Takes the tags `<lora:…>` and `<lyco:…>` out of `text`. Others are left in it.
pub(super) fn take_out(text: &str) -> Untagged {
    let mut result = Untagged::default();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        result.text.push_str(&rest[..start]);
        rest = &rest[start..];
        match arguments(rest) {
            Some((arguments, length)) => {
                match read(arguments) {
                    Some(tag) => result.loras.push(tag),
                    None => result.unread.push(rest[..length].to_owned()),
                }
                rest = &rest[length..];
            }
            None => {
                result.text.push('<');
                rest = &rest[1..];
            }
        }
    }
    result.text.push_str(rest);
    result
}

/// What a LoRA's tag at the beginning of `text` says after its kind, and how long the tag is.
fn arguments(text: &str) -> Option<(&str, usize)> {
    const OPENINGS: [&str; 2] = ["<lora:", "<lyco:"];
    let opening = OPENINGS.into_iter().find(|opening| {
        let begins = text.get(..opening.len());
        begins.is_some_and(|begins| begins.eq_ignore_ascii_case(opening))
    })?;
    // A tag does not hold another one.
    let end = opening.len() + text[opening.len()..].find(['<', '>'])?;
    text[end..]
        .starts_with('>')
        .then(|| (&text[opening.len()..end], end + 1))
}

/// The name, then one scale for both or the text encoders' and the network's, or `te=` and `unet=` in any
/// order.
fn read(arguments: &str) -> Option<LoraTag> {
    let mut parts = arguments.split(':').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let (mut scale, mut text_scale) = (None, None);
    for part in parts {
        let number = |text: &str| text.trim().parse().ok().filter(|scale: &f64| scale.is_finite());
        match part.split_once('=') {
            Some(("te", value)) => text_scale = Some(number(value)?),
            Some(("unet", value)) => scale = Some(number(value)?),
            Some(_) => return None,
            None if text_scale.is_none() => text_scale = Some(number(part)?),
            None if scale.is_none() => scale = Some(number(part)?),
            None => return None,
        }
    }
    let text_scale = text_scale.unwrap_or(1.0);
    Some(LoraTag {
        name: name.to_owned(),
        scale: scale.unwrap_or(text_scale),
        text_scale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str, scale: f64, text_scale: f64) -> LoraTag {
        let name = name.to_owned();
        LoraTag {
            name,
            scale,
            text_scale,
        }
    }

    #[test]
    fn tags_are_taken_out_and_read() {
        let found = take_out("a cat <lora:fur:0.8>, <LYCO:paint brush>sitting<lora:x:0.5:0.25>");
        assert_eq!(found.text, "a cat , sitting");
        assert_eq!(
            found.loras,
            [
                tag("fur", 0.8, 0.8),
                tag("paint brush", 1.0, 1.0),
                tag("x", 0.25, 0.5)
            ]
        );
        assert!(found.unread.is_empty());
        let named = take_out("<lora:a:unet=0.3:te=0>").loras;
        assert_eq!(named, [tag("a", 0.3, 0.0)]);
        assert_eq!(take_out("<lora:a:-1>").loras, [tag("a", -1.0, -1.0)]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for text in [
            "<lora:>",
            "<lora::1>",
            "<lora:a:much>",
            "<lora:a:inf>",
            "<lora:a:1:1:1>",
            "<lora:a:dyn=4>",
        ] {
            let found = take_out(text);
            assert_eq!((found.text.as_str(), found.loras.len()), ("", 0), "{text}");
            assert_eq!(found.unread, [text]);
        }
    }

    #[test]
    fn other_signs_stay() {
        for text in [
            "1 < 2",
            "<3",
            "<hypernet:a:1>",
            "<lora:a",
            "<",
            "a <b> c",
            "<lôra:a>",
        ] {
            let found = take_out(text);
            assert_eq!((found.text.as_str(), found.loras.len()), (text, 0));
        }
        assert_eq!(take_out("<lora:a <lora:b:1>").text, "<lora:a ");
    }
}
