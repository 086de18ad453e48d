//! The answer of a comparison for a reader who decides and does not measure: what is safe, what a
//! wrong choice costs, and how sure that is. Only of what was shown.

use super::words;
use crate::measure::Status;
use crate::results::{Comparison, FEWEST_ROUNDS, Ratio, Section};

/// Servers that are named as safe choices; more are counted.
const NAMED: usize = 4;
/// How far behind the safest choice another one may be to stand beside it, as a factor.
const AS_SAFE: f64 = 1.05;

/// The sentences, the most useful one first.
pub(super) fn answer(comparison: &Comparison) -> Vec<String> {
    let points: Vec<&Section> = words::mapped(comparison)
        .into_iter()
        .map(|(_, section)| section)
        .filter(|section| section.rounds as usize >= FEWEST_ROUNDS)
        .collect();
    if comparison.control.is_some() || points.is_empty() {
        return Vec::new();
    }
    let any_ours = points.iter().any(|s| s.rows.iter().filter(|row| row.ours).count() > 1);
    let counts = |name: &str| {
        let own = |s: &&Section| s.rows.iter().any(|row| row.server == name && row.ours);
        !any_ours || points.iter().any(own)
    };
    let mut sentences = Vec::new();
    sentences.extend(safe(&points, &counts));
    sentences.extend(wrong(&points, &counts));
    sentences.extend(order(comparison, &points, &counts));
    sentences.push(sure(&points));
    sentences
}

/// The servers that are never far behind, whatever the load.
fn safe(points: &[&Section], counts: &dyn Fn(&str) -> bool) -> Option<String> {
    let everywhere = |name: &&str| {
        let ranked = |s: &&Section| s.rows.iter().any(|r| r.server == *name && r.rank.is_some());
        counts(name) && points.iter().all(ranked)
    };
    let mut worst: Vec<(&str, f64)> = points[0]
        .rows
        .iter()
        .map(|row| row.server.as_str())
        .filter(everywhere)
        .map(|name| (name, points.iter().map(|s| behind(s, name, counts)).fold(1.0, f64::max)))
        .collect();
    worst.sort_by(|x, y| x.1.total_cmp(&y.1));
    let least = worst.first()?.1;
    let safe: Vec<&(&str, f64)> = worst.iter().filter(|(_, w)| *w <= least * AS_SAFE).collect();
    if safe.len() == worst.len() && worst.len() > 1 {
        return Some("No server is shown to be a better choice than another.".into());
    }
    let names: Vec<&str> = safe.iter().take(NAMED).map(|(name, _)| *name).collect();
    let more = safe.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let far = safe.iter().map(|(_, worst)| *worst).fold(1.0, f64::max);
    let kinds = match points.len() {
        1 => "under the load that was tried".to_owned(),
        n => format!("under each of the {n} loads that were tried"),
    };
    let next = worst.iter().skip(safe.len()).take(NAMED - 1);
    let next: Vec<String> =
        next.map(|(name, far)| format!("{name} ({:.0} %)", (far - 1.0) * 100.0)).collect();
    let next = match next.is_empty() {
        true => String::new(),
        false => format!(" Next, by the most that each is behind the best: {}.", next.join(", ")),
    };
    Some(match far > 1.005 {
        true => format!(
            "A safe choice: {}{more}. Its processor time is within {:.0} % of the best \
             {kinds}.{next}",
            names.join(", "),
            (far - 1.0) * 100.0
        ),
        false => format!(
            "A safe choice: {}{more}. None is shown to need more processor time than the best \
             {kinds}.{next}",
            names.join(", ")
        ),
    })
}

/// How far a server is shown to be behind the best of those that count; 1 if it is not.
fn behind(section: &Section, name: &str, counts: &dyn Fn(&str) -> bool) -> f64 {
    gap(section, name, counts).map_or(1.0, |(_, ratio)| ratio.ratio.max(1.0))
}

/// The best of those that count, and what `name` is shown to take of its CPU.
fn gap<'a>(
    section: &'a Section,
    name: &str,
    counts: &dyn Fn(&str) -> bool,
) -> Option<(&'a str, Ratio)> {
    let best = section.rows.iter().find(|row| row.rank.is_some() && counts(&row.server))?;
    section.pairs.iter().filter(|pair| pair.apart).find_map(|pair| {
        let (other, ratio) = pair.seen_from(name)?;
        (other == best.server).then_some((best.server.as_str(), ratio))
    })
}

