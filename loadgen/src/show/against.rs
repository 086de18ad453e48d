//! What changed between two records, for people.

use super::table::{draw, wrap};
use crate::results::{Against, Change, Outcome};

/// All of it for people.
pub fn against(against: &Against) -> String {
    let mut all = String::new();
    let header = ["server", "before", "now", "now / before", "outcome"];
    for of_point in against.changes.chunk_by(|a, b| a.point == b.point) {
        let (point, measure) = (&of_point[0].point, &of_point[0].measure);
        all.push_str(&wrap(&format!("{point}: {measure}"), ""));
        let rows: Vec<Vec<String>> = of_point.iter().map(cells).collect();
        all.push_str(&draw(&header, &rows, 1));
        all.push('\n');
    }
    for what in &against.unmatched {
        all.push_str(&wrap(&format!("not compared: {what}"), ""));
    }
    for note in &against.notes {
        all.push_str(&wrap(&format!("note: {note}"), ""));
    }
    let count = |outcome| against.changes.iter().filter(|c| c.outcome == outcome).count();
    let mut sum = format!(
        "{} compared: {} worse, {} INVALID or left out now, {} better, {} with no change shown",
        against.changes.len(),
        count(Outcome::Worse),
        count(Outcome::Wrong) + count(Outcome::Gone),
        count(Outcome::Better),
        count(Outcome::Same)
    );
    let undecided =
        [(Outcome::TooFewRounds, "of too few rounds"), (Outcome::NotJudged, "not judged")];
    for (outcome, words) in undecided.into_iter().filter(|(outcome, _)| count(*outcome) > 0) {
        sum.push_str(&format!(", {} {words}", count(outcome)));
    }
    all + &wrap(&sum, "")
}

fn cells(change: &Change) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
    vec![
        change.server.clone(),
        number(change.before),
        number(change.now),
        change.ratio.map_or("-".into(), |ratio| ratio.to_string()),
        change.outcome.word().to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_is_said() {
        let change = Change {
            point: "ping-pong".into(),
            server: "a".into(),
            measure: "CPU per message".into(),
            before: Some(1.0),
            now: Some(2.0),
            ratio: None,
            outcome: Outcome::TooFewRounds,
        };
        let (old, new) = (String::new(), String::new());
        let notes = vec!["a note".to_owned()];
        let against = Against { old, new, changes: vec![change], unmatched: Vec::new(), notes };
        let text = super::against(&against).replace("\n  ", " ");
        assert!(text.contains("cannot tell: too few rounds"), "{text}");
        assert!(text.contains("1 of too few rounds") && text.contains("note: a note"), "{text}");
    }
}
