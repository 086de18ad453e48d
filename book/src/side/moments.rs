//! The moments in the life of a server that can be looked at in all of them, and where they are.
//!
//! `moments.toml` names them. A moment is found by patterns, in the code as it is: so it is where
//! the server has it today. Where a program has none, `moments.toml` says why.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::{Deserialize, Serialize};

const FILE: &str = include_str!("../../moments.toml");

/// A moment.
#[derive(Deserialize, Serialize)]
pub(super) struct Moment {
    pub name: String,
    /// What happens then, in all models.
    note: String,
    /// What finds it, the best first.
    #[serde(skip_serializing)]
    patterns: Vec<String>,
    /// The same for one program, such as `bare/uring`, or for one model.
    #[serde(default, skip_serializing)]
    own: BTreeMap<String, Vec<String>>,
    /// Why a program, a model or all of a form have none.
    #[serde(default, skip_serializing)]
    none: BTreeMap<String, String>,
}

/// Where a moment is in a program.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Place {
    /// On this line.
    Line(usize),
    /// Nowhere, for this reason.
    None(String),
}

#[derive(Deserialize)]
struct File {
    moment: Vec<Moment>,
}

/// All moments, in the order in which they come.
pub(super) fn all() -> Result<Vec<Moment>> {
    let file: File = toml::from_str(FILE).context("moments.toml")?;
    Ok(file.moment)
}

impl Moment {
    /// Where it is in a program.
    pub(super) fn find(&self, model: &str, form: &str, lines: &[String]) -> Result<Place> {
        let program = format!("{form}/{model}");
        for key in [&*program, model] {
            if let Some(reason) = self.none.get(key) {
                return Ok(Place::None(reason.clone()));
            }
        }
        let own = self.own.get(&program).or_else(|| self.own.get(model));
        for pattern in own.unwrap_or(&self.patterns) {
            if let Some(line) = first(pattern, lines)? {
                return Ok(Place::Line(line));
            }
        }
        match self.none.get(form) {
            Some(reason) => Ok(Place::None(reason.clone())),
            None => bail!("it is nowhere, and moments.toml does not say why"),
        }
    }
}

/// The first line of code that has the pattern; with `A > B`, the first with B after that with A.
fn first(pattern: &str, lines: &[String]) -> Result<Option<usize>> {
    let mut from = 0;
    for part in pattern.split(" > ") {
        let part = Regex::new(part)?;
        let is_code = |line: &str| !line.trim_start().starts_with("//");
        let mut rest = lines[from..].iter();
        match rest.position(|line| is_code(line) && part.is_match(line)) {
            Some(at) => from += at,
            None => return Ok(None),
        }
    }
    Ok(Some(from))
}

#[cfg(test)]
mod tests {
    use super::{Moment, Place, first};

    #[test]
    fn a_moment_is_the_first_line_of_the_best_pattern() {
        let moment: Moment = toml::from_str(
            "name = \"read\"\nnote = \"\"\npatterns = [\"best\", \"second\"]\n\
             [none]\n\"bare/x\" = \"why\"\ncomplete = \"never\"\n[own]\ny = [\"other\"]\n",
        )
        .expect("a moment");
        let lines = ["// best", "second", "best", "other", "best"].map(str::to_owned);
        let find = |model, form, lines| moment.find(model, form, lines).ok();
        assert_eq!(find("a", "bare", &lines[..]), Some(Place::Line(2)));
        assert_eq!(find("a", "bare", &lines[..2]), Some(Place::Line(1)));
        assert_eq!(find("a", "bare", &lines[..1]), None);
        assert_eq!(find("x", "bare", &lines[..]), Some(Place::None("why".to_owned())));
        assert_eq!(find("a", "complete", &lines[..1]), Some(Place::None("never".to_owned())));
        assert_eq!(find("y", "bare", &lines[..]), Some(Place::Line(3)));
        assert_eq!(first("other > best", &lines).ok(), Some(Some(4)));
        assert_eq!(first("other > second", &lines).ok(), Some(None));
    }
}
