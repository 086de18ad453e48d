//! The pictures of a page, as SVG within its HTML.
//!
//! They are markup of our own and not a plotting library's, because they take their colours from
//! the page's style sheet (light, dark, print), need no script, and every dot says what it is when
//! it is pointed at.
//!
//! **Text keeps its size.** A drawing that is scaled as a whole is unreadable on a narrow screen.
//! So places are percentages of the width that there is, heights and letters are in pixels, and
//! only curves stand in an inner drawing that is stretched, whose lines keep their width. Names
//! stand beside a drawing as text of the page.
//!
//! What belongs to a server has its name in `data-server`: so the page can follow it.

use hdrhistogram::Histogram;
use maud::{Markup, html};

use crate::base::text::{bytes, number, time};
use crate::results::Spread;

/// Height of one server's strip in pixels, and of the axis below all of them.
const ROW: f64 = 22.0;
const AXIS: f64 = 18.0;
/// Height of a small panel's plot in pixels.
const PANEL: f64 = 96.0;
/// Where a panel's highest value stands, in percent of its plot: above it is room for a label.
pub(super) const TOP: f64 = 14.0;
/// The quantile axis ends at 99.999 %: so many nines.
const NINES: f64 = 5.0;
/// Points of a latency curve.
const POINTS: u32 = 60;
/// Largest value by smallest above which an axis is logarithmic.
const WIDE: f64 = 8.0;
/// Labels that an axis has at most: more do not fit a narrow screen.
const LABELS: usize = 5;

/// What is measured: how a value reads, and which numbers are round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nanoseconds, in tens.
    Time,
    /// Bytes, in twos.
    Bytes,
    /// A plain number, in tens.
    Number,
}

impl Unit {
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Self::Time => time(value),
            Self::Bytes => bytes(value),
            Self::Number => number(value),
        }
    }

    /// For an axis, without the zeros that only show precision.
    fn tick(self, value: f64) -> String {
        let text = self.text(value);
        let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
        let number = if number.contains('.') { number.trim_end_matches('0') } else { number };
        format!("{} {unit}", number.trim_end_matches('.')).trim_end().to_owned()
    }
}

/// From values to places on an axis, in percent of its length.
pub(super) struct Scale {
    unit: Unit,
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// Of these values, from place `from` to `to`; linear and from zero, unless they differ widely.
    pub(super) fn of(
        unit: Unit,
        values: impl Iterator<Item = f64>,
        (from, to): (f64, f64),
    ) -> Self {
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

    /// The same, logarithmic however little the values differ.
    pub(super) fn log(
        unit: Unit,
        values: impl Iterator<Item = f64>,
        (from, to): (f64, f64),
    ) -> Self {
        let scale = Self::of(unit, values, (from, to));
        let low = if scale.log { scale.low } else { scale.high / (2.0 * WIDE) };
        Self { log: true, low: low.max(scale.high / 1e9), ..scale }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        place(self.from + part * (self.to - self.from))
    }

    /// Round values to label: a handful.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks = self.round_values();
        while ticks.len() > LABELS {
            ticks = ticks.into_iter().step_by(2).collect();
        }
        ticks
    }

