//! A wide table on the page: it scrolls within itself, keeps its first column (a `th`, whose
//! heading has the class `first`), and can be scrolled with the keyboard.

use maud::{Markup, html};

/// The table below its caption, which is not wider than the screen, however wide the table is.
pub(super) fn scrolled(caption: &str, table: Markup) -> Markup {
    html! {
        figure {
            figcaption { (caption) }
            div.scroll.picture tabindex="0" role="region" aria-label=(caption) { (table) }
        }
    }
}
