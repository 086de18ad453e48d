//! The page of claims: for each the verdict, the sentence that explains it, one picture that shows
//! it, and the command that repeats it.

use std::path::Path;

use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{self, Scale, Unit};
use super::claims::{asked, found, sentence};
use super::html::biases;
use super::scroll::scrolled;
use crate::results::{ClaimPoint, ExperimentResult, Host, Ruling, Spread, Tried};
use crate::workload::{Experiment, Kind};

/// Height of a strip in pixels.
const ROW: f64 = 22.0;

/// Writes all claims into one file.
pub fn claims_page(host: &Host, tried: &[Tried], path: &Path) -> Result<()> {
    let text = page(host, tried).into_string();
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn page(host: &Host, tried: &[Tried]) -> Markup {
    let title = format!("What is said about the models: {} claims tried", tried.len());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "loadgen: " (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    h1 { (title) }
                    p.soft { (host.time) ", " (host.processor.as_deref().unwrap_or("")) }
                    (verdicts(tried))
                    @for one in tried { (claim(one)) }
                    h2 { "What these numbers do not say" }
                    ul { @for bias in biases() { li { (bias) } } }
                }
            }
        }
    }
}

fn verdicts(tried: &[Tried]) -> Markup {
    let count = |ruling: Ruling| tried.iter().filter(|one| one.ruling == ruling).count();
    let all = [Ruling::Holds, Ruling::Fails, Ruling::Depends, Ruling::NotShown, Ruling::CannotRun];
    let counts: Vec<String> =
        all.iter().map(|ruling| format!("{}: {}", ruling.word(), count(*ruling))).collect();
    html! {
        div.answer { p { (counts.join(", ")) "." } }
        (scrolled("Verdicts on this machine", html! {
            table {
                thead { tr { th.first { "claim" } th.text { "verdict" } th.text { "what is said" } } }
                @for one in tried {
                    tr {
                        th scope="row" { a href={ "#" (one.claim.name) } { (one.claim.name) } }
                        td.text { (one.ruling.word()) }
                        td.text { (one.claim.claim) }
                    }
                }
            }
        }))
    }
}

fn claim(one: &Tried) -> Markup {
    html! {
        h2 id=(one.claim.name) { (one.claim.name) ": " (one.ruling.word()) }
        p { b { (one.claim.claim) "." } " (" (one.claim.source) ")" }
        p { (sentence(one)) }
        @for (experiment, result) in one.claim.experiments.iter().zip(&one.results) {
            p.soft { b { (result.ruling.word()) } ": " (found(experiment, result)) }
            @if !result.points.is_empty() { (picture(experiment, result)) }
        }
        p.soft { "Again: " code { "loadgen claims " (one.claim.name) } }
    }
}

fn picture(experiment: &Experiment, result: &ExperimentResult) -> Markup {
    match &result.points[..] {
        [point] if experiment.is_counted() => counts(experiment, point),
        points => ratios(experiment, points),
    }
}

/// Both numbers of a count.
fn counts(experiment: &Experiment, point: &ClaimPoint) -> Markup {
    let to = experiment.to.as_deref().unwrap_or("limit");
    let rows = [(experiment.server.as_str(), &point.server[..]), (to, &point.to[..])];
    chart::rounds(&asked(experiment), &rows, Unit::Number)
}

