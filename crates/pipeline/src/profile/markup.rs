//! HTML and SVG elements. They are well-formed by construction: tags are closed, text is escaped.

use std::fmt::{self, Display, Write};

/// HTML elements without a closing tag.
const VOID: [&str; 3] = ["img", "link", "meta"];

/// An element with its attributes and children.
#[derive(Debug, Clone)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Node>,
}

#[derive(Debug, Clone)]
enum Node {
    Element(Element),
    Text(String),
    /// A style sheet or script of the program, which is not escaped.
    Verbatim(&'static str),
}

/// An empty element `name`.
pub(super) fn element(name: &'static str) -> Element {
    Element {
        name,
        attributes: Vec::new(),
        children: Vec::new(),
    }
}

/// The head of a table: the names of the columns that are shown.
pub(super) fn table_head(columns: impl IntoIterator<Item = (&'static str, bool)>) -> Element {
    let shown = columns.into_iter().filter(|(_, shown)| *shown);
    let names = shown.map(|(name, _)| element("th").with("scope", "col").text(name));
    element("thead").child(element("tr").children(names))
}

impl Element {
    /// Adds the attribute `name`.
    pub(super) fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// Appends `text`.
    pub(super) fn text(mut self, text: impl Display) -> Self {
        self.children.push(Node::Text(text.to_string()));
        self
    }

    /// Appends `child`.
    pub(super) fn child(mut self, child: Self) -> Self {
        self.children.push(Node::Element(child));
        self
    }

    /// Appends `children`.
    pub(super) fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children.into_iter().map(Node::Element));
        self
    }

    /// Appends a style sheet or a script without escaping it.
    pub(super) fn verbatim(mut self, source: &'static str) -> Self {
        self.children.push(Node::Verbatim(source));
        self
    }
}

impl Display for Element {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "<{}", self.name)?;
        for (name, value) in &self.attributes {
            write!(formatter, " {name}=\"{}\"", Escaped(value))?;
        }
        if VOID.contains(&self.name) {
            return formatter.write_str(" />");
        }
        formatter.write_char('>')?;
        for child in &self.children {
            match child {
                Node::Element(element) => element.fmt(formatter)?,
                Node::Text(text) => Escaped(text).fmt(formatter)?,
                Node::Verbatim(source) => formatter.write_str(source)?,
            }
        }
        write!(formatter, "</{}>", self.name)
    }
}

/// Escapes markup and characters that a page may not hold.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => formatter.write_str("&amp;"),
            '<' => formatter.write_str("&lt;"),
            '>' => formatter.write_str("&gt;"),
            '"' => formatter.write_str("&quot;"),
            '\'' => formatter.write_str("&#39;"),
            '\n' | '\t' => formatter.write_char(character),
            '\u{fffe}' | '\u{ffff}' => formatter.write_char(char::REPLACEMENT_CHARACTER),
            character if character.is_control() => formatter.write_char(char::REPLACEMENT_CHARACTER),
            character => formatter.write_char(character),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Checks that `page` is a sequence of well-formed elements with closed or void tags; otherwise the error
    /// says what is wrong.
    pub(in crate::profile) fn check_well_formed(page: &str) -> Result<(), String> {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap_or(page);
        while let Some(start) = rest.find('<') {
            check_text(&rest[..start])?;
            rest = &rest[start + 1..];
            let end = tag_end(rest).ok_or("a tag without an end")?;
            let (tag, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return Err(format!("</{name}> closes nothing"));
                }
                continue;
            }
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            if name.is_empty() || !name.chars().all(|character| character.is_ascii_alphanumeric()) {
                return Err(format!("<{tag}> has no name"));
            }
            let is_void = attributes.ends_with('/');
            check_attributes(attributes.trim_end_matches('/'))?;
            if is_void != VOID.contains(&name) {
                return Err(format!("<{tag}> is void or not when it should not be"));
            }
            if is_void {
                continue;
            }
            open.push(name);
            if name == "style" || name == "script" {
                let closing = format!("</{name}>");
                let length = rest.find(&closing).ok_or_else(|| format!("no {closing}"))?;
                rest = &rest[length..];
            }
        }
        check_text(rest)?;
        match open.last() {
            None => Ok(()),
            Some(name) => Err(format!("<{name}> is not closed")),
        }
    }

    /// The end of a tag: the first `>` outside quotes.
    fn tag_end(text: &str) -> Option<usize> {
        let mut quoted = false;
        text.char_indices().find_map(|(index, character)| {
            quoted ^= character == '"';
            (character == '>' && !quoted).then_some(index)
        })
    }

    fn check_attributes(text: &str) -> Result<(), String> {
        let mut names = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let bad = || format!("attributes {text:?}");
            let (name, after) = rest.split_once("=\"").ok_or_else(bad)?;
            let (value, after) = after.split_once('"').ok_or_else(bad)?;
            let is_name = |character: char| character.is_ascii_alphanumeric() || "-:".contains(character);
            if name.is_empty() || !name.chars().all(is_name) || names.contains(&name) {
                return Err(bad());
            }
            check_text(value)?;
            names.push(name);
            rest = after.trim_start();
        }
        Ok(())
    }

    fn check_text(text: &str) -> Result<(), String> {
        const ENTITIES: [&str; 5] = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
        let allowed = |character: char| matches!(character, '\n' | '\t') || !character.is_control();
        if !text.chars().all(allowed) || text.contains(['<', '>']) {
            return Err(format!("text {text:?}"));
        }
        for (index, _) in text.match_indices('&') {
            if !ENTITIES.iter().any(|entity| text[index..].starts_with(entity)) {
                return Err(format!("a bare & in {text:?}"));
            }
        }
        Ok(())
    }

    #[test]
    fn the_check_finds_what_is_wrong() {
        for wrong in [
            "<p>",
            "<p></div>",
            "</p>",
            "<p",
            "<p a=b></p>",
            "<p a=\"1\" a=\"2\"></p>",
            "<p>a & b</p>",
            "<p>\u{7}</p>",
            "<img src=\"x\">",
            "<div />",
            "a > b",
            "<p a=\"<\"></p>",
            "<style>p {}",
            "< p></p>",
        ] {
            assert!(check_well_formed(wrong).is_err(), "{wrong}");
        }
        for right in [
            "",
            "<!DOCTYPE html><p>a &amp; b</p>",
            "<img src=\"x\" />",
            "<p a=\"&lt;\" b=\"\"><i>x</i> y</p>",
            "<style>p > a & b {}</style>",
        ] {
            assert_eq!(check_well_formed(right), Ok(()), "{right}");
        }
    }

    #[test]
    fn elements_are_written_as_html_wants_them() {
        let made = element("p")
            .with("class", "a")
            .text("1 < 2")
            .child(element("i"))
            .child(element("img").with("alt", "\"x\""));
        assert_eq!(
            made.to_string(),
            "<p class=\"a\">1 &lt; 2<i></i><img alt=\"&quot;x&quot;\" /></p>"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_out_of_its_element(text in ".*", value in ".*") {
            let made = element("p").with("title", &value).text(&text).child(element("b").text(&value));
            proptest::prop_assert_eq!(check_well_formed(&made.to_string()), Ok(()));
        }
    }

    #[test]
    fn markup_in_a_text_stays_text() {
        let text = "<script>alert('x')</script> & \u{0} \u{1b}[31m \u{ffff} \"q\"";
        let made = element("p").with("title", text).text(text).to_string();
        assert_eq!(check_well_formed(&made), Ok(()));
        assert!(!made.contains("<script"));
    }
}
