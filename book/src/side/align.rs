//! Sets the sections of two sources side by side, and finds in each what is equal.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::outline::Section;

/// Lines that share less than this part of their words are no change of one another.
const ALIKE: f64 = 0.5;

/// A program whose sections are to be aligned.
pub(super) struct Source<'a> {
    pub lines: Vec<&'a str>,
    pub sections: &'a [Section],
}

/// A section of each side, or of one of them.
#[derive(Debug, Serialize)]
pub(super) struct Aligned {
    /// Which section of the left source, and of the right one.
    pub sections: [Option<usize>; 2],
    pub runs: Vec<Run>,
}

/// Rows that follow one another.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Run {
    /// Lines that are equal: the first on the left, the first on the right, how many.
    Equal(usize, usize, usize),
    /// Lines of one side: 0 or 1, the first, how many.
    Only { side: usize, first: usize, len: usize },
    /// A line on each side, and the columns of those words that differ.
    Changed { lines: [usize; 2], words: [Vec<(usize, usize)>; 2] },
}

impl Aligned {
    /// The lines of a side that are shown.
    #[cfg(test)]
    pub(super) fn shown(&self, side: usize) -> impl Iterator<Item = usize> {
        self.runs.iter().flat_map(move |run| match run {
            Run::Equal(left, right, len) => {
                let first = [*left, *right][side];
                first..first + len
            }
            Run::Only { side: own, first, len } if *own == side => *first..first + len,
            Run::Only { .. } => 0..0,
            Run::Changed { lines, .. } => lines[side]..lines[side] + 1,
        })
    }
}

/// The sections of both sources, in the order of the left one; those that only the right one has
/// stand where they stand there.
pub(super) fn align(left: &Source<'_>, right: &Source<'_>) -> Vec<Aligned> {
    let partners = partners(left.sections, right.sections);
    let taken: Vec<usize> = partners.iter().flatten().copied().collect();
    let mut aligned = Vec::new();
    let mut next = 0;
    let alone = |range: Range<usize>, aligned: &mut Vec<Aligned>| {
        for at in range.filter(|at| !taken.contains(at)) {
            aligned.push(section(left, right, [None, Some(at)]));
        }
    };
    for (at, partner) in partners.iter().enumerate() {
        if let Some(partner) = *partner
            && partner >= next
        {
            alone(next..partner, &mut aligned);
            next = partner + 1;
        }
        aligned.push(section(left, right, [Some(at), *partner]));
    }
    alone(next..right.sections.len(), &mut aligned);
    aligned
}

/// The partner of each section: the same key, or else the same name.
fn partners(left: &[Section], right: &[Section]) -> Vec<Option<usize>> {
    let mut partners: Vec<Option<usize>> = vec![None; left.len()];
    let same: [fn(&Section, &Section) -> bool; 2] =
        [|a, b| a.key == b.key, |a, b| a.name() == b.name()];
    for same in same {
        for (at, section) in left.iter().enumerate() {
            if partners[at].is_some() {
                continue;
            }
            let free = |other: &usize| !partners.contains(&Some(*other));
            let found = (0..right.len()).filter(free).find(|&other| same(section, &right[other]));
            partners[at] = found;
        }
    }
    partners
}

fn section(left: &Source<'_>, right: &Source<'_>, sections: [Option<usize>; 2]) -> Aligned {
    let range = |source: &Source<'_>, section: Option<usize>| {
        section.map_or(0..0, |at| source.sections[at].from..source.sections[at].to)
    };
    let (own, other) = (range(left, sections[0]), range(right, sections[1]));
    let ops = capture_diff_slices(
        Algorithm::Patience,
        &left.lines[own.clone()],
        &right.lines[other.clone()],
    );
    let mut runs = Vec::new();
    for op in ops {
        match op {
            DiffOp::Equal { old_index, new_index, len } => {
                runs.push(Run::Equal(own.start + old_index, other.start + new_index, len));
            }
            _ => {
                let shift = |range: Range<usize>, by: usize| range.start + by..range.end + by;
                let old = shift(op.old_range(), own.start);
                let new = shift(op.new_range(), other.start);
                runs.extend(changed(left, right, old, new));
            }
        }
    }
    Aligned { sections, runs }
}

/// The rows of lines that differ: those that are alike stand beside each other.
fn changed(
    left: &Source<'_>,
    right: &Source<'_>,
    old: Range<usize>,
    new: Range<usize>,
) -> Vec<Run> {
    let mut runs = Vec::new();
    let only = |side: usize, range: Range<usize>, runs: &mut Vec<Run>| {
        if !range.is_empty() {
            runs.push(Run::Only { side, first: range.start, len: range.len() });
        }
    };
    let (mut from, mut other_from) = (old.start, new.start);
    for (own, other) in alike(&left.lines[old.clone()], &right.lines[new.clone()]) {
        let (own, other) = (old.start + own, new.start + other);
        only(0, from..own, &mut runs);
        only(1, other_from..other, &mut runs);
        let words = differing(left.lines[own], right.lines[other]);
        runs.push(Run::Changed { lines: [own, other], words });
        (from, other_from) = (own + 1, other + 1);
    }
    only(0, from..old.end, &mut runs);
    only(1, other_from..new.end, &mut runs);
    runs
}

