//! What happened when: the rounds of a comparison, or the seconds of a run, with the spells in
//! which the machine was slow or the answers were.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use maud::{Markup, html};

use super::chart::{self, Scale, Unit};
use super::words;
use crate::base::text;
use crate::measure::{Measured, Report};
use crate::record::Stored;
use crate::results::{Comparison, Section, Spread};

/// Height of a strip in pixels.
const HEIGHT: f64 = 64.0;
/// The most that a run may differ from its server's median to be drawn in its place, as a factor;
/// what differs more is drawn at the edge.
const FARTHEST: f64 = 2.0;
/// Part of the time, from 0 to 1, above which a round is a slow spell: the rule of a run's verdict.
const SLOW: f64 = 0.01;
/// A second is slow if its p99 is more than so many times the median second's.
const SLOW_SECOND: f64 = 3.0;

/// One run on the timeline.
struct At<'a> {
    round: u32,
    server: &'a str,
    /// Seconds since 1970.
    began: f64,
    lasted: f64,
    /// Its CPU per message by the median of its server's.
    cost: f64,
    /// Part of the time in which the machine was not as it should be.
    disturbed: f64,
}

/// The rounds of a comparison, point by point: what each server cost beside its own median.
pub(super) fn rounds(record: &Stored, comparison: &Comparison) -> Markup {
    let points: Vec<(usize, Vec<At>)> = comparison
        .sections
        .iter()
        .enumerate()
        .map(|(n, section)| (n, runs(record, section)))
        .filter(|(_, runs)| !runs.is_empty())
        .collect();
    let all = || points.iter().flat_map(|(_, runs)| runs);
    let first = all().map(|run| run.began).fold(f64::INFINITY, f64::min);
    let last = all().map(|run| run.began + run.lasted).fold(0.0, f64::max);
    let minutes = |at: f64| (at - first) / 60.0;
    let scale = Scale::of(Unit::Number, std::iter::once(minutes(last)), (1.0, 98.0));
    html! {
        @if !points.is_empty() {
            h2 { "When it was measured" }
            p.soft {
                "Each dot is a round of a server: on the line it cost what it usually did, at the "
                "upper edge twice that. Shaded: slow spells, rounds in which the processors were "
                "slow or taken by others for more than a hundredth of the time; the darker, the "
                "more."
            }
            div.strips.picture role="img" aria-label="Cost of every round over time, by load" {
                @for (n, runs) in &points {
                    div.strip.tall {
                        @let name = &comparison.sections[*n].workload.name;
                        span.name { (words::letter(*n)) ". " (name) }
                        (strip(runs, &|at| scale.at(minutes(at))))
                    }
                }
                div.strip.axis { span.name { "minutes" } (chart::axis(&scale)) }
            }
            (spells(&points))
        }
    }
}

/// The runs of a point that can be drawn.
fn runs<'a>(record: &'a Stored, section: &Section) -> Vec<At<'a>> {
    let own = record.runs.iter().filter(|(_, run)| run.workload == section.workload);
    let known: Vec<_> = own
        .filter_map(|(round, run)| Some((*round, run, run.measured.as_ref()?)))
        .filter_map(|(round, run, m)| Some((round, run, m, m.cost.as_ref()?.cpu_ns_per_message)))
        .collect();
    let mut costs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (_, run, _, cost) in &known {
        costs.entry(&run.server).or_default().push(*cost);
    }
    let place = |(round, run, measured, cost): (u32, &'a Report, &Measured, f64)| {
        let usual = Spread::of(&costs[run.server.as_str()])?.median;
        let began = humantime::parse_rfc3339_weak(&measured.began).ok()?;
        let disturbed =
            [measured.slow_processors, measured.stolen_processors, measured.taken_processors];
        Some(At {
            round,
            server: &run.server,
            began: began.duration_since(UNIX_EPOCH).ok()?.as_secs_f64(),
            lasted: measured.window_seconds,
            cost: cost / usual.max(f64::MIN_POSITIVE),
            disturbed: disturbed.into_iter().flatten().fold(0.0, f64::max),
        })
    };
    known.into_iter().filter_map(place).collect()
}

/// For each round when it began and ended (its servers took turns, or followed each other), and
/// the most that one of its runs was disturbed.
fn bands(runs: &[At]) -> Vec<(f64, f64, f64)> {
    let mut rounds: BTreeMap<u32, Vec<&At>> = BTreeMap::new();
    for run in runs {
        rounds.entry(run.round).or_default().push(run);
    }
    let band = |runs: &Vec<&At>| {
        let began = runs.iter().map(|run| run.began).fold(f64::INFINITY, f64::min);
        let lasted: f64 = runs.iter().map(|run| run.lasted).sum();
        let parts: Vec<f64> = runs.iter().map(|run| run.disturbed).collect();
        (began, began + lasted, Spread::of(&parts).map_or(0.0, |part| part.median))
    };
    rounds.values().map(band).collect()
}

