//! Pictures of a record for documents: SVG files of their own, light and dark.
//!
//! A document shows a picture at the width it has, so there is one for wide screens and one for
//! narrow ones, whose letters are as large as the document's. What a picture says stands in its
//! `title` and `desc` too.

use std::path::Path;

use anyhow::{Context, Result, bail};
use maud::{Markup, PreEscaped, html};

use super::map::beside_best;
use super::{answer, words};
use crate::base::text::number;
use crate::record::Stored;
use crate::results::{Comparison, Section};

/// Names of the two dresses, and their colours: background, letters, faint letters, lines, marks.
const DRESSES: [(&str, [&str; 5]); 2] = [
    ("light", ["#ffffff", "#1b1f24", "#59636e", "#d1d9e0", "#0b5cad"]),
    ("dark", ["#0d1117", "#e6e9ec", "#a0a9b2", "#353c44", "#6db3f8"]),
];
/// The shapes of the map: its name, its width, and how many points stand beside each other.
const SHAPES: [(&str, f64, usize); 2] = [("map", 860.0, 3), ("map-narrow", 360.0, 1)];
/// Width of the names before the plots.
const NAMES: f64 = 128.0;
/// Height of a server's row, of a point's heading, and of the axis below it.
const ROW: f64 = 17.0;
const HEADING: f64 = 40.0;
const AXIS: f64 = 26.0;
/// Between two plots; height of a line of text; width of a letter, rather too much.
const GAP: f64 = 18.0;
const LINE: f64 = 15.0;
const LETTER: f64 = 7.0;
/// What the map shows.
const LEGEND: &str = "CPU time for each message, as a multiple of the best server's at the same \
     load. A ring: not shown to differ from the best.";
/// Width and height of the preview that pages show which link to the project.
const PREVIEW: (f64, f64) = (1280.0, 640.0);

/// Writes all pictures of a record into a folder, and says which.
pub fn pictures(record: &Stored, dir: &Path) -> Result<Vec<String>> {
    let Some(comparison) = &record.comparison else {
        bail!("{} is no comparison, and only of those there are pictures", record.dir.display());
    };
    let points: Vec<&Section> = words::mapped(comparison).into_iter().map(|(_, s)| s).collect();
    let servers = servers(comparison, &points);
    if servers.is_empty() {
        bail!("{}: no server is ranked by CPU per message", record.dir.display());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut names = Vec::new();
    let mut write = |name: String, picture: Markup| -> Result<()> {
        let path = dir.join(&name);
        let text = format!("{}\n", picture.into_string());
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        names.push(name);
        Ok(())
    };
    for (dress, colours) in DRESSES {
        for (name, width, across) in SHAPES {
            let map = map(&points, &servers, width, across, colours);
            write(format!("{name}-{dress}.svg"), map)?;
        }
    }
    let preview = preview(record, comparison, &points, &servers);
    write("preview.svg".to_owned(), preview)?;
    Ok(names)
}

/// Those of this workspace in the order of the map, or all if there are none.
fn servers<'a>(comparison: &Comparison, points: &[&'a Section]) -> Vec<&'a str> {
    let numbered: Vec<(usize, &'a Section)> = points.iter().copied().enumerate().collect();
    let ranked = words::ranked(&numbered);
    let ours = |name: &&str| comparison.servers.iter().any(|s| s.name == *name && s.ours);
    let own: Vec<&str> = ranked.iter().copied().filter(ours).collect();
    if own.is_empty() { ranked } else { own }
}

/// What a server takes beside the best of a point; 1 for the best itself.
fn ratio(section: &Section, server: &str) -> Option<f64> {
    let best = section.rows.first().filter(|row| row.rank.is_some())?;
    if best.server == server {
        return Some(1.0);
    }
    beside_best(section, server).map(|(ratio, _)| ratio.ratio)
}

/// From ratios to places, logarithmic from a little less than the least.
struct Scale {
    low: f64,
    high: f64,
    width: f64,
}

impl Scale {
    fn of(points: &[&Section], servers: &[&str], width: f64) -> Self {
        let all = points.iter().flat_map(|point| servers.iter().filter_map(|s| ratio(point, s)));
        let (low, high) = all
            .fold((1.0, 2.0), |(low, high): (f64, f64), ratio| (low.min(ratio), high.max(ratio)));
        Self { low: low / 1.15, high: high * 1.15, width }
    }

    fn at(&self, ratio: f64) -> f64 {
        let part = (ratio / self.low).ln() / (self.high / self.low).ln();
        (part * self.width * 10.0).round() / 10.0
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let high = self.high;
        (0..).map(|n| f64::from(1 << n)).take_while(move |tick| *tick <= high)
    }
}

/// Small multiples: a plot for each point, a row for each server.
fn map(
    points: &[&Section],
    servers: &[&str],
    width: f64,
    across: usize,
    colours: [&str; 5],
) -> Markup {
    let across = across.min(points.len());
    let each = (width - NAMES - GAP * across as f64) / across as f64;
    let scale = Scale::of(points, servers, each);
    let high = HEADING + ROW * servers.len() as f64 + AXIS;
    let says = wrapped(LEGEND, width);
    let top = LINE * (says.len() as f64 + 0.6);
    let size = (width, top + high * points.len().div_ceil(across) as f64);
    // In a single column the words of a point have the room of the names too.
    let (indent, room) = if across == 1 { (-NAMES - GAP, width) } else { (0.0, each) };
    drawing(
        size,
        colours,
        LEGEND,
        &html! {
            g.soft { (lines(&says, 0.0)) }
            @for (n, point) in points.iter().enumerate() {
                @let (column, down) = ((n % across) as f64, (n / across) as f64);
                @let (left, top) = (NAMES + GAP + column * (each + GAP), top + down * high);
                @if column == 0.0 { (names(servers, top + HEADING)) }
                g transform={ "translate(" (left) " " (top) ")" } {
                    @let load = words::load(&point.workload);
                    g.head {
                        (lines(&wrapped(&format!("{}: {load}", words::letter(n)), room), indent))
                    }
                    (plot(point, servers, &scale))
                }
            }
        },
    )
}

