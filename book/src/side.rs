//! The page on which two servers stand side by side: one file, which needs no network.
//!
//! What is equal and what differs is found here, when the book is built, for all pairs; the page's
//! script only shows it.

mod align;
mod moments;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;

use crate::outline::{self, Section};
use crate::project;
use align::Aligned;

/// The name of the page.
pub const PAGE: &str = "side-by-side.html";

const STYLE: &str = include_str!("../style/side.css");
const SCRIPT: &str = include_str!("../style/side.js");

/// A program: all of its sources, one after another.
#[derive(Serialize)]
struct Program {
    lines: Vec<String>,
    sections: Vec<Section>,
    /// The line on which each of its files begins, and the name of the file.
    files: Vec<(usize, String)>,
    /// Where each moment is: the line, or why there is none.
    moments: Vec<moments::Place>,
    /// What its head says: the model, who waits where, what wakes it.
    notes: Vec<String>,
}

/// What the page's script shows.
#[derive(Serialize)]
struct Data {
    models: [&'static str; 18],
    moments: Vec<moments::Moment>,
    /// By form and model: `bare/threads`.
    programs: BTreeMap<String, Program>,
    /// By two programs, in the order of `models`.
    pairs: BTreeMap<String, Vec<Aligned>>,
}

/// Where two servers are shown at a moment: the page and its part.
///
/// # Errors
///
/// When there is no such server or moment.
pub fn address(left: &str, right: &str, moment: &str) -> Result<String> {
    for model in [left, right] {
        if !project::MODELS.contains(&model) {
            bail!("no model is called {model}");
        }
    }
    if !moments::all()?.iter().any(|known| known.name == moment) {
        bail!("no moment is called {moment}");
    }
    let moment = moment.replace(' ', "+");
    Ok(format!("{PAGE}#left={left}&right={right}&form=bare&moment={moment}"))
}

/// The whole page.
///
/// # Errors
///
/// When a source cannot be read or is no Rust, or a moment is nowhere in it and nothing says why.
pub fn page() -> Result<String> {
    let data = data()?;
    // `</` would end the script.
    let json = serde_json::to_string(&data)?.replace("</", "<\\/");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Two servers, side by side" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(&data))
                main id="main" {
                    h2.hidden #pair {}
                    div.pages {
                        div #code aria-label="The two sources" tabindex="-1" {}
                        aside aria-label="Notes" { h2 { "Notes" } div #notes tabindex="0" role="region" aria-label="What the notes say" {} }
                    }
                }
                script type="application/json" id="data" { (PreEscaped(json)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

fn head(data: &Data) -> Markup {
    let models = |id: &str, label: &str| {
        html! {
            label { (label) " "
                select id=(id) { @for model in data.models { option value=(model) { (model) } } }
            }
        }
    };
    html! {
        header {
            div.title { h1 { "Two servers, side by side" } a href="index.html" { "The book" } }
            form #choice {
                (models("left", "Left"))
                button type="button" #swap title="Swap the two (s)" { "swap" }
                (models("right", "Right"))
                label { "Form "
                    select #form {
                        option value="bare" { "bare" }
                        option value="complete" { "complete" }
                        option value="both" { "bare beside complete (left)" }
                    }
                }
            }
            nav #moments aria-label="Moments" {
                span { "Moment: " }
                @for moment in &data.moments {
                    button type="button" data-moment=(moment.name) { (moment.name) }
                }
            }
            div.steps {
                button type="button" #previous { "previous difference" }
                button type="button" #next { "next difference" }
                span #count aria-live="polite" {}
                details {
                    summary { "Keys" }
                    p {
                        kbd { "n" } " and " kbd { "p" } ": next and previous difference. "
                        kbd { "1" } " to " (data.moments.len()) ": a moment. "
                        kbd { "s" } ": swap. " kbd { "f" } ": the other form."
                    }
                }
            }
        }
    }
}

fn data() -> Result<Data> {
    let moments = moments::all()?;
    let mut programs = BTreeMap::new();
    for model in project::MODELS {
        let bare = program(model, &[project::bare(model)], &moments, "bare")?;
        let complete = program(model, &project::complete(model)?, &moments, "complete")?;
        programs.insert(format!("bare/{model}"), bare);
        programs.insert(format!("complete/{model}"), complete);
    }
    let mut pairs = BTreeMap::new();
    let mut pair = |left: String, right: String| {
        let aligned = align::align(&parts(&programs[&left]), &parts(&programs[&right]));
        pairs.insert(format!("{left} {right}"), aligned);
    };
    for (at, left) in project::MODELS.iter().enumerate() {
        pair(format!("bare/{left}"), format!("complete/{left}"));
        for right in &project::MODELS[at + 1..] {
            for form in ["bare", "complete"] {
                pair(format!("{form}/{left}"), format!("{form}/{right}"));
            }
        }
    }
    Ok(Data { models: project::MODELS, moments, programs, pairs })
}

fn parts(program: &Program) -> align::Source<'_> {
    align::Source {
        lines: program.lines.iter().map(String::as_str).collect(),
        sections: &program.sections,
    }
}

fn program(
    model: &str,
    files: &[String],
    moments: &[moments::Moment],
    form: &str,
) -> Result<Program> {
    let mut program = Program {
        lines: Vec::new(),
        sections: Vec::new(),
        files: Vec::new(),
        moments: Vec::new(),
        notes: Vec::new(),
    };
    for file in files {
        let text = project::read(file)?;
        let start = program.lines.len();
        for section in outline::sections(&text).with_context(|| file.clone())? {
            let Section { key, from, to } = section;
            program.sections.push(Section { key, from: from + start, to: to + start });
        }
        program.lines.extend(text.lines().map(str::to_owned));
        program.files.push((start, file.clone()));
        if start == 0 {
            program.notes = notes(&text);
        }
    }
    for moment in moments {
        let place = moment
            .find(model, form, &program.lines)
            .with_context(|| format!("serve-{model}, {form}: moment {}", moment.name))?;
        program.moments.push(place);
    }
    Ok(program)
}

/// The paragraphs of a source's head up to the one that says how to run it.
fn notes(text: &str) -> Vec<String> {
    let head = text.lines().map_while(|line| line.strip_prefix("//!"));
    let mut paragraphs = vec![String::new()];
    for line in head.map(str::trim) {
        if line.starts_with("Run:") {
            break;
        }
        let begins = line.is_empty() || line.starts_with("**") || line.starts_with("- ");
        if begins && paragraphs.last().is_some_and(|last| !last.is_empty()) {
            paragraphs.push(String::new());
        }
        if let Some(last) = paragraphs.last_mut() {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(line);
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    paragraphs
}

#[cfg(test)]
mod tests {
    use super::{address, data, notes};

    #[test]
    fn every_pair_shows_every_line_of_both() {
        let data = data().expect("all sources are Rust, and all moments are there");
        assert_eq!(data.pairs.len(), 18 * 17 + 18);
        for (names, aligned) in &data.pairs {
            let (left, right) = names.split_once(' ').expect("two names");
            for (side, name) in [left, right].into_iter().enumerate() {
                let program = &data.programs[name];
                let wanted = program.sections.iter().flat_map(|section| section.from..section.to);
                let mut shown: Vec<usize> =
                    aligned.iter().flat_map(|section| section.shown(side)).collect();
                shown.sort_unstable();
                assert!(shown.into_iter().eq(wanted), "{names}: {name}");
            }
        }
    }

    #[test]
    fn functions_of_the_same_name_stand_beside_each_other() {
        let data = data().expect("all sources are Rust");
        for (names, function) in [
            ("bare/epoll-level bare/epoll-edge", "accept"),
            ("bare/threads bare/tokio", "echo"),
            ("complete/epoll-level complete/uring", "read"),
            ("complete/prefork complete/epoll-level", "accept"),
        ] {
            let (left, right) = names.split_once(' ').expect("two names");
            let together = data.pairs[names].iter().any(|section| {
                let name = |side: usize, program: &str| {
                    let section = section.sections[side]?;
                    Some(data.programs[program].sections[section].name().to_owned())
                };
                name(0, left).as_deref() == Some(function)
                    && name(1, right).as_deref() == Some(function)
            });
            assert!(together, "{names}: {function}");
        }
    }

    #[test]
    fn an_address_names_what_is_there() {
        assert!(address("threads", "poll", "accept").is_ok());
        assert!(address("threads", "nothing", "accept").is_err());
        assert!(address("threads", "poll", "nothing").is_err());
    }

    #[test]
    fn notes_are_the_paragraphs_of_the_head() {
        let text = "//! A model.\n//!\n//! **Who waits:** a thread,\n//! in `read`.\n\
                    //! **What wakes it:** bytes.\n//!\n//! Run: `it`\n//!\n//! More.\nfn main() {}\n";
        assert_eq!(
            notes(text),
            ["A model.", "**Who waits:** a thread, in `read`.", "**What wakes it:** bytes."]
        );
    }
}
