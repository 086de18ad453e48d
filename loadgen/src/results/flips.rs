//! Where the order of two servers is reversed, and the answer in words.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::section::Section;
use super::{FEWEST_ROUNDS, Ratio};

/// Two servers whose order is shown to be one way at some points and the other way at others.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Flip {
    /// The one.
    pub a: String,
    /// The other.
    pub b: String,
    /// Where a takes less than b, the clearest first.
    pub less: Vec<At>,
    /// Where a takes more than b, the clearest first.
    pub more: Vec<At>,
}

/// A ratio at one point.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct At {
    /// Index of the section.
    pub section: usize,
    /// What is asked there, in words.
    pub point: String,
    /// a ÷ b, of the CPU per message.
    pub ratio: Ratio,
}

impl Flip {
    /// How clearly it is shown: by the less clear of its two sides, as a factor.
    fn clarity(&self) -> f64 {
        let side = |side: &[At]| side.first().map_or(1.0, |at| at.ratio.shown());
        side(&self.less).min(side(&self.more))
    }
}

/// All flips, the clearest first.
pub(super) fn flips(sections: &[Section]) -> Vec<Flip> {
    let mut found: Vec<Flip> = Vec::new();
    for (n, section) in sections.iter().enumerate().filter(|(_, s)| s.is_of_cpu()) {
        for pair in section.pairs.iter().filter(|pair| pair.apart) {
            let (a, b) = (&pair.a, &pair.b);
            let known = found.iter().position(|f| (&f.a, &f.b) == (a, b) || (&f.a, &f.b) == (b, a));
            let known = known.unwrap_or_else(|| {
                let (less, more) = (Vec::new(), Vec::new());
                found.push(Flip { a: a.clone(), b: b.clone(), less, more });
                found.len() - 1
            });
            let flip = &mut found[known];
            let Some((_, ratio)) = pair.seen_from(&flip.a) else { continue };
            let at = At { section: n, point: section.workload.point(), ratio };
            if ratio.ratio < 1.0 { flip.less.push(at) } else { flip.more.push(at) }
        }
    }
    found.retain(|flip| !flip.less.is_empty() && !flip.more.is_empty());
    for flip in &mut found {
        for side in [&mut flip.less, &mut flip.more] {
            side.sort_by(|x, y| y.ratio.shown().total_cmp(&x.ratio.shown()));
        }
    }
    found.sort_by(|x, y| y.clarity().total_cmp(&x.clarity()));
    found
}

/// What the comparison was made for, in plain sentences: how much the model is worth, and where
/// the ranking flips. Only of what was shown. Servers from elsewhere differ by more than the
/// model, so that they are left out unless there are no others.
pub(super) fn answer(sections: &[Section], flips: &[Flip]) -> Vec<String> {
    let any_ours = sections.iter().any(|s| s.rows.iter().filter(|row| row.ours).count() > 1);
    let counts = |name: &str| {
        let own = |section: &Section| section.rows.iter().any(|r| r.server == name && r.ours);
        !any_ours || sections.iter().any(own)
    };
    let whose = if any_ours { "this workspace's servers" } else { "servers" };
    let what = if any_ours { "How much the model is worth" } else { "How far the servers differ" };
    let mut sentences = worth(sections, what, &counts);
    let mut flips = flips.iter().filter(|flip| counts(&flip.a) && counts(&flip.b));
    if let Some(flip) = flips.next() {
        let (less, more) = (&flip.less[0], &flip.more[0]);
        let others = match flips.count() {
            0 => String::new(),
            1 => format!("; another pair of {whose} changes places like this"),
            more => format!("; {more} more pairs of {whose} change places like this"),
        };
        sentences.push(format!(
            "The ranking flips: {} takes {} times the CPU of {} in {}, but {} times in {}{others}.",
            flip.a, less.ratio, flip.b, less.point, more.ratio, more.point,
        ));
    } else if sections.iter().filter(|s| s.is_of_cpu()).count() > 1 && !sentences.is_empty() {
        sentences.push("Nowhere were two servers shown to change places.".into());
    }
    sentences
}

/// The widest gap of all points and the narrowest, between the best server of a point and that
/// which is shown to be farthest behind it. `what` says what that is.
fn worth(sections: &[Section], what: &str, counts: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut gaps: Vec<(f64, String)> = Vec::new();
    let mut level = Vec::new();
    let shown = |section: &&Section| section.rounds as usize >= FEWEST_ROUNDS;
    for section in sections.iter().filter(|s| s.is_of_cpu()).filter(shown) {
        let ranked = section.rows.iter().filter(|r| r.rank.is_some() && counts(&r.server));
        let Some(best) = ranked.clone().next() else { continue };
        let behind = section.pairs.iter().filter(|pair| pair.apart).filter_map(|pair| {
            let (other, ratio) = pair.seen_from(&best.server)?;
            let ratio = ratio.inverse();
            (counts(other) && ratio.ratio > 1.0).then_some((other, ratio))
        });
        match behind.max_by(|x, y| x.1.shown().total_cmp(&y.1.shown())) {
            Some((other, ratio)) => gaps.push((
                ratio.ratio,
                format!(
                    "{other} takes {} times the CPU per message of {} ({})",
                    ratio,
                    best.server,
                    section.workload.point()
                ),
            )),
            None if ranked.count() > 1 => level.push(section.workload.point()),
            None => {}
        }
    }
    gaps.sort_by(|x, y| y.0.total_cmp(&x.0));
    let mut sentences = Vec::new();
    match &gaps[..] {
        [] => {}
        [only] => sentences.push(format!("{what}: {}.", only.1)),
        [most, .., least] => sentences
            .push(format!("{what}: at the widest, {}; at the narrowest, {}.", most.1, least.1)),
    }
    if !level.is_empty() {
        sentences
            .push(format!("No server is shown to be behind the best in {}.", level.join("; ")));
    }
    sentences
}
