//! The pictures of a report, as SVG within its HTML.
//!
//! They are markup of our own and not a plotting library's, because they take their colours from
//! the page's style sheet (light, dark, print), need no script, and every dot says what it is when
//! it is pointed at.

use hdrhistogram::Histogram;
use maud::{Markup, html};

use crate::stats::Spread;
use crate::table::{bytes, time};

/// Width of a strip of rounds, and of the names before it.
const STRIP: (f64, f64) = (900.0, 200.0);
/// Height of one server's strip.
const ROW: f64 = 24.0;
/// Size of a latency panel, and of its left and lower margin.
const PANEL: (f64, f64) = (280.0, 170.0);
const MARGIN: (f64, f64) = (52.0, 22.0);
/// The quantile axis ends at 99.999 %: so many nines.
const NINES: f64 = 5.0;
/// Points of a latency curve.
const POINTS: u32 = 60;
/// Largest value by smallest above which an axis is logarithmic.
const WIDE: f64 = 8.0;

/// What is measured: how a value reads, and which numbers are round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nanoseconds, in tens.
    Time,
    /// Bytes, in twos.
    Bytes,
}

impl Unit {
    fn text(self, value: f64) -> String {
        match self {
            Self::Time => time(value),
            Self::Bytes => bytes(value),
        }
    }

    /// For an axis, without the zeros that only show precision.
    fn tick(self, value: f64) -> String {
        let text = self.text(value);
        let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
        let number = if number.contains('.') { number.trim_end_matches('0') } else { number };
        format!("{} {unit}", number.trim_end_matches('.'))
    }
}

