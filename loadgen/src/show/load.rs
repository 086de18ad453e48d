//! Latency against load: what the response times become as the rate of an open loop rises, and
//! where the knee is, the last rate before they break away.

use maud::{Markup, html};

use super::chart::{self, Scale, Unit};
use crate::base::text::{number, time};
use crate::results::{Comparison, Section};
use crate::workload::Workload;

/// Rates from which on there is a curve to draw.
const FEWEST: usize = 3;
/// Beyond the knee p99 is more than so many times its least at lower rates.
const BREAKS_AWAY: f64 = 5.0;
/// Part of the rate asked for that must have been sent and answered.
const KEPT: f64 = 0.98;

/// One server at one rate.
#[derive(Clone, Copy, Debug)]
struct At {
    rate: f64,
    p50: f64,
    p99: f64,
    kept: bool,
}

/// Every set of points that differ in their rate alone, a panel for each server.
pub(super) fn load(comparison: &Comparison) -> Markup {
    html! {
        @for sections in curves(comparison) {
            h2 { "Response time against load: " (sections[0].workload.name) }
            p.soft {
                "Thick: p99; thin: the median; upright: the knee, the highest rate that was kept "
                "before p99 was more than " (BREAKS_AWAY) " times its least. Medians of the "
                "rounds, over messages a second, both axes logarithmic."
            }
            (panels(&sections))
        }
    }
}

/// The sections by load: those that are one workload at several rates, the lowest rate first.
fn curves(comparison: &Comparison) -> Vec<Vec<&Section>> {
    let mut curves: Vec<Vec<&Section>> = Vec::new();
    for section in comparison.sections.iter().filter(|s| s.workload.rate.is_some()) {
        let same = |curve: &&mut Vec<&Section>| alike(&curve[0].workload, &section.workload);
        match curves.iter_mut().find(same) {
            Some(curve) => curve.push(section),
            None => curves.push(vec![section]),
        }
    }
    curves.retain(|curve| curve.len() >= FEWEST);
    for curve in &mut curves {
        let rate = |section: &&Section| section.workload.rate.unwrap_or_default();
        curve.sort_by(|x, y| rate(x).total_cmp(&rate(y)));
    }
    curves
}

fn alike(one: &Workload, other: &Workload) -> bool {
    let without = |workload: &Workload| Workload { rate: None, ..workload.clone() };
    without(one) == without(other)
}

/// The points of a server; none where it gave no numbers.
fn points(sections: &[&Section], server: &str) -> Vec<At> {
    let at = |section: &&Section| {
        let row = section.rows.iter().find(|row| row.server == server)?;
        let rate = section.workload.rate?;
        let kept = row.rate.is_some_and(|sent| sent.median >= rate * KEPT);
        Some(At { rate, p50: row.p50_ns?.median, p99: row.p99_ns?.median, kept })
    };
    sections.iter().filter_map(at).collect()
}

/// The last of these, in the order of their rates, before the response times break away.
fn knee(points: &[At]) -> Option<At> {
    let mut least = f64::INFINITY;
    let mut knee = None;
    for at in points {
        least = least.min(at.p99);
        if !at.kept || at.p99 > least * BREAKS_AWAY {
            break;
        }
        knee = Some(*at);
    }
    knee
}

fn panels(sections: &[&Section]) -> Markup {
    let servers: Vec<(&str, Vec<At>)> = sections[0]
        .rows
        .iter()
        .map(|row| (row.server.as_str(), points(sections, &row.server)))
        .filter(|(_, points)| points.len() >= FEWEST)
        .collect();
    let all = || servers.iter().flat_map(|(_, points)| points);
    let high = Scale::log(Unit::Time, all().flat_map(|at| [at.p50, at.p99]), (100.0, chart::TOP));
    let wide = Scale::log(Unit::Number, all().map(|at| at.rate), (3.0, 97.0));
    html! {
        div.panels.picture {
            @for (name, points) in &servers {
                @let says = told(points);
                figure.panel data-server=(name) {
                    figcaption { b { (name) } br; (says) }
                    svg height=(chart::panel_height()) role="img"
                        aria-label={ "Response time of " (name) " against load: " (says) } {
                        (chart::levels(&high))
                        @if let Some(knee) = knee(points) {
                            @let x = chart::percent(wide.at(knee.rate));
                            line.knee x1=(x) x2=(x) y1="0" y2="100%" {}
                        }
                        (chart::stretched(html! {
                            polyline.half points=(curve(points, &wide, &high, |at| at.p50)) {}
                            polyline.own points=(curve(points, &wide, &high, |at| at.p99)) {}
                        }))
                    }
                    (chart::axis(&wide))
                }
            }
        }
    }
}

