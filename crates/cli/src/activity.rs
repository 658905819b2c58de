//! [`Activity`]: shows that work goes on, in the status line of a terminal, or as a line every ten seconds elsewhere.

use std::sync::Arc;
use std::time::Duration;

use crate::printer::Printer;
use crate::ticker::Ticker;
use crate::{status_line, terminal};

/// The time between two drawings of the status line.
const REDRAWN: Duration = Duration::from_millis(100);
/// The time between two lines where stderr is no terminal. Nobody waits for ten seconds.
const WRITTEN: Duration = Duration::from_millis(9_500);

/// Where a text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the status line of a terminal, which can draw bars.
    StatusLine,
    /// In a line of a file or of a pipe.
    Line,
}

/// Says what work goes on; None while there is nothing to say.
type Text = dyn Fn(Place) -> Option<String> + Send + Sync;

/// Work in progress, shown until it is dropped.
pub(crate) struct Activity {
    /// Only for a status line.
    text: Option<Arc<Text>>,
    ticker: Option<Ticker>,
}

impl Activity {
    /// Shows `text` from now on, unless `printer` prints no messages for people.
    pub(crate) fn start(
        printer: Printer,
        text: impl Fn(Place) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        if printer.quiet || printer.json {
            return Self {
                text: None,
                ticker: None,
            };
        }
        let text: Arc<Text> = Arc::new(text);
        let shown = text.clone();
        if !status_line::is_possible() {
            return Self {
                text: None,
                ticker: Ticker::start(WRITTEN, move || {
                    if let Some(text) = shown(Place::Line) {
                        terminal::note(&text);
                    }
                }),
            };
        }
        let activity = Self {
            text: Some(text),
            ticker: Ticker::start(REDRAWN, move || draw(&*shown)),
        };
        activity.draw();
        activity
    }

    /// Draws the status line now.
    pub(crate) fn draw(&self) {
        if let Some(text) = &self.text {
            draw(&**text);
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.ticker = None;
        if self.text.is_some() {
            status_line::clear();
        }
    }
}

fn draw(text: &Text) {
    if let Some(text) = text(Place::StatusLine) {
        status_line::show(&text);
    }
}
