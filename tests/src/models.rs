//! What `loadgen/models.toml` says of a model: how to start it, and what it does not offer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::Deserialize;

use crate::cases::{self, Case, Mode};

/// One entry of `models.toml`: a program with the arguments that make it this model.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// The entry's name, the first half of every test's name.
    pub(crate) name: String,
    /// The program's path; `None` for a peer that is not installed.
    pub(crate) program: Option<String>,
    /// Arguments that come before the case's own.
    pub(crate) args: Vec<String>,
    /// Cases that this model cannot pass, and why.
    pub(crate) unsupported: BTreeMap<String, String>,
    /// Whether a bad network is between it and its clients.
    pub(crate) far: bool,
}

impl Model {
    /// The same model, behind a bad network.
    pub(crate) fn far(&self) -> Model {
        let mut far = Model { name: format!("{}-far", self.name), far: true, ..self.clone() };
        let kept = cases::far();
        far.unsupported.retain(|name, _| kept.iter().any(|case| case.name == name));
        far
    }
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
    program: Option<String>,
    #[serde(default)]
    script: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    modes: Vec<Mode>,
    /// How many connections it can serve at once, where that is part of the model.
    #[serde(default)]
    most_connections: Option<usize>,
    #[serde(default)]
    unsupported: BTreeMap<String, String>,
}

/// The models that `package` provides with the binary `program`; an error if there is none, or if
/// one of them declares a case unsupported that the suite does not have.
pub(crate) fn of_package(
    package: &str,
    program: &str,
    cases: &[Case],
) -> Result<Vec<Model>, String> {
    parse(&read()?, package, program, cases).map_err(in_the_file)
}

/// The model bare of `package`: `examples/bare.rs`, built beside the server's binary `program`.
/// `together` are the cases that need two clients at once.
pub(crate) fn bare(package: &str, program: &str, together: &[Case]) -> Result<Model, String> {
    parse_bare(&read()?, package, program, together).map_err(in_the_file)
}

fn parse_bare(
    text: &str,
    package: &str,
    program: &str,
    together: &[Case],
) -> Result<Model, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut entries = file.model.values();
    let entry = entries.find(|entry| entry.package.as_deref() == Some(package));
    let entry = entry.ok_or_else(|| format!("no model has package = {package:?}"))?;
    let name = package.replacen("serve-", "bare-", 1);
    let one_at_a_time = entry.most_connections == Some(1);
    let reason = "two clients at once: this model serves one at a time";
    let unsupported = together.iter().filter(|_| one_at_a_time);
    Ok(Model {
        program: Path::new(program)
            .with_file_name("examples")
            .join(&name)
            .to_str()
            .map(str::to_owned),
        name,
        args: Vec::new(),
        unsupported: unsupported.map(|case| (case.name.to_owned(), reason.to_owned())).collect(),
        far: false,
    })
}

/// The models that a program of another language provides, installed or not.
pub(crate) fn peers(cases: &[Case]) -> Result<Vec<Model>, String> {
    parse_peers(&read()?, &root(), cases).map_err(in_the_file)
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("tests/ is in the workspace").to_owned()
}

fn read() -> Result<String, String> {
    let path = root().join("loadgen/models.toml");
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

fn in_the_file(reason: String) -> String {
    format!("loadgen/models.toml: {reason}")
}

fn parse(text: &str, package: &str, program: &str, cases: &[Case]) -> Result<Vec<Model>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let models = file
        .model
        .into_iter()
        .filter(|(_, entry)| entry.package.as_deref() == Some(package))
        .map(|(name, entry)| model(name, Some(program.to_owned()), entry, cases))
        .collect::<Result<Vec<_>, _>>()?;
    if models.is_empty() {
        return Err(format!("no model has package = {package:?}: add an entry for it"));
    }
    Ok(models)
}

fn parse_peers(text: &str, root: &Path, cases: &[Case]) -> Result<Vec<Model>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let peer = |(name, mut entry): (String, Entry)| {
        let program = locate(root, &entry.program.take()?).map(|path| path.display().to_string());
        let script = entry.script.take().map(|script| root.join(script).display().to_string());
        entry.args.splice(0..0, script);
        Some(model(name, program, entry, cases))
    };
    file.model.into_iter().filter_map(peer).collect()
}

