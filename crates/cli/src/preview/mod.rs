//! `--preview`: draws an image while it forms, in terminals that can show images.
//!
//! A terminal says what it is in environment variables. The image is drawn into rows that are left free above the status
//! line, over the one before.

mod iterm2;
mod kitty;
mod png;
mod sixel;

use std::env;

pub(crate) use png::base64_png;
use sd_pipeline::Preview;

use crate::printer::Printer;
use crate::{status_line, terminal};

/// Rows of the terminal that an image takes.
const ROWS: usize = 16;

/// How a terminal takes images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Kitty's graphics protocol.
    Kitty,
    /// The inline images of iTerm2.
    Iterm2,
    /// Sixel graphics, as the terminals of DEC had them.
    Sixel,
}

/// What `--preview` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreviewChoice {
    /// The protocol of the terminal.
    Automatic,
    /// This one.
    Protocol(Protocol),
}

impl PreviewChoice {
    /// A choice by name.
    ///
    /// # Errors
    /// The name is unknown.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Automatic),
            "kitty" => Ok(Self::Protocol(Protocol::Kitty)),
            "iterm2" => Ok(Self::Protocol(Protocol::Iterm2)),
            "sixel" => Ok(Self::Protocol(Protocol::Sixel)),
            _ => Err("the previews are auto, kitty, iterm2 and sixel".to_owned()),
        }
    }
}

impl Protocol {
    /// The protocol of the terminal whose environment `variable` reads, if it is known to have one.
    fn of_terminal(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let has = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let (term, program) = (
            variable("TERM").unwrap_or_default(),
            variable("TERM_PROGRAM").unwrap_or_default(),
        );
        // A multiplexer draws the screen itself, and drops images.
        if has("TMUX") || term.starts_with("screen") || term.starts_with("tmux") {
            return None;
        }
        match program.as_str() {
            "iTerm.app" | "WezTerm" | "mintty" => return Some(Self::Iterm2),
            "ghostty" => return Some(Self::Kitty),
            _ => {}
        }
        if has("KITTY_WINDOW_ID")
            || has("KONSOLE_VERSION")
            || matches!(&*term, "xterm-kitty" | "xterm-ghostty")
        {
            Some(Self::Kitty)
        } else if variable("LC_TERMINAL").is_some_and(|name| name == "iTerm2") {
            Some(Self::Iterm2)
        } else if term.starts_with("foot")
            || term.starts_with("mlterm")
            || term.starts_with("contour")
            || term.contains("sixel")
            || has("WT_SESSION")
        {
            Some(Self::Sixel)
        } else {
            None
        }
    }

    /// What draws `preview` at the cursor, [`ROWS`] high.
    fn sequence(self, preview: &Preview) -> Option<Vec<u8>> {
        let pixels = &preview.pixels;
        match self {
            Self::Kitty => Some(kitty::sequence(&base64_png(pixels)?, ROWS)),
            Self::Iterm2 => Some(iterm2::sequence(&base64_png(pixels)?, ROWS)),
            Self::Sixel => Some(sixel::sequence(pixels, ROWS)),
        }
    }
}

/// Where previews are drawn.
#[derive(Debug)]
pub(crate) struct Screen {
    protocol: Protocol,
    /// The image that is shown, and the lines of the terminal until it was drawn.
    shown: Option<(usize, u64)>,
}

impl Screen {
    /// The terminal, if it can show images; otherwise a warning says why not.
    pub(crate) fn open(choice: PreviewChoice, printer: Printer) -> Option<Self> {
        if !status_line::is_possible() {
            printer.warn("there is no preview: stderr is no terminal");
            return None;
        }
        let protocol = match choice {
            PreviewChoice::Protocol(protocol) => Some(protocol),
            PreviewChoice::Automatic => Protocol::of_terminal(|name| env::var(name).ok()),
        };
        if protocol.is_none() {
            printer.warn(
                "there is no preview: this terminal is not known to show images; if it does, name its protocol, as in \
                 --preview=sixel",
            );
        }
        protocol.map(|protocol| Self {
            protocol,
            shown: None,
        })
    }

    /// Draws `preview`. Of images that are made together the first is shown.
    pub(crate) fn show(&mut self, preview: &Preview) {
        let is_other = |(image, _): (usize, u64)| image != preview.image;
        if self.shown.is_some_and(is_other) && preview.step > 1 {
            return;
        }
        let Some(sequence) = self.protocol.sequence(preview) else {
            return;
        };
        let lines = terminal::lines_of_terminal();
        let is_in_place = self.shown == Some((preview.image, lines));
        terminal::draw(&drawing(&sequence, is_in_place));
        self.shown = Some((preview.image, lines));
    }
}

/// What draws an image in [`ROWS`] rows above the cursor: over the one before, or else in new rows. The cursor is where
/// it was at the end.
fn drawing(sequence: &[u8], is_in_place: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sequence.len() + 64);
    if !is_in_place {
        bytes.extend(std::iter::repeat_n(b'\n', ROWS));
    }
    // Up, to the first column, and with the cursor kept while the image is drawn.
    bytes.extend(format!("\x1b[{ROWS}A\r\x1b7").bytes());
    bytes.extend(sequence);
    bytes.extend(format!("\x1b8\x1b[{ROWS}B\r").bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_their_variables() {
        let of = |variables: &[(&str, &str)]| {
            Protocol::of_terminal(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        for (variables, protocol) in [
            (&[("TERM", "xterm-kitty")][..], Some(Protocol::Kitty)),
            (
                &[("TERM", "xterm-256color"), ("KITTY_WINDOW_ID", "1")],
                Some(Protocol::Kitty),
            ),
            (
                &[("TERM", "xterm-256color"), ("TERM_PROGRAM", "iTerm.app")],
                Some(Protocol::Iterm2),
            ),
            (
                &[("TERM", "xterm-256color"), ("LC_TERMINAL", "iTerm2")],
                Some(Protocol::Iterm2),
            ),
            (&[("TERM", "foot")], Some(Protocol::Sixel)),
            (&[("TERM", "xterm-256color")], None),
            (&[("TERM", "xterm-kitty"), ("TMUX", "/tmp/tmux")], None),
            (&[("TERM", "tmux-256color")], None),
            (&[], None),
        ] {
            assert_eq!(of(variables), protocol, "{variables:?}");
        }
    }

    #[test]
    fn an_image_leaves_the_cursor_where_it_was() {
        let first = String::from_utf8(drawing(b"image", false)).unwrap();
        assert_eq!(
            first,
            format!("{}\x1b[16A\r\x1b7image\x1b8\x1b[16B\r", "\n".repeat(16))
        );
        let second = String::from_utf8(drawing(b"image", true)).unwrap();
        assert_eq!(second, "\x1b[16A\r\x1b7image\x1b8\x1b[16B\r");
    }
}
