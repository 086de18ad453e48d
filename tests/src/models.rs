//! What `loadgen/models.toml` says of a model: how to start it, and what it does not offer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::cases::{Case, Mode};

/// One entry of `models.toml`: a program with the arguments that make it this model.
#[derive(Debug)]
pub(crate) struct Model {
    /// The entry's name, the first half of every test's name.
    pub(crate) name: String,
    /// Arguments that come before the case's own.
    pub(crate) args: Vec<String>,
    /// Cases that this model cannot pass, and why.
    pub(crate) unsupported: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    model: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    package: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    modes: Vec<Mode>,
    #[serde(default)]
    unsupported: BTreeMap<String, String>,
}

/// The models that `package` provides; an error if there is none, or if one of them declares a
/// case unsupported that the suite does not have.
pub(crate) fn of_package(package: &str, cases: &[Case]) -> Result<Vec<Model>, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadgen/models.toml");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text, package, cases).map_err(|reason| format!("loadgen/models.toml: {reason}"))
}

fn parse(text: &str, package: &str, cases: &[Case]) -> Result<Vec<Model>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let models = file
        .model
        .into_iter()
        .filter(|(_, entry)| entry.package.as_deref() == Some(package))
        .map(|(name, entry)| model(name, entry, cases))
        .collect::<Result<Vec<_>, _>>()?;
    if models.is_empty() {
        return Err(format!("no model has package = {package:?}: add an entry for it"));
    }
    Ok(models)
}

fn model(name: String, entry: Entry, cases: &[Case]) -> Result<Model, String> {
    let mut unsupported = entry.unsupported;
    if let Some(stray) = unsupported.keys().find(|name| !cases.iter().any(|c| c.name == **name)) {
        return Err(format!("{name} declares {stray:?} unsupported, but there is no such case"));
    }
    for case in cases.iter().filter(|case| !entry.modes.contains(&case.mode)) {
        let reason = format!("this model does not offer {:?} mode", case.mode);
        unsupported.entry(case.name.to_owned()).or_insert(reason);
    }
    Ok(Model { name, args: entry.args, unsupported })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> Vec<Case> {
        vec![
            Case { name: "speaks", mode: Mode::Echo, only: None, run: |_| () },
            Case { name: "chats", mode: Mode::Chat, only: None, run: |_| () },
        ]
    }

    #[test]
    fn only_the_models_of_the_package_are_taken() {
        let text = r#"
            [model.a]
            package = "serve-a"
            args = ["--flavor", "x"]
            modes = ["echo", "chat"]
            [model.b]
            package = "serve-b"
            modes = ["echo", "chat"]
        "#;
        let models = parse(text, "serve-a", &cases()).unwrap();
        assert_eq!(models.len(), 1);
        assert_eq!(models[0].args, ["--flavor", "x"]);
        assert!(models[0].unsupported.is_empty());
    }

    #[test]
    fn a_model_without_chat_has_its_chat_cases_unsupported() {
        let text = "[model.a]\npackage = \"serve-a\"\nmodes = [\"echo\"]";
        let models = parse(text, "serve-a", &cases()).unwrap();
        assert_eq!(models[0].unsupported.keys().collect::<Vec<_>>(), ["chats"]);
    }

    #[test]
    fn a_declared_case_that_does_not_exist_is_an_error() {
        let text = "[model.a]\npackage = \"serve-a\"\nmodes = [\"echo\"]\n\
                    [model.a.unsupported]\nsings = \"no voice\"";
        let error = parse(text, "serve-a", &cases()).unwrap_err();
        assert!(error.contains("sings"), "{error}");
    }

    #[test]
    fn a_package_without_a_model_is_an_error() {
        assert!(parse("", "serve-a", &cases()).is_err());
    }
}
