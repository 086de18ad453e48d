//! The servers that can be driven: `models.toml`, a command line, or an address.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::gate::NEED_TWO;
use super::others::Others;
use super::{How, Target, bare_name, words};
use crate::base::durations::humantime_option;
use crate::base::text;
use crate::workload::Mode;

/// One entry of `models.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The workspace package that is built and run.
    pub package: Option<String>,
    /// Or a command, with `{addr}` (or `{host}` and `{port}`) and `{mode}` to be filled in.
    pub command: Option<String>,
    /// Or a peer: a program that understands the common flags and says where it listens. A path
    /// from the workspace's root, or a name to be found on PATH.
    pub program: Option<String>,
    /// What the program runs, if it is an interpreter: a path from the workspace's root.
    pub script: Option<String>,
    /// The command that gets the program.
    pub setup: Option<String>,
    /// Programs that `setup` needs to be on PATH, each with the command that gets it.
    #[serde(default)]
    pub needs: BTreeMap<String, String>,
    /// Further flags of the program.
    #[serde(default)]
    pub args: Vec<String>,
    /// The model in one sentence.
    #[serde(default)]
    pub summary: String,
    /// What it speaks.
    pub modes: Vec<Mode>,
    /// The most connections that the model can serve at once, where it has a limit of its own.
    pub most_connections: Option<u32>,
    /// The same of the model bare, where it has another one.
    pub bare_most_connections: Option<u32>,
    /// Whether it is held to the whole contract of the gate. Those that take the common flags are,
    /// a command is not, unless the file says so.
    pub contract: Option<bool>,
    /// The least that it needs to warm up: a compiler at run time knows only then what is hot.
    #[serde(default, with = "humantime_option")]
    pub warmup: Option<Duration>,
    /// Conformance cases that it cannot pass, each with the reason.
    #[serde(default)]
    pub unsupported: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct File {
    model: BTreeMap<String, Entry>,
}

/// All entries of a models file, by name.
#[derive(Debug)]
pub struct Models {
    entries: BTreeMap<String, Entry>,
    /// The servers that other people wrote.
    pub others: Others,
    pub(super) workspace: PathBuf,
}