fn lines(lines: &[String], x: f64) -> Markup {
    html! {
        @for (n, line) in lines.iter().enumerate() {
            text x=(x) y=(LINE * (n as f64 + 0.9)) { (line) }
        }
    }
}

fn names(servers: &[&str], top: f64) -> Markup {
    html! {
        @for (n, name) in servers.iter().enumerate() {
            text x=(NAMES) y=(top + ROW * (n as f64 + 0.75)) text-anchor="end" { (name) }
        }
    }
}

/// One point: where each server stands, a hollow dot where it is not shown to differ.
fn plot(point: &Section, servers: &[&str], scale: &Scale) -> Markup {
    let bottom = HEADING + ROW * servers.len() as f64;
    html! {
        @for tick in scale.ticks() {
            @let x = scale.at(tick);
            line.line x1=(x) x2=(x) y1=(HEADING) y2=(bottom) {}
            text.soft x=(x) y=(bottom + 13.0) text-anchor="middle" { (tick) "×" }
        }
        @for (row, server) in servers.iter().enumerate() {
            @if let Some(ratio) = ratio(point, server) {
                @let apart = beside_best(point, server).is_some_and(|(_, apart)| apart);
                circle class=(if apart { "dot" } else { "ring" }) cx=(scale.at(ratio))
                    cy=(HEADING + ROW * (row as f64 + 0.5)) r="4.5" {
                    title { (server) ": " (number(ratio)) " times" }
                }
            }
        }
    }
}

/// Words in lines of so many pixels, as wide as the letters of most fonts are.
fn wrapped(text: &str, width: f64) -> Vec<String> {
    let letters = (width / LETTER) as usize;
    textwrap::wrap(text, letters.max(10)).into_iter().map(|line| line.into_owned()).collect()
}

/// A picture for pages that link to the project: the answer, and the most that each server is
/// shown to be behind the best of a point.
fn preview(
    record: &Stored,
    comparison: &Comparison,
    points: &[&Section],
    servers: &[&str],
) -> Markup {
    let most = |server: &str| {
        let shown = points.iter().filter_map(|point| beside_best(point, server));
        shown.filter(|(_, apart)| *apart).map(|(ratio, _)| ratio.ratio).fold(1.0, f64::max)
    };
    let mut bars: Vec<(&str, f64)> = servers.iter().map(|name| (*name, most(name))).collect();
    bars.sort_by(|x, y| x.1.total_cmp(&y.1));
    let widest = bars.last().map_or(1.0, |bar| bar.1);
    let row = (PREVIEW.1 - 120.0) / bars.len() as f64;
    let told = answer::answer(comparison);
    let told = told.get(1).cloned().unwrap_or_default();
    let day = record.host.time.split('T').next().unwrap_or_default();
    let says = "What the I/O model is worth";
    drawing(
        PREVIEW,
        DRESSES[0].1,
        says,
        &html! {
            text.title x="60" y="110" { "What the I/O" }
            text.title x="60" y="166" { "model is worth" }
            @for (n, line) in wrapped(&told, 240.0).iter().enumerate() {
                text.large x="60" y=(240.0 + 36.0 * n as f64) { (line) }
            }
            text.large.soft x="60" y="560" {
                (servers.len()) " servers, " (points.len()) " loads, " (day)
            }
            text.soft x="720" y="44" {
            "the most CPU for a message that is shown, as a multiple of the best server's"
        }
            @for (n, (name, most)) in bars.iter().enumerate() {
                @let y = 64.0 + row * n as f64;
                text.name x="850" y=(y + row * 0.62) text-anchor="end" { (name) }
                rect.dot x="862" y=((y + row * 0.12).round()) height=((row * 0.66).round())
                    width=((most / widest * 300.0).round()) {}
                text.name x=((872.0 + most / widest * 300.0).round()) y=(y + row * 0.62) {
                    (format!("{most:.1}×"))
                }
            }
        },
    )
}

/// An SVG file with its style.
fn drawing((width, height): (f64, f64), colours: [&str; 5], says: &str, inner: &Markup) -> Markup {
    let [back, fore, soft, line, mark] = colours;
    let style = format!(
        "text{{font:12px system-ui,sans-serif;fill:{fore}}}.soft,.soft text{{fill:{soft}}}\
         .head text{{font-weight:600}}.title{{font-size:50px;font-weight:700}}\
         .large{{font-size:26px}}\
         .name{{font-size:16px}}.line{{stroke:{line}}}.dot{{fill:{mark}}}\
         .ring{{fill:{back};stroke:{mark};stroke-width:1.5}}"
    );
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (width) " " (height) }
            width=(width) height=(height) role="img" {
            title { (says) }
            style { (PreEscaped(style)) }
            rect width="100%" height="100%" fill=(back) {}
            (inner)
        }
    }
}