    fn round_values(&self) -> Vec<f64> {
        if !self.log {
            let rough = (self.high - self.low) / 4.0;
            let power = 10_f64.powf(rough.log10().floor());
            let mut steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter();
            let step = match self.unit {
                Unit::Time | Unit::Number => steps.find(|step| *step >= rough).unwrap_or(rough),
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
            _ if self.high / self.low < 100.0 => ticks(10.0, &[1.0, 2.0, 5.0]),
            _ => ticks(10.0, &[1.0]),
        }
    }
}

/// One strip for each server with a dot for each round, so that noise is seen.
pub(super) fn rounds(title: &str, rows: &[(&str, &[f64])], unit: Unit) -> Markup {
    let all = rows.iter().flat_map(|(_, rounds)| rounds.iter().copied());
    let scale = Scale::of(unit, all, (2.0, 96.0));
    html! {
        div.strips.picture role="img" aria-label=(title) {
            @for (name, rounds) in rows {
                div.strip data-server=(name) {
                    span.name { (name) }
                    svg height=(ROW) {
                        (grid_across(&scale, ROW))
                        @for (round, value) in rounds.iter().enumerate() {
                            circle.dot cx=(percent(scale.at(*value))) cy=(ROW / 2.0) r="4" {
                                title { (name) ", round " (round + 1) ": " (unit.text(*value)) }
                            }
                        }
                        @if let Some(spread) = Spread::of(rounds) {
                            @let x = percent(scale.at(spread.median));
                            line.median x1=(x) x2=(x) y1="2" y2=(ROW - 2.0) {}
                        }
                    }
                }
            }
            div.strip.axis { span.name {} (axis(&scale)) }
        }
    }
}

/// Upright lines at the round values.
pub(super) fn grid_across(scale: &Scale, height: f64) -> Markup {
    html! {
        @for tick in scale.ticks() {
            @let x = percent(scale.at(tick));
            line.grid x1=(x) x2=(x) y1="0" y2=(height) {}
        }
    }
}

/// The round values below a plot.
pub(super) fn axis(scale: &Scale) -> Markup {
    html! {
        svg height=(AXIS) {
            @for tick in scale.ticks() {
                @let at = scale.at(tick);
                // The last one must not stand out of the drawing, nor the first one.
                @let anchor = if at > 85.0 { "end" } else if at < 8.0 { "start" } else { "middle" };
                text.tick x=(percent(at)) y="13" text-anchor=(anchor) { (scale.unit.tick(tick)) }
            }
        }
    }
}

/// A panel for each latency distribution, all on the same axes, with the others faint behind it.
/// `id` tells this set of panels from all others of the page.
pub(super) fn latencies(id: &str, all: &[(String, Histogram<u64>)]) -> Markup {
    let ends = all.iter().flat_map(|(_, h)| [h.value_at_quantile(0.01), h.max()]);
    let scale = Scale::log(Unit::Time, ends.map(|value| value as f64), (100.0, TOP));
    let curves: Vec<String> = all.iter().map(|(_, h)| curve(h, &scale)).collect();
    html! {
        svg.defs aria-hidden="true" {
            symbol id=(id) viewBox="0 0 100 100" preserveAspectRatio="none" {
                @for curve in &curves { polyline.other points=(curve) {} }
            }
        }
        div.panels.picture {
            @for ((name, histogram), curve) in all.iter().zip(&curves) {
                @let of = |q| time(histogram.value_at_quantile(q) as f64);
                @let says = format!(
                    "p50 {}, p99 {}, p99.9 {}, max {}",
                    of(0.5), of(0.99), of(0.999), time(histogram.max() as f64)
                );
                figure.panel data-server=(name) {
                    figcaption { b { (name) } br; (says) }
                    svg height=(PANEL + AXIS) role="img"
                        aria-label={ "Latency of " (name) ": " (says) } {
                        @for (nines, share) in NINES_SHOWN {
                            @let x = percent(across(nines));
                            line.grid x1=(x) x2=(x) y1="0" y2=(PANEL) {}
                            text.tick x=(x) y=(PANEL + 13.0) text-anchor="middle" { (share) }
                        }
                        (levels(&scale))
                        (stretched(html! {
                            use href={ "#" (id) } width="100" height="100" {}
                            polyline.own points=(curve) {}
                        }))
                    }
                }
            }
        }
    }
}

/// Quantiles that have a label.
const NINES_SHOWN: [(f64, &str); 2] = [(1.0, "90 %"), (3.0, "99.9 %")];

/// The height of a panel's plot, within which places are percentages.
pub(super) fn panel_height() -> f64 {
    PANEL
}

/// Level lines of a panel with their values, which stand on them: so the curves have the whole
/// width.
pub(super) fn levels(scale: &Scale) -> Markup {
    html! {
        @for tick in scale.ticks() {
            @let y = place(scale.at(tick) / 100.0 * PANEL);
            line.grid x1="0" x2="100%" y1=(y) y2=(y) {}
            text.tick x="1" y=(place(y - 3.0)) { (scale.unit.tick(tick)) }
        }
    }
}

/// Curves whose places are percentages of a panel's plot.
pub(super) fn stretched(curves: Markup) -> Markup {
    html! {
        svg width="100%" height=(PANEL) viewBox="0 0 100 100" preserveAspectRatio="none" {
            (curves)
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
        format!("{},{}", place(across(nines)), scale.at(value))
    });
    points.collect::<Vec<_>>().join(" ")
}

fn across(nines: f64) -> f64 {
    nines / NINES * 98.0 + 1.0
}

pub(super) fn percent(place: f64) -> String {
    format!("{place}%")
}

/// A tenth of a percent is enough.
fn place(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_the_order_of_values() {
        let cases = [vec![3.0, 4.0, 5.0], vec![1.0, 10.0, 1000.0], vec![7.0]];
        let units = [Unit::Time, Unit::Bytes, Unit::Number];
        for (values, unit) in cases.iter().flat_map(|v| units.map(|unit| (v, unit))) {
            let scale = Scale::of(unit, values.iter().copied(), (10.0, 90.0));
            let places: Vec<f64> = values.iter().map(|value| scale.at(*value)).collect();
            assert!(places.is_sorted() && places.iter().all(|x| (10.0..=90.0).contains(x)));
            let ticks = scale.ticks();
            assert!((2..=LABELS).contains(&ticks.len()), "{values:?}: {ticks:?}");
        }
        assert!(Scale::of(Unit::Time, std::iter::empty(), (0.0, 1.0)).ticks().len() > 1);
        assert_eq!([Unit::Time.tick(0.0), Unit::Bytes.tick(4096.0)], ["0 ns", "4 KiB"]);
        assert_eq!(Unit::Number.tick(20_000.0), "20,000");
    }

    /// The points of a page's curves of this class.
    fn points(page: &str, class: &str) -> Vec<(f64, f64)> {
        let points = page.split(&format!("class=\"{class}\" points=\"")).nth(1).unwrap();
        let points = points.split('"').next().unwrap().split(' ');
        let point = |point: &str| {
            let (x, y) = point.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        points.map(point).collect()
    }

    #[test]
    fn a_curve_stays_in_its_panel() {
        let mut histogram = crate::drive::histogram();
        histogram.record_n(10_000, 100_000).unwrap();
        histogram.record(90_000_000_000).unwrap();
        let page = latencies("a", &[("slow".into(), histogram)]).into_string();
        for (x, y) in points(&page, "own") {
            assert!((0.0..=100.0).contains(&x) && (0.0..=100.0).contains(&y), "{x}, {y}");
        }
    }

    /// A drawing that is scaled as a whole scales its letters too.
    #[test]
    fn no_text_stands_in_a_drawing_that_is_stretched() {
        let mut histogram = crate::drive::histogram();
        histogram.record_n(10_000, 1000).unwrap();
        let strips = rounds("a", &[("one", &[1.0, 2.0])], Unit::Time).into_string();
        let panels = latencies("a", &[("one".into(), histogram)]).into_string();
        assert!(strips.contains("<text") && !strips.contains("viewBox"), "{strips}");
        for drawing in panels.split("viewBox").skip(1) {
            let drawing = drawing.split("</s").next().unwrap();
            assert!(!drawing.contains("<text"), "{drawing}");
        }
    }
}