fn curve(points: &[At], wide: &Scale, high: &Scale, of: fn(&At) -> f64) -> String {
    let place = |at: &At| format!("{},{}", wide.at(at.rate), high.at(of(at)));
    points.iter().map(place).collect::<Vec<_>>().join(" ")
}

/// The knee in words.
fn told(points: &[At]) -> String {
    let per_second = |at: &At| format!("{}/s", number(at.rate));
    let Some(knee) = knee(points) else {
        return "keeps none of these rates".into();
    };
    match points.iter().find(|at| at.rate > knee.rate) {
        None => format!("no knee up to {}: p99 {}", per_second(&knee), time(knee.p99)),
        Some(next) if !next.kept => {
            format!(
                "knee at {}: p99 {}; does not keep {}",
                per_second(&knee),
                time(knee.p99),
                per_second(next)
            )
        }
        Some(next) => format!(
            "knee at {}: p99 {}, and {} at {}",
            per_second(&knee),
            time(knee.p99),
            time(next.p99),
            per_second(next)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rate: f64, p99: f64, kept: bool) -> At {
        At { rate, p50: p99 / 2.0, p99, kept }
    }

    #[test]
    fn the_knee_is_the_last_rate_before_response_times_break_away() {
        let rising = [
            at(1e3, 2e5, true),
            at(1e4, 1e5, true),
            at(2e4, 4.9e5, true),
            at(4e4, 9e6, true),
            at(8e4, 1e5, true),
        ];
        assert_eq!(knee(&rising).map(|at| at.rate), Some(2e4));
        assert_eq!(told(&rising), "knee at 20,000/s: p99 490 µs, and 9.00 ms at 40,000/s");
        let lost = [at(1e3, 1e5, true), at(1e4, 1e5, false), at(2e4, 1e5, true)];
        assert_eq!(told(&lost), "knee at 1,000/s: p99 100 µs; does not keep 10,000/s");
        assert_eq!(told(&lost[..1]), "no knee up to 1,000/s: p99 100 µs");
        assert_eq!(told(&lost[1..]), "keeps none of these rates");
    }

    #[test]
    fn points_that_differ_in_more_than_their_rate_are_no_curve() {
        let section = |name: &str, connections: u32, rate: f64| {
            let second = std::time::Duration::from_secs(1);
            let changes = crate::workload::Changes {
                connections: Some(connections),
                rate: Some(rate),
                ..Default::default()
            };
            let workload = Workload::find(name, &changes, second, second).unwrap();
            let spread =
                |value: f64| serde_json::json!({ "median": value, "low": value, "high": value });
            serde_json::json!({
                "workload": workload, "rounds": 1, "ranked_by": "CPU per message", "pairs": [],
                "rows": [{ "server": "one", "rank": 1, "shared": false, "status": "VALID",
                    "reasons": [], "measure": [1.0], "rate": spread(rate),
                    "p50_ns": spread(1e5), "p99_ns": spread(if rate > 1500.0 { 9e6 } else { 2e5 }),
                }],
            })
        };
        let comparison: Comparison = serde_json::from_value(serde_json::json!({
            "rounds": 1, "servers": [], "left_out": [], "interrupted": false,
            "sections": [
                section("open-loop", 64, 2000.0), section("open-loop", 32, 100.0),
                section("open-loop", 64, 500.0), section("open-loop", 64, 1000.0),
            ],
        }))
        .unwrap();
        let found = curves(&comparison);
        let rates: Vec<_> = found.iter().map(|c| c.iter().map(|s| s.workload.rate)).collect();
        assert_eq!(rates.len(), 1);
        assert_eq!(rates[0].clone().flatten().collect::<Vec<_>>(), [500.0, 1000.0, 2000.0]);
        let page = load(&comparison).into_string();
        assert!(page.contains("knee at 1,000/s: p99 200 µs, and 9.00 ms at 2,000/s"), "{page}");
        assert_eq!(page.matches("class=\"knee\"").count(), 1);
    }
}
