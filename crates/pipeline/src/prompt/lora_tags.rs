//! LoRA tags in prompts: `<lora:name:0.8>`.

/// A LoRA that a prompt names.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraTag {
    /// Its name: a file name without its extension.
    pub name: String,
    /// Its scale in the denoising network.
    pub scale: f64,
    /// Its scale in the text encoders.
    pub text_scale: f64,
    /// Arguments of the tag that are not supported, such as `lbw=…` or `dyn=…`.
    pub ignored: Vec<String>,
}

/// A text without its LoRA tags, and the LoRAs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Untagged {
    pub(super) text: String,
    pub(super) loras: Vec<LoraTag>,
    /// LoRA tags that cannot be parsed.
    pub(super) unread: Vec<String>,
}

/// Removes the tags `<lora:…>` and `<lyco:…>` from `text`. Other tags stay.
pub(super) fn take_out(text: &str) -> Untagged {
    let mut result = Untagged::default();
    let replaced = replace(text, |tag, written| {
        match tag {
            Some(tag) => result.loras.push(tag),
            None => result.unread.push(written.to_owned()),
        }
        String::new()
    });
    Untagged {
        text: replaced,
        ..result
    }
}

/// Replaces each tag of `text` by the result of `change`, which receives the parsed tag, if it is valid, and
/// its text.
pub(crate) fn replace(text: &str, mut change: impl FnMut(Option<LoraTag>, &str) -> String) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        match arguments(rest) {
            Some((arguments, length)) => {
                result.push_str(&change(read(arguments), &rest[..length]));
                rest = &rest[length..];
            }
            None => {
                result.push('<');
                rest = &rest[1..];
            }
        }
    }
    result.push_str(rest);
    result
}

/// The arguments of a LoRA tag at the beginning of `text`, and the tag's length.
fn arguments(text: &str) -> Option<(&str, usize)> {
    const OPENINGS: [&str; 2] = ["<lora:", "<lyco:"];
    let opening = OPENINGS.into_iter().find(|opening| {
        let begins = text.get(..opening.len());
        begins.is_some_and(|begins| begins.eq_ignore_ascii_case(opening))
    })?;
    // Tags are not nested.
    let end = opening.len() + text[opening.len()..].find(['<', '>'])?;
    text[end..]
        .starts_with('>')
        .then(|| (&text[opening.len()..end], end + 1))
}

/// Parses the name, then one scale, or one for the text encoders and one for the network. `te=` and `unet=`
/// override these at any position. Without a scale for the network it has that of the text encoders.
/// stable-diffusion-webui's LoRA extension parses these arguments in the same way; its others are not
/// supported.
fn read(arguments: &str) -> Option<LoraTag> {
    let mut parts = arguments.split(':').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let number = |text: &str| text.trim().parse().ok().filter(|scale: &f64| scale.is_finite());
    let mut in_order = Vec::new();
    let (mut text_scale, mut scale) = (None, None);
    let mut ignored = Vec::new();
    for part in parts {
        match part.split_once('=') {
            Some(("te", value)) => text_scale = Some(number(value)?),
            Some(("unet", value)) => scale = Some(number(value)?),
            None if in_order.len() < 2 => in_order.push(number(part)?),
            Some(_) | None => ignored.push(part.to_owned()),
        }
    }
    let text_scale = text_scale.or(in_order.first().copied()).unwrap_or(1.0);
    Some(LoraTag {
        name: name.to_owned(),
        scale: scale.or(in_order.get(1).copied()).unwrap_or(text_scale),
        text_scale,
        ignored,
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
            ignored: Vec::new(),
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
    }

    #[test]
    fn scales_are_those_of_webui() {
        for (arguments, text_scale, scale) in [
            ("", 1.0, 1.0),
            (":-1", -1.0, -1.0),
            (":0.2:1", 0.2, 1.0),
            (":te=0:unet=1", 0.0, 1.0),
            (":unet=0.3:te=0", 0.0, 0.3),
            (":te=0", 0.0, 0.0),
            (":unet=0.3", 1.0, 0.3),
            (":0.5:unet=1", 0.5, 1.0),
            (":te=0.2:0.7", 0.2, 0.2),
            (":te=0.2:0.7:0.9", 0.2, 0.9),
        ] {
            let found = take_out(&format!("<lora:a{arguments}>")).loras;
            assert_eq!(found, [tag("a", scale, text_scale)], "{arguments}");
        }
    }

    #[test]
    fn unknown_arguments_are_reported() {
        let found = take_out("<lora:a:0.5:lbw=MIDD:stop=20><lora:b:1:1:1><lora:c:dyn=4>").loras;
        let ignored: Vec<&[String]> = found.iter().map(|tag| tag.ignored.as_slice()).collect();
        assert_eq!(ignored, [&["lbw=MIDD", "stop=20"][..], &["1"], &["dyn=4"]]);
        assert_eq!((found[0].scale, found[1].scale, found[2].scale), (0.5, 1.0, 1.0));
    }

    #[test]
    fn malformed_tags_are_reported() {
        for text in [
            "<lora:>",
            "<lora::1>",
            "<lora:a:much>",
            "<lora:a:inf>",
            "<lora:a:te=x>",
        ] {
            let found = take_out(text);
            assert_eq!((found.text.as_str(), found.loras.len()), ("", 0), "{text}");
            assert_eq!(found.unread, [text]);
        }
    }

    #[test]
    fn tags_can_be_written_anew() {
        let changed = replace("a <lora:x:1> b <lora:>", |tag, written| match tag {
            Some(tag) => format!("<{}>", tag.name),
            None => written.to_owned(),
        });
        assert_eq!(changed, "a <x> b <lora:>");
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