/// A strip for each point with a dot for the ratio of each round, and upright lines where the claim
/// begins or ends to hold.
fn ratios(experiment: &Experiment, points: &[ClaimPoint]) -> Markup {
    let rows: Vec<(String, Vec<f64>)> = points
        .iter()
        .map(|point| {
            let ratios = point.server.iter().zip(&point.to).map(|(server, to)| server / to);
            (format!("{} {}", point.value, experiment.along.word()), ratios.collect())
        })
        .collect();
    let bounds = bounds(experiment);
    let all = rows.iter().flat_map(|(_, ratios)| ratios).chain(&bounds).copied();
    let scale = Scale::log(Unit::Number, all, (2.0, 96.0));
    html! {
        div.strips.picture role="img" aria-label=(asked(experiment)) {
            @for (name, ratios) in &rows {
                div.strip {
                    span.name { (name) }
                    svg height=(ROW) {
                        (chart::grid_across(&scale, ROW))
                        @for bound in &bounds {
                            @let x = chart::percent(scale.at(*bound));
                            line.knee x1=(x) x2=(x) y1="0" y2=(ROW) {
                                title { "the claim's margin: " (format!("{bound:.2}")) }
                            }
                        }
                        @for (round, ratio) in ratios.iter().enumerate() {
                            circle.dot cx=(chart::percent(scale.at(*ratio))) cy=(ROW / 2.0) r="4" {
                                title { (name) ", round " (round + 1) ": " (format!("{ratio:.2}")) }
                            }
                        }
                        @if let Some(spread) = Spread::of(ratios) {
                            @let x = chart::percent(scale.at(spread.median));
                            line.median x1=(x) x2=(x) y1="2" y2=(ROW - 2.0) {}
                        }
                    }
                }
            }
            div.strip.axis { span.name { "ratio" } (chart::axis(&scale)) }
        }
    }
}

/// The ratios at which an experiment begins or ends to speak for its claim.
fn bounds(experiment: &Experiment) -> Vec<f64> {
    let above = 1.0 + experiment.margin;
    match experiment.kind {
        Kind::Less => vec![1.0 / above],
        Kind::More => vec![above],
        Kind::Equal | Kind::Differ => vec![1.0 / above, above],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::rule;
    use crate::workload::Claim;

    /// All claims with numbers that a server might give.
    fn tried() -> Vec<Tried> {
        let result = |experiment: &Experiment| {
            let rounds = if experiment.is_counted() { 1 } else { 10 };
            let to: Vec<f64> = (0..rounds).map(|n| 100.0 + f64::from(n)).collect();
            let values: &[u32] = if experiment.is_counted() { &[0] } else { &experiment.values };
            let point = |&value: &u32| ClaimPoint {
                value,
                server: to.iter().map(|number| number * 3.0).collect(),
                to: to.clone(),
                ..ClaimPoint::default()
            };
            ExperimentResult {
                points: values.iter().map(point).collect(),
                ..ExperimentResult::default()
            }
        };
        let mut tried: Vec<Tried> = Claim::find(&[])
            .unwrap()
            .into_iter()
            .map(|claim| {
                let results = claim.experiments.iter().map(result).collect();
                Tried { results, ..Tried::new(claim) }
            })
            .collect();
        tried[0].results[0] =
            ExperimentResult { cannot: Some("no <ring>".into()), ..ExperimentResult::default() };
        rule(&mut tried);
        tried
    }

    #[test]
    fn every_claim_has_its_verdict_its_sentence_a_picture_and_its_command() {
        let tried = tried();
        let page = page(&Host::look(), &tried).into_string();
        let parts: Vec<&str> = page.split("<h2 id=").skip(1).collect();
        assert_eq!(parts.len(), tried.len());
        for (one, part) in tried.iter().zip(parts) {
            let name = &one.claim.name;
            assert!(part.contains(&format!("{name}: {}", one.ruling.word())), "{name}: {part}");
            assert!(part.contains(&format!("loadgen claims {name}")), "{name}");
            assert!(part.contains("class=\"dot\"") || one.ruling == Ruling::CannotRun, "{name}");
        }
        assert!(page.contains("no &lt;ring&gt;"));
    }

    #[test]
    fn the_lines_stand_where_the_verdict_changes() {
        let claims = Claim::find(&["runtime-tax".into()]).unwrap();
        let experiment = &claims[0].experiments[0];
        let point = ClaimPoint {
            value: 16,
            server: vec![1.0, 2.0],
            to: vec![1.0, 1.0],
            ..ClaimPoint::default()
        };
        let picture = ratios(experiment, &[point]).into_string();
        assert_eq!(picture.matches("class=\"knee\"").count(), 2, "{picture}");
        assert!(picture.contains("margin: 1.25") && picture.contains("margin: 0.80"), "{picture}");
        assert_eq!(picture.matches("class=\"dot\"").count(), 2);
    }
}