impl Models {
    /// Reads `path`, or the workspace's file, or, away from the workspace, the one built in.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("models.toml");
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the models file {}", path.display()))?,
            None => std::fs::read_to_string(&own)
                .unwrap_or_else(|_| include_str!("../../models.toml").to_owned()),
        };
        Self::read(&path.unwrap_or(&own).display().to_string(), &text)
    }

    /// The entries in the text of a file called `name`, as [`Models::load`] reads them.
    pub fn read(name: &str, text: &str) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|e| anyhow!("{name}: {e}"))?;
        for (model, entry) in &file.model {
            let ways = [&entry.package, &entry.command, &entry.program];
            if ways.iter().filter(|way| way.is_some()).count() != 1 {
                bail!("{name}: model {model} needs either a package, a command or a program");
            }
            if let Some(command) = &entry.command {
                words(command).with_context(|| format!("{name}: model {model}"))?;
            }
        }
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = own.parent().unwrap_or(own).to_owned();
        Ok(Self { entries: file.model, others: Others::load()?, workspace })
    }

    /// The workspace's models and those of the user's own file, which come first where a name is in
    /// both; with `only`, those of that file alone.
    pub fn with(own: Option<&Path>, only: bool) -> Result<Self> {
        let Some(path) = own else { return Self::load(None) };
        let mut models = Self::load(Some(path))?;
        if !only {
            for (name, entry) in Self::load(None)?.entries {
                models.entries.entry(name).or_insert(entry);
            }
        }
        Ok(models)
    }

    /// All entries by name.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter()
    }

    /// The model bare of this model, if it has one: `examples/bare.rs` of the crate of its name. It
    /// echoes and takes no flags.
    pub fn bare(&self, model: &str) -> Option<Target> {
        let entry = self.entries.get(model)?;
        let package = entry.package.as_ref().filter(|p| p.strip_prefix("serve-") == Some(model))?;
        let source = self.workspace.join("crates").join(package).join("examples/bare.rs");
        if !source.exists() {
            return None;
        }
        let bare = Target::new(&bare_name(package), How::Bare(package.clone()), vec![Mode::Echo]);
        Some(Target {
            bare_of: Some(model.to_owned()),
            most_connections: entry.bare_most_connections.or(entry.most_connections),
            unsupported: one_at_a_time(entry),
            ..bare
        })
    }

    /// The model of that name, or of that package name where only one model has it; or the model
    /// bare `bare-NAME`; or another project's server of that name.
    pub fn find(&self, name: &str) -> Result<Target> {
        if let Some(bare) = name.strip_prefix("bare-").and_then(|model| self.bare(model)) {
            return Ok(bare);
        }
        let plain = name.strip_prefix("serve-").unwrap_or(name);
        let entry = self.entries.get_key_value(name).or_else(|| self.entries.get_key_value(plain));
        match entry {
            Some((name, entry)) => match self.missing(entry) {
                Some(why) => bail!("{name} cannot run here: {why}"),
                None => Ok(self.target(name, entry)),
            },
            None => {
                if let Some(other) = self.others.find(name) {
                    return other.with_context(|| format!("{name} cannot run here"));
                }
                let others = self.others.entries().map(|(name, _)| name);
                let names: Vec<_> = self.entries.keys().chain(others).map(String::as_str).collect();
                let near = text::did_you_mean(plain, &names);
                bail!("no model is called {name:?}; {near}there are {}", names.join(", "))
            }
        }
    }

    fn target(&self, name: &str, entry: &Entry) -> Target {
        let how = match (&entry.package, &entry.program) {
            (Some(package), _) => How::Package(package.clone(), entry.args.clone()),
            (None, Some(program)) => {
                let script = entry.script.iter().map(|path| self.workspace.join(path));
                let args = script.map(|path| path.display().to_string());
                let program = self.locate(program).unwrap_or_else(|| program.into());
                How::Program(program, args.chain(entry.args.iter().cloned()).collect())
            }
            (None, None) => How::Command(entry.command.clone().unwrap_or_default()),
        };
        let mut unsupported = entry.unsupported.clone();
        unsupported.extend(one_at_a_time(entry));
        Target {
            name: name.to_owned(),
            how,
            ours: entry.package.is_some(),
            bare_of: None,
            contract: entry.contract.unwrap_or(entry.command.is_none()),
            lacks: Vec::new(),
            unlisted: false,
            foreign: false,
            files: BTreeMap::new(),
            modes: entry.modes.clone(),
            most_connections: entry.most_connections,
            warmup: entry.warmup.unwrap_or_default(),
            unsupported,
        }
    }

    /// Why a model cannot run here, if that is known without building it, and how to get it.
    pub fn missing(&self, entry: &Entry) -> Option<String> {
        if let Some(package) = &entry.package {
            let manifest = self.workspace.join("crates").join(package).join("Cargo.toml");
            return (!manifest.exists()).then(|| {
                self.away().unwrap_or_else(|| format!("crates/{package} is not in this workspace"))
            });
        }
        let program = entry.program.as_ref()?;
        if self.locate(program).is_some() {
            return None;
        }
        if entry.setup.as_ref().is_some_and(|setup| setup.starts_with("loadgen/"))
            && let Some(away) = self.away()
        {
            return Some(away);
        }
        let lacking = entry.needs.iter().filter(|(need, _)| self.locate(need).is_none());
        let (mut names, mut commands): (Vec<_>, Vec<_>) = lacking.unzip();
        names.extend(names.is_empty().then_some(program));
        commands.extend(&entry.setup);
        let names: Vec<_> = names.into_iter().map(String::as_str).collect();
        let commands: Vec<_> = commands.into_iter().map(String::as_str).collect();
        Some(format!("{} is missing; get it: {}", names.join(", "), commands.join(" && ")))
    }

    /// What to do where the workspace is gone that this program was built from.
    fn away(&self) -> Option<String> {
        (!self.workspace.join("Cargo.toml").exists()).then(|| {
            format!(
                "it is built in the workspace of loadgen, which is not at {}: run loadgen there, \
                 or name a server by --addr, --cmd or --models-file",
                self.workspace.display()
            )
        })
    }

    /// Why another project's server of that name cannot run here, and how to get it. A model of the
    /// same name comes first.
    pub fn missing_other(&self, name: &str) -> Option<String> {
        if self.entries.contains_key(name) {
            return None;
        }
        self.others.entries().find(|(other, _)| *other == name)?.1.missing()
    }

    /// The file of a program: a path from the workspace's root, or a name on PATH.
    fn locate(&self, program: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = match program.contains('/') {
            true => vec![self.workspace.clone()],
            false => std::env::split_paths(&path).collect(),
        };
        folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
    }
}