/// A path from the workspace's root, or a name on PATH.
pub(crate) fn locate(root: &Path, program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = if program.contains('/') {
        vec![root.to_owned()]
    } else {
        env::split_paths(&path).collect()
    };
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn model(
    name: String,
    program: Option<String>,
    entry: Entry,
    cases: &[Case],
) -> Result<Model, String> {
    let mut unsupported = entry.unsupported;
    if let Some(stray) = unsupported.keys().find(|name| !cases.iter().any(|c| c.name == **name)) {
        return Err(format!("{name} declares {stray:?} unsupported, but there is no such case"));
    }
    for case in cases.iter().filter(|case| !entry.modes.contains(&case.mode)) {
        let reason = format!("this model does not offer {:?} mode", case.mode);
        unsupported.entry(case.name.to_owned()).or_insert(reason);
    }
    for case in cases {
        if let Some(most) = entry.most_connections.filter(|most| *most < case.clients) {
            let needs = case.clients;
            let reason = format!("it needs {needs} clients at once: this model serves {most}");
            unsupported.entry(case.name.to_owned()).or_insert(reason);
        }
    }
    Ok(Model { name, program, args: entry.args, unsupported, far: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> Vec<Case> {
        vec![
            Case { name: "speaks", mode: Mode::Echo, only: None, clients: 1, run: |_| () },
            Case { name: "chats", mode: Mode::Chat, only: None, clients: 1, run: |_| () },
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
        let models = parse(text, "serve-a", "path", &cases()).unwrap();
        assert_eq!(models.len(), 1);
        assert_eq!(models[0].args, ["--flavor", "x"]);
        assert!(models[0].unsupported.is_empty());
    }

    #[test]
    fn a_model_without_chat_has_its_chat_cases_unsupported() {
        let text = "[model.a]\npackage = \"serve-a\"\nmodes = [\"echo\"]";
        let models = parse(text, "serve-a", "path", &cases()).unwrap();
        assert_eq!(models[0].unsupported.keys().collect::<Vec<_>>(), ["chats"]);
    }

    #[test]
    fn a_declared_case_that_does_not_exist_is_an_error() {
        let text = "[model.a]\npackage = \"serve-a\"\nmodes = [\"echo\"]\n\
                    [model.a.unsupported]\nsings = \"no voice\"";
        let error = parse(text, "serve-a", "path", &cases()).unwrap_err();
        assert!(error.contains("sings"), "{error}");
    }

    #[test]
    fn peers_are_found_or_said_to_be_missing() {
        let text = "[model.a]\nprogram = \"sh\"\nscript = \"a.sh\"\nargs = [\"-x\"]\n\
                    [model.b]\nprogram = \"target/none\"\n[model.c]\npackage = \"serve-c\"";
        let peers = parse_peers(text, Path::new("/root"), &cases()).unwrap();
        let names: Vec<_> = peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(peers[0].program.as_ref().is_some_and(|path| path.ends_with("/sh")));
        assert_eq!(peers[0].args, ["/root/a.sh", "-x"]);
        assert_eq!(peers[1].program, None);
    }

    #[test]
    fn the_model_bare_is_built_beside_the_server_and_may_serve_one_at_a_time() {
        let text = "[model.a]\npackage = \"serve-a\"\nmost_connections = 1\n\
                    [model.b]\npackage = \"serve-b\"";
        let bare = |package| parse_bare(text, package, "debug/serve", &cases()).unwrap();
        assert_eq!(bare("serve-a").name, "bare-a");
        assert_eq!(bare("serve-a").program.as_deref(), Some("debug/examples/bare-a"));
        assert_eq!(bare("serve-a").unsupported.len(), 2);
        assert!(bare("serve-b").unsupported.is_empty());
        assert!(parse_bare(text, "serve-c", "path", &cases()).is_err());
    }

    #[test]
    fn a_package_without_a_model_is_an_error() {
        assert!(parse("", "serve-a", "path", &cases()).is_err());
    }
}