fn strip(runs: &[At], across: &dyn Fn(f64) -> f64) -> Markup {
    let height = |cost: f64| {
        let part = cost.clamp(1.0 / FARTHEST, FARTHEST).log(FARTHEST);
        ((1.0 - part) / 2.0 * (HEIGHT - 8.0) + 4.0).round()
    };
    html! {
        svg height=(HEIGHT) {
            @let slow = bands(runs).into_iter().filter(|(.., part)| *part > SLOW);
            @for (from, to, disturbed) in slow {
                @let wide = (across(to) - across(from)).max(0.3);
                @let strength = (0.15 + disturbed * 2.0).min(0.6);
                rect.slow x=(chart::percent(across(from))) width=(format!("{wide:.1}%")) y="0"
                    height=(HEIGHT) fill-opacity=(format!("{strength:.2}")) {
                    title { "slow spell: " (text::percent(disturbed)) " of the time" }
                }
            }
            line.grid x1="0" x2="100%" y1=(height(1.0)) y2=(height(1.0)) {}
            @for run in runs {
                circle.moment data-server=(run.server) cx=(chart::percent(across(run.began)))
                    cy=(height(run.cost)) r="2.5" {
                    title {
                        (run.server) ", round " (run.round + 1) ": " (format!("{:.2}", run.cost))
                        " times its usual cost"
                    }
                }
            }
        }
    }
}

/// The slow spells in words, for those who see no picture.
fn spells(points: &[(usize, Vec<At>)]) -> Markup {
    let told = points.iter().filter_map(|(n, runs)| {
        let bands = bands(runs);
        let slow: Vec<f64> = bands.iter().map(|band| band.2).filter(|part| *part > SLOW).collect();
        let most = slow.iter().copied().fold(0.0, f64::max);
        let (letter, rounds) = (words::letter(*n), bands.len());
        let spells = format!("{letter} in {} of {rounds} rounds", slow.len());
        (!slow.is_empty()).then(|| format!("{spells} (at most {})", text::percent(most)))
    });
    let told: Vec<String> = told.collect();
    html! {
        p.soft {
            @if told.is_empty() { "There was no slow spell." }
            @else { "Slow spells: " (told.join(", ")) "." }
        }
    }
}

/// The seconds of a run: messages and p99 of each, slow ones marked. Nothing for a single second.
pub(super) fn seconds(report: &Report) -> Markup {
    let seconds = report.measured.as_ref().map_or(&[][..], |measured| &measured.seconds);
    let p99: Vec<f64> = seconds.iter().map(|s| s.p99(0).unwrap_or(0) as f64).collect();
    let usual = Spread::of(&p99).map_or(0.0, |spread| spread.median);
    let most = seconds.iter().map(|second| second.messages).max().unwrap_or(0).max(1);
    let scale = Scale::of(Unit::Time, p99.iter().copied(), (HEIGHT - 4.0, 4.0));
    let wide = 100.0 / seconds.len().max(1) as f64;
    let slow = |value: f64| value > usual * SLOW_SECOND;
    let slow_ones = p99.iter().filter(|value| slow(**value)).count();
    html! {
        @if seconds.len() > 1 {
            h2 { "Second by second" }
            p.soft {
                (seconds.len()) " seconds, of which " (slow_ones) " are slow: their p99 is more "
                "than " (SLOW_SECOND) " times that of the median second, which is " (text::time(usual)) "."
            }
            div.strips.picture role="img" aria-label="Messages and p99 of every second" {
                div.strip.tall {
                    span.name { "messages" }
                    svg height=(HEIGHT) {
                        @for (n, second) in seconds.iter().enumerate() {
                            @let high = second.messages as f64 / most as f64 * (HEIGHT - 4.0);
                            @let top = format!("{:.0}", HEIGHT - high);
                            rect.block x=(format!("{:.2}%", n as f64 * wide))
                                width=(format!("{:.2}%", wide * 0.85)) y=(top)
                                height=(format!("{high:.0}")) {
                                title { "second " (n + 1) ": " (text::thousands(second.messages)) }
                            }
                        }
                    }
                }
                div.strip.tall {
                    span.name { "p99" }
                    svg height=(HEIGHT) {
                        @for (n, value) in p99.iter().enumerate() {
                            @if slow(*value) {
                                rect.slow x=(format!("{:.2}%", n as f64 * wide)) y="0"
                                    width=(format!("{wide:.2}%")) height=(HEIGHT)
                                    fill-opacity="0.4" {}
                            }
                            circle.dot cx=(format!("{:.2}%", (n as f64 + 0.45) * wide))
                                cy=(scale.at(*value)) r="4" {
                                title { "second " (n + 1) ": " (text::time(*value)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_a_slow_spell_where_most_of_its_runs_were_slow() {
        let run = |round, began, disturbed| At {
            round,
            server: "one",
            began,
            lasted: 0.5,
            cost: 1.0,
            disturbed,
        };
        let quiet = [run(0, 10.0, 0.0), run(0, 10.0, 0.0), run(0, 10.0, 0.9)];
        let slow = [run(1, 20.0, 0.2), run(1, 20.0, 0.3), run(1, 20.0, 0.0)];
        let runs: Vec<At> = quiet.into_iter().chain(slow).collect();
        assert_eq!(bands(&runs), [(10.0, 11.5, 0.0), (20.0, 21.5, 0.2)]);
        let drawn = strip(&runs, &|at| at).into_string();
        assert_eq!(drawn.matches("class=\"slow\"").count(), 1, "{drawn}");
        let told = spells(&[(0, runs)]).into_string();
        assert!(told.contains("A in 1 of 2 rounds (at most 20.0 %)"), "{told}");
    }
}