/// The dearest mistake.
fn wrong(points: &[&Section], counts: &dyn Fn(&str) -> bool) -> Option<String> {
    let gaps = points.iter().flat_map(|section| {
        let rows = section.rows.iter().filter(|row| row.rank.is_some() && counts(&row.server));
        rows.filter_map(|row| Some((*section, row, gap(section, &row.server, counts)?)))
    });
    let (section, row, (best, ratio)) = gaps
        .max_by(|x, y| x.2.1.ratio.total_cmp(&y.2.1.ratio))
        .filter(|(.., (_, r))| r.ratio > 1.0)?;
    Some(format!(
        "A wrong choice is dear: with {}, {} needs {:.1} times the processor time of {best}.",
        words::load(&section.workload),
        row.server,
        ratio.ratio
    ))
}

/// Whether one order holds for all loads.
fn order(
    comparison: &Comparison,
    points: &[&Section],
    counts: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let flips = comparison.flips.iter().filter(|flip| counts(&flip.a) && counts(&flip.b)).count();
    match flips {
        _ if points.len() < 2 => None,
        0 => Some("Nowhere does another load turn the order of two servers round.".into()),
        1 => Some("The load decides: one pair of servers changes places between two loads.".into()),
        n => Some(format!(
            "The load decides: {n} pairs of servers change places between two loads. So look at \
             the column of the map that is like your own load."
        )),
    }
}

/// How sure all of that is.
fn sure(points: &[&Section]) -> String {
    let rounds = points.iter().map(|section| section.rounds).min().unwrap_or(0);
    let rows = || points.iter().flat_map(|section| &section.rows);
    let all: usize = rows().map(|row| row.measure.len()).sum();
    let doubted: u32 = rows().filter(|row| row.status != Status::Invalid).map(|r| r.doubted).sum();
    let sure = format!(
        "How sure: every server was measured {rounds} times or more beside the others, and a \
         difference is named only where chance would hardly make it (one in twenty, all pairs of \
         a load together)."
    );
    match doubted {
        0 => sure,
        _ => format!(
            "{sure} In {doubted} of {all} measurements something disturbed the machine or the \
             generator was the limit; the notes of each load say what."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Two points at which three servers take so many times the CPU of the first.
    fn comparison(points: [[f64; 3]; 2]) -> Comparison {
        let second = std::time::Duration::from_secs(1);
        let names = ["one", "two", "three"];
        let section = |ratios: [f64; 3], workload: &str| {
            let workload =
                crate::workload::Workload::find(workload, &Default::default(), second, second);
            let mut order = [0, 1, 2];
            order.sort_by(|&x, &y| ratios[x].total_cmp(&ratios[y]));
            let rows = order.map(|n| {
                json!({ "server": names[n], "rank": 1, "shared": false, "status": "VALID",
                    "reasons": [], "measure": [ratios[n]], "ours": true })
            });
            let mut pairs = Vec::new();
            for (n, a) in names.iter().enumerate() {
                for (m, b) in names.iter().enumerate().skip(n + 1) {
                    let ratio = ratios[n] / ratios[m];
                    let apart = (ratio - 1.0).abs() > 0.01;
                    let ratio = json!({ "ratio": ratio, "low": ratio, "high": ratio, "p": 0.001 });
                    pairs.push(json!({ "a": a, "b": b, "apart": apart, "ratio": ratio }));
                }
            }
            json!({ "workload": workload.unwrap(), "rounds": 8, "ranked_by": "CPU per message",
                "rows": rows, "pairs": pairs })
        };
        serde_json::from_value(json!({
            "rounds": 8, "servers": [], "left_out": [], "interrupted": false,
            "sections": [section(points[0], "ping-pong"), section(points[1], "idle")],
        }))
        .unwrap()
    }

    #[test]
    fn the_safe_choice_is_never_far_behind() {
        let said = answer(&comparison([[1.0, 1.1, 2.0], [5.0, 1.0, 1.2]]));
        assert!(said[0].starts_with("A safe choice: two. "), "{said:?}");
        assert!(said[0].contains("within 10 % of the best under each of the 2 loads"), "{said:?}");
        let dear =
            "with 1,000 clients of whom 16 talk, one needs 5.0 times the processor time of two";
        assert!(said[1].contains(dear), "{said:?}");
    }

    #[test]
    fn where_nothing_is_shown_nothing_is_recommended() {
        let said = answer(&comparison([[1.0; 3]; 2]));
        assert!(said[0].starts_with("No server is shown"), "{said:?}");
        assert!(!said.iter().any(|sentence| sentence.contains("dear")), "{said:?}");
    }
}