/// The cases of the gate that a model which serves one client at a time cannot pass.
fn one_at_a_time(entry: &Entry) -> BTreeMap<String, String> {
    let alone = entry.most_connections == Some(1);
    let why = "the model serves one client at a time";
    let cases = NEED_TWO.iter().filter(|_| alone);
    cases.map(|case| ((*case).to_owned(), why.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_file_that_comes_with_the_program_is_valid() {
        let models = Models::load(None).unwrap();
        assert_eq!(models.find("serve-epoll-level").unwrap().name, "epoll-level");
        assert_eq!(models.find("tokio-per-core").unwrap().name, "tokio-per-core");
        let error = models.find("epol-level").unwrap_err().to_string();
        assert!(error.contains("did you mean epoll-level?"), "{error}");
        assert!(!models.find("zzzzzzzz").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn a_file_of_ones_own_adds_to_the_models_unless_it_replaces_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models.toml");
        let text = "[model.mine]\ncommand = \"x {addr}\"\nmodes = [\"echo\"]\n\
                    [model.tokio]\ncommand = \"y {addr}\"\nmodes = [\"echo\"]\n";
        std::fs::write(&path, text).unwrap();
        let added = Models::with(Some(&path), false).unwrap();
        assert!(added.entries.contains_key("mine") && added.entries.contains_key("epoll-level"));
        assert!(added.entries["tokio"].package.is_none(), "the user's own comes first");
        let only = Models::with(Some(&path), true).unwrap();
        assert!(only.entries.keys().eq(["mine", "tokio"]));
        assert!(Models::with(None, false).unwrap().entries.contains_key("tokio"));
    }

    #[test]
    fn a_peer_is_there_or_its_setup_is_told() {
        let models = Models::load(None).unwrap();
        let peer = |program: &str, needs: &str| -> Entry {
            let text = format!("program = {program:?}\nsetup = \"./get it\"\nmodes = [\"echo\"]\n");
            toml::from_str(&format!("{text}needs = {{ {needs} }}")).unwrap()
        };
        assert_eq!(models.missing(&peer("sh", "")), None);
        assert_eq!(models.missing(&peer("loadgen/Cargo.toml", "")), None);
        let missing = |program, needs| models.missing(&peer(program, needs)).unwrap();
        assert_eq!(missing("target/no", "sh = 'no'"), "target/no is missing; get it: ./get it");
        assert_eq!(missing("/no", "no-x = 'get x'"), "no-x is missing; get it: get x && ./get it");
    }

    #[test]
    fn away_from_the_workspace_a_server_of_it_says_where_it_is_built() {
        let models = Models { workspace: "/nowhere".into(), ..Models::load(None).unwrap() };
        for name in ["epoll-level", "libuv"] {
            let why = models.missing(&models.entries[name]).unwrap();
            assert!(why.contains("not at /nowhere") && why.contains("--cmd"), "{name}: {why}");
        }
        let plain: Entry =
            toml::from_str("program = \"/no\"\nsetup = \"get it\"\nmodes = []").unwrap();
        assert_eq!(models.missing(&plain).unwrap(), "/no is missing; get it: get it");
    }

    #[test]
    fn a_model_bare_follows_from_the_crate_of_its_name() {
        let models = Models::load(None).unwrap();
        let bare = models.find("bare-iterative").unwrap();
        assert_eq!(bare.bare_of.as_deref(), Some("iterative"));
        assert!(!bare.ours && !bare.contract && bare.modes == [Mode::Echo]);
        assert!(bare.unsupported.keys().eq(NEED_TWO.iter().collect::<BTreeSet<_>>()));
        assert_eq!(models.bare("prefork").unwrap().most_connections, Some(64), "not 2048");
        assert_eq!(models.bare("select").unwrap().most_connections, Some(1000), "as the model");
        assert!(models.bare("tokio").is_some() && models.bare("tokio-per-core").is_none());
    }

    #[test]
    fn the_contract_is_kept_by_those_that_take_the_common_flags() {
        let text = |how: &str| format!("[model.x]\nmodes = [\"echo\"]\n{how}\n");
        let held = |how: &str| {
            let file: File = toml::from_str(&text(how)).unwrap();
            let models = Models {
                entries: file.model,
                others: Others::load().unwrap(),
                workspace: PathBuf::new(),
            };
            models.target("x", &models.entries["x"]).contract
        };
        assert!(held("package = \"serve-x\"") && held("program = \"x\""));
        assert!(!held("command = \"x {addr}\""));
        assert!(held("command = \"x {addr}\"\ncontract = true"));
    }
}
