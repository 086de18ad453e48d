//! What completeness costs: a complete server beside the same model bare.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::section::{Pair, Section};
use super::{FEWEST_ROUNDS, Ratio};
use crate::target::Entrant;

/// A complete server beside the same model bare, by the CPU per message.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Completeness {
    /// The complete server.
    pub server: String,
    /// The model bare.
    pub bare: String,
    /// Whether they are shown to differ, all pairs of the section considered.
    pub apart: bool,
    /// Complete ÷ bare, paired by rounds; `None` for fewer than six rounds, which can show nothing.
    pub ratio: Option<Ratio>,
}

/// Every complete server with its model bare among `pairs`.
pub(super) fn completeness(servers: &[Entrant], pairs: &[Pair]) -> Vec<Completeness> {
    let beside = |bare: &Entrant| {
        let server = bare.bare_of.as_ref()?;
        let is_both = |pair: &&Pair| {
            (&pair.a, &pair.b) == (server, &bare.name) || (&pair.a, &pair.b) == (&bare.name, server)
        };
        let pair = pairs.iter().find(is_both)?;
        Some(Completeness {
            server: server.clone(),
            bare: bare.name.clone(),
            apart: pair.apart,
            ratio: pair.seen_from(server).map(|(_, ratio)| ratio),
        })
    };
    servers.iter().filter_map(beside).collect()
}

/// The most and the least that completeness was shown to cost, in plain sentences.
pub(super) fn answer(sections: &[Section]) -> Vec<String> {
    let enough = |section: &&Section| section.rounds as usize >= FEWEST_ROUNDS;
    let mut shown: Vec<(f64, String)> = Vec::new();
    let mut all = 0;
    for section in sections.iter().filter(enough) {
        all += section.completeness.len();
        for both in section.completeness.iter().filter(|both| both.apart) {
            let Some(ratio) = both.ratio else { continue };
            let words = format!(
                "{} takes {} times the CPU per message of {} ({})",
                both.server,
                ratio,
                both.bare,
                section.workload.point()
            );
            shown.push((ratio.ratio, words));
        }
    }
    shown.sort_by(|x, y| y.0.total_cmp(&x.0));
    let sentence = match &shown[..] {
        [] if all == 0 => return Vec::new(),
        [] => "no complete server is shown to differ from its model bare".to_owned(),
        [(_, only)] => only.clone(),
        [(_, most), .., (_, least)] => format!("at the most, {most}; at the least, {least}"),
    };
    let unseen = match all - shown.len() {
        some if 0 < some && some < all => {
            format!("; {some} of {all} pairs are not shown to differ")
        }
        _ => String::new(),
    };
    vec![format!("What completeness costs: {sentence}{unseen}.")]
}
