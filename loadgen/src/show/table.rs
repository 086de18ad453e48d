//! Tables and sentences that fit the terminal. Into a pipe they are as wide as they like.

use std::io::IsTerminal;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use rustix::termios::tcgetwinsize;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Columns that sentences are wrapped at where there is room for more.
const WIDTH: usize = 100;
/// The width of a terminal that does not say how wide it is.
const USUAL: u16 = 80;
/// A terminal narrower than this gets lines of this width: a table needs some room.
const NARROWEST: u16 = 40;

/// Columns of the terminal on standard output; `None` where that is none.
fn columns() -> Option<u16> {
    let out = std::io::stdout();
    let width = || tcgetwinsize(&out).map_or(0, |size| size.ws_col);
    out.is_terminal().then(width).map(|width| match width {
        0 => USUAL,
        width => width.max(NARROWEST),
    })
}

/// A table of texts; the columns from `numbers` on are aligned to the right. Where the terminal is
/// too narrow, texts are wrapped.
pub fn draw(header: &[&str], rows: &[Vec<String>], numbers: usize) -> String {
    draw_most(header, rows, numbers, &[])
}

/// The same of numbers, which would not be read if they were wrapped: where the terminal is too
/// narrow, these columns are left out one after the other, and that is said.
pub fn draw_most(header: &[&str], rows: &[Vec<String>], numbers: usize, least: &[usize]) -> String {
    fitted(columns(), header, rows, numbers, least)
}

fn fitted(
    width: Option<u16>,
    header: &[&str],
    rows: &[Vec<String>],
    numbers: usize,
    least: &[usize],
) -> String {
    let all: Vec<usize> = (0..header.len()).collect();
    let Some(width) = width else {
        let mut table = table(header, rows, numbers, &all);
        table.load_style(presets::ASCII_MARKDOWN);
        return format!("{table}\n");
    };
    let (mut kept, mut left_out) = (all, Vec::new());
    for column in least {
        if natural_width(header, rows, &kept) <= usize::from(width) {
            break;
        }
        kept.retain(|other| other != column);
        left_out.push(header[*column]);
    }
    let mut table = table(header, rows, numbers, &kept);
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let mut text = format!("{table}\n");
    if !left_out.is_empty() {
        let left_out = left_out.join(", ");
        let why = format!("not shown in {width} columns: {left_out}; a pipe and --json get all");
        text.push_str(&wrapped(&why, "  ", Some(width)));
    }
    text
}

fn table(header: &[&str], rows: &[Vec<String>], numbers: usize, kept: &[usize]) -> Table {
    let mut table = Table::new();
    table.set_header(kept.iter().map(|&n| header[n]));
    for row in rows {
        table.add_row(kept.iter().map(|&n| &row[n]));
    }
    for (place, column) in table.column_iter_mut().enumerate() {
        if kept[place] >= numbers {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Columns that these columns of a table take if nothing is wrapped: each has a space on both
/// sides, and a line before, between and behind them.
fn natural_width(header: &[&str], rows: &[Vec<String>], kept: &[usize]) -> usize {
    let width = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let widest = |&n: &usize| {
        let cells = rows.iter().map(|row| width(&row[n]));
        cells.chain([width(header[n])]).max().unwrap_or(0)
    };
    kept.iter().map(|n| widest(n) + 3).sum::<usize>() + 1
}

/// A paragraph in lines of at most `WIDTH` columns, or of the terminal's if those are fewer.
pub fn wrap(paragraph: &str, indent: &str) -> String {
    wrapped(paragraph, indent, columns())
}

fn wrapped(paragraph: &str, indent: &str, columns: Option<u16>) -> String {
    let width = columns.map_or(WIDTH, |columns| WIDTH.min(usize::from(columns)));
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    // Each line begins with the indent; all but the first are indented by two more.
    let further = format!("{indent}  ");
    let options = Options::new(width)
        .initial_indent(indent)
        .subsequent_indent(&further)
        .wrap_algorithm(WrapAlgorithm::FirstFit)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        // A word that a terminal has not room for, such as a path. A pipe gets it whole.
        .break_words(columns.is_some());
    textwrap::fill(&words.join(" "), options) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped() {
        let text = wrapped(&"word ".repeat(50), "  ", None);
        let begins = |line: &str| line.starts_with("  word") || line.starts_with("    word");
        assert!(text.lines().all(|line| line.len() <= WIDTH && begins(line)), "{text}");
        assert_eq!(text.split_whitespace().count(), 50);
        let path = "/x".repeat(100);
        assert_eq!(wrapped(&path, "", None), path.clone() + "\n", "a pipe gets it whole");
        let narrow = wrapped(&format!("see {path} there"), "  ", Some(40));
        assert!(narrow.lines().all(|line| line.len() <= 40), "{narrow}");
        assert_eq!(narrow.matches("/x").count() + narrow.matches("/\n").count(), 100, "{narrow}");
    }

    #[test]
    fn what_is_least_is_left_out_first_and_only_where_there_is_no_room() {
        let rows = [["one", "1,234", "a verdict"].map(str::to_owned).to_vec()];
        let draw = |width| fitted(width, &["server", "rate", "verdict"], &rows, 1, &[1, 2]);
        for wide in [None, Some(80)] {
            assert!(draw(wide).contains("1,234") && !draw(wide).contains("not shown"));
        }
        // 3 columns of 6, 5 and 9 characters take 30.
        assert!(draw(Some(30)).contains("1,234"));
        let narrow = draw(Some(29));
        assert!(!narrow.contains("1,234") && narrow.contains("a verdict"), "{narrow}");
        assert!(narrow.contains("not shown in 29") && narrow.contains("rate;"), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 29), "{narrow}");
    }
}