/// Pairs of lines that are alike, in order, so that together they share the most.
fn alike(left: &[&str], right: &[&str]) -> Vec<(usize, usize)> {
    let words = |lines: &[&str]| -> Vec<Vec<String>> {
        lines
            .iter()
            .map(|line| tokens(line).iter().map(|word| (*word).to_owned()).collect())
            .collect()
    };
    let (left, right) = (words(left), words(right));
    // best[i][j]: the most that the lines from i and from j on share.
    let mut best = vec![vec![0.0; right.len() + 1]; left.len() + 1];
    let gain = |i: usize, j: usize| Some(likeness(&left[i], &right[j])).filter(|&it| it > ALIKE);
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            let paired = gain(i, j).map_or(0.0, |gain| gain + best[i + 1][j + 1]);
            best[i][j] = f64::max(paired, f64::max(best[i + 1][j], best[i][j + 1]));
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while i < left.len() && j < right.len() {
        if best[i][j] == best[i + 1][j] {
            i += 1;
        } else if best[i][j] == best[i][j + 1] {
            j += 1;
        } else {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        }
    }
    pairs
}

/// Which part of their words two lines share, blanks left out.
fn likeness(left: &[String], right: &[String]) -> f64 {
    let counted = |words: &[String]| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for word in words.iter().filter(|word| !word.trim().is_empty()) {
            *counts.entry(word.clone()).or_default() += 1;
        }
        counts
    };
    let (left, right) = (counted(left), counted(right));
    let shared: usize =
        left.iter().map(|(word, count)| right.get(word).map_or(0, |it| *it.min(count))).sum();
    let all = left.values().sum::<usize>() + right.values().sum::<usize>();
    if all == 0 { 0.0 } else { 2.0 * shared as f64 / all as f64 }
}

/// The columns, in characters, of the words in which two lines differ.
fn differing(left: &str, right: &str) -> [Vec<(usize, usize)>; 2] {
    let (left, right) = (tokens(left), tokens(right));
    let mut words = [Vec::new(), Vec::new()];
    for op in capture_diff_slices(Algorithm::Myers, &left, &right) {
        if let DiffOp::Equal { .. } = op {
            continue;
        }
        for (side, (tokens, range)) in
            [(&left, op.old_range()), (&right, op.new_range())].into_iter().enumerate()
        {
            let columns = |tokens: &[&str]| -> usize {
                tokens.iter().map(|token| token.chars().count()).sum()
            };
            if !range.is_empty() {
                let from = columns(&tokens[..range.start]);
                words[side].push((from, from + columns(&tokens[range])));
            }
        }
    }
    words
}

/// Words, runs of blanks, and signs one by one.
fn tokens(line: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 0,
        c if c.is_whitespace() => 1,
        _ => 2,
    };
    let mut tokens = Vec::new();
    let mut from = 0;
    let mut last = None;
    for (at, c) in line.char_indices() {
        if last.is_some_and(|last| last != kind(c) || last == 2) {
            tokens.push(&line[from..at]);
            from = at;
        }
        last = Some(kind(c));
    }
    if from < line.len() {
        tokens.push(&line[from..]);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::{Run, Source, align, differing, tokens};
    use crate::outline;

    #[test]
    fn words_and_signs_are_told_apart() {
        assert_eq!(
            tokens("  let a_1 = b::c;"),
            ["  ", "let", " ", "a_1", " ", "=", " ", "b", ":", ":", "c", ";"]
        );
        assert_eq!(tokens(""), [""; 0]);
    }

    #[test]
    fn the_words_that_differ_are_found() {
        let [left, right] = differing("set_nodelay(true)?;", "set_nodelay(maybe)?;");
        assert_eq!(left, [(12, 16)]);
        assert_eq!(right, [(12, 17)]);
    }

    #[test]
    fn sections_are_aligned_by_name_and_their_lines_by_likeness() {
        let left = "fn main() {\n    go(1);\n}\n\nfn own() {}\n";
        let right = "fn help() {}\n\nfn main() {\n    go(2);\n    more();\n}\n";
        let (own, other) = (outline::sections(left), outline::sections(right));
        let (own, other) = (own.expect("Rust"), other.expect("Rust"));
        let source =
            |text: &'static str, sections| Source { lines: text.lines().collect(), sections };
        let aligned = align(&source(left, &own), &source(right, &other));
        let sections: Vec<_> = aligned.iter().map(|section| section.sections).collect();
        assert_eq!(sections, [[None, Some(0)], [Some(0), Some(1)], [Some(1), None]]);
        assert!(matches!(
            aligned[1].runs[..],
            [
                Run::Equal(0, 2, 1),
                Run::Changed { lines: [1, 3], .. },
                Run::Only { side: 1, first: 4, len: 1 },
                Run::Equal(2, 5, 1),
            ]
        ));
    }
}