/// From values to places on an axis.
struct Scale {
    unit: Unit,
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// Of these values, from place `from` to `to`; linear and from zero, unless they differ widely.
    fn of(unit: Unit, values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Self {
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high, log) = match high / low {
            wide if wide > WIDE => (low / 1.2, high * 1.2, true),
            wide if wide >= 1.0 => (0.0, high * 1.05, false),
            // No values at all.
            _ => (0.0, 1.0, false),
        };
        Self { unit, low, high, log, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part * (self.to - self.from)
    }

    /// Round values to label: a handful.
    fn ticks(&self) -> Vec<f64> {
        if !self.log {
            let rough = (self.high - self.low) / 6.0;
            let power = 10_f64.powf(rough.log10().floor());
            let mut steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter();
            let step = match self.unit {
                Unit::Time => steps.find(|step| *step >= rough).unwrap_or(rough),
                Unit::Bytes => rough.log2().ceil().exp2(),
            };
            return (0..=(self.high / step) as u32).map(|n| f64::from(n) * step).collect();
        }
        let within = |value: &f64| (self.low..=self.high).contains(value);
        let ticks = |base: f64, steps: &[f64]| -> Vec<f64> {
            let powers = self.low.log(base).floor() as i32..=self.high.log(base).ceil() as i32;
            let of = |power: i32| steps.iter().map(move |step| step * base.powi(power));
            powers.flat_map(of).filter(within).collect()
        };
        match self.unit {
            Unit::Bytes => ticks(4.0, &[1.0]),
            Unit::Time if self.high / self.low < 1000.0 => ticks(10.0, &[1.0, 2.0, 5.0]),
            Unit::Time => ticks(10.0, &[1.0]),
        }
    }
}

/// One strip for each server with a dot for each round, so that noise is seen.
pub(super) fn rounds(title: &str, rows: &[(&str, &[f64])], unit: Unit) -> Markup {
    let all = rows.iter().flat_map(|(_, rounds)| rounds.iter().copied());
    let scale = Scale::of(unit, all, (STRIP.1, STRIP.0 - 20.0));
    let height = ROW * rows.len() as f64 + 28.0;
    let (bottom, end) = (height - 22.0, height - 6.0);
    html! {
        svg.rounds viewBox={ "0 0 " (STRIP.0) " " (height) } role="img" aria-label=(title) {
            title { (title) }
            @for tick in scale.ticks() {
                @let x = place(scale.at(tick));
                line.grid x1=(x) x2=(x) y1="0" y2=(bottom) {}
                text.tick x=(x) y=(end) text-anchor="middle" { (unit.tick(tick)) }
            }
            @for (n, (name, rounds)) in rows.iter().enumerate() {
                @let y = ROW * (n as f64 + 0.5);
                text.name x=(STRIP.1 - 12.0) y=(y + 4.0) text-anchor="end" { (name) }
                @for (round, value) in rounds.iter().enumerate() {
                    circle.dot cx=(place(scale.at(*value))) cy=(y) r="4" {
                        title { (name) ", round " (round + 1) ": " (unit.text(*value)) }
                    }
                }
                @if let Some(spread) = Spread::of(rounds) {
                    @let x = place(scale.at(spread.median));
                    line.median x1=(x) x2=(x) y1=(y - 9.0) y2=(y + 9.0) {}
                }
            }
        }
    }
}

/// A panel for each latency distribution, all on the same axes, with the others faint behind it.
/// `id` tells this set of panels from all others of the page.
pub(super) fn latencies(id: &str, all: &[(String, Histogram<u64>)]) -> Markup {
    let ends = all.iter().flat_map(|(_, h)| [h.value_at_quantile(0.01), h.max()]);
    let values = ends.map(|value| value as f64);
    let scale = Scale { log: true, ..Scale::of(Unit::Time, values, (PANEL.1 - MARGIN.1, 8.0)) };
    let scale = Scale { low: scale.low.max(scale.high / 1e9), ..scale };
    let curves: Vec<String> = all.iter().map(|(_, h)| curve(h, &scale)).collect();
    html! {
        svg.defs aria-hidden="true" {
            symbol id=(id) viewBox={ "0 0 " (PANEL.0) " " (PANEL.1) } {
                (axes(&scale))
                @for curve in &curves { polyline.other points=(curve) {} }
            }
        }
        div.panels {
            @for ((name, histogram), curve) in all.iter().zip(&curves) {
                @let of = |q| time(histogram.value_at_quantile(q) as f64);
                @let says = format!(
                    "p50 {}, p99 {}, p99.9 {}, max {}",
                    of(0.5), of(0.99), of(0.999), time(histogram.max() as f64)
                );
                figure {
                    figcaption { b { (name) } br; (says) }
                    svg viewBox={ "0 0 " (PANEL.0) " " (PANEL.1) } role="img"
                        aria-label={ "Latency of " (name) ": " (says) } {
                        title { (name) ": " (says) }
                        use href={ "#" (id) } {}
                        polyline.own points=(curve) {}
                    }
                }
            }
        }
    }
}

/// Time against nines: 0 is the fastest, 1 is 90 %, 2 is 99 % and so on.
fn curve(histogram: &Histogram<u64>, scale: &Scale) -> String {
    // Beyond the last value there is nothing to draw.
    let last = NINES.min((histogram.len().max(1) as f64).log10());
    let points = (0..=POINTS).map(|n| {
        let nines = last * f64::from(n) / f64::from(POINTS);
        let value = histogram.value_at_quantile(1.0 - 10_f64.powf(-nines)) as f64;
        format!("{},{}", place(across(nines)), place(scale.at(value)))
    });
    points.collect::<Vec<_>>().join(" ")
}

fn across(nines: f64) -> f64 {
    MARGIN.0 + nines / NINES * (PANEL.0 - MARGIN.0 - 10.0)
}

fn axes(scale: &Scale) -> Markup {
    let percents = [(1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9"), (4.0, "99.99")];
    let bottom = PANEL.1 - MARGIN.1;
    html! {
        @for (nines, percent) in percents {
            @let x = place(across(nines));
            line.grid x1=(x) x2=(x) y1="8" y2=(bottom) {}
            text.tick x=(x) y=(bottom + 16.0) text-anchor="middle" { (percent) }
        }
        @for tick in scale.ticks() {
            @let y = place(scale.at(tick));
            line.grid x1=(MARGIN.0) x2=(PANEL.0 - 10.0) y1=(y) y2=(y) {}
            text.tick x=(MARGIN.0 - 6.0) y=(y + 4.0) text-anchor="end" {
                (scale.unit.tick(tick))
            }
        }
    }
}

/// A tenth of a pixel is enough.
fn place(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_the_order_of_values() {
        let cases = [vec![3.0, 4.0, 5.0], vec![1.0, 10.0, 1000.0], vec![7.0]];
        for (values, unit) in cases.iter().flat_map(|v| [(v, Unit::Time), (v, Unit::Bytes)]) {
            let scale = Scale::of(unit, values.iter().copied(), (100.0, 900.0));
            let places: Vec<f64> = values.iter().map(|value| scale.at(*value)).collect();
            assert!(places.is_sorted() && places.iter().all(|x| (100.0..=900.0).contains(x)));
            let ticks = scale.ticks();
            assert!((2..=12).contains(&ticks.len()), "{values:?}: {ticks:?}");
        }
        assert!(Scale::of(Unit::Time, std::iter::empty(), (0.0, 1.0)).ticks().len() > 1);
        assert_eq!([Unit::Time.tick(0.0), Unit::Bytes.tick(4096.0)], ["0 ns", "4 KiB"]);
    }

    #[test]
    fn a_curve_stays_in_its_panel() {
        let mut histogram = crate::drive::histogram();
        histogram.record_n(10_000, 100_000).unwrap();
        histogram.record(90_000_000_000).unwrap();
        let page = latencies("a", &[("slow".into(), histogram)]).into_string();
        let points = page.split("class=\"own\" points=\"").nth(1).unwrap();
        for point in points.split('"').next().unwrap().split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y) = (x.parse::<f64>().unwrap(), y.parse::<f64>().unwrap());
            assert!((MARGIN.0..PANEL.0).contains(&x) && (0.0..PANEL.1).contains(&y), "{point}");
        }
    }
}
