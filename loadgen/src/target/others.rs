//! The servers that other people wrote and that a package manager has: `others.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::{How, Target, split, words};
use crate::workload::Mode;

/// Where programs are that are often not on a user's PATH.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// One entry of `others.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Other {
    /// The name of the program.
    program: String,
    /// How it is started, with `{program}`, `{dir}`, and `{addr}` or `{host}` and `{port}`.
    command: String,
    /// The command that gets it.
    pub setup: String,
    /// Further programs, each with the command that gets it.
    #[serde(default)]
    needs: BTreeMap<String, String>,
    /// What it is, in one sentence.
    pub summary: String,
    /// What it speaks.
    pub modes: Vec<Mode>,
    /// The most connections that it can serve at once, if it has a limit.
    most_connections: Option<u32>,
    /// Templates of its files, by name.
    #[serde(default)]
    files: BTreeMap<String, String>,
}

/// All of them, by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Others {
    #[serde(rename = "other")]
    entries: BTreeMap<String, Other>,
}

impl Others {
    /// Reads the workspace's file, or, away from the workspace, the one built in.
    pub(super) fn load() -> Result<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("others.toml");
        let text = std::fs::read_to_string(&own)
            .unwrap_or_else(|_| include_str!("../../others.toml").to_owned());
        Self::parse(&text).with_context(|| own.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let others: Self = toml::from_str(text).map_err(|e| anyhow!("{e}"))?;
        for (name, other) in &others.entries {
            other.check().with_context(|| format!("server {name}"))?;
        }
        Ok(others)
    }

    /// All of them, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&String, &Other)> {
        self.entries.iter()
    }

    /// The server of that name, or why it cannot run here.
    pub(super) fn find(&self, name: &str) -> Option<Result<Target>> {
        let other = self.entries.get(name)?;
        Some(match other.missing() {
            Some(why) => Err(anyhow!(why)),
            None => Ok(other.target(name)),
        })
    }
}

impl Other {
    fn check(&self) -> Result<()> {
        // Its files may say where it is to listen.
        let filed = self.files.values().any(|file| file.contains("{port}"));
        if filed && self.command.contains("{dir}") {
            split(&self.command)?;
        } else {
            words(&self.command)?;
        }
        if !self.command.contains("{program}") {
            bail!("{:?} must say {{program}}", self.command);
        }
        if self.modes.is_empty() {
            bail!("it must speak echo or chat");
        }
        let plain = |name: &String| Path::new(name).file_name() == Some(name.as_ref());
        if let Some(name) = self.files.keys().find(|name| !plain(name)) {
            bail!("{name:?} is not the name of a file");
        }
        Ok(())
    }

    /// Why it cannot run here, and how to get it.
    pub fn missing(&self) -> Option<String> {
        let own = (&self.program, &self.setup);
        let lacking = self.needs.iter().chain([own]).filter(|(need, _)| locate(need).is_none());
        let (names, commands): (Vec<_>, Vec<_>) =
            lacking.map(|(need, get)| (need.as_str(), get.as_str())).unzip();
        if names.is_empty() {
            return None;
        }
        Some(format!("{} is missing; get it: {}", names.join(", "), commands.join(" && ")))
    }

    fn target(&self, name: &str) -> Target {
        let program = locate(&self.program).unwrap_or_else(|| self.program.clone().into());
        let program = program.display().to_string();
        let quoted = shlex::try_quote(&program).unwrap_or_default();
        let command = self.command.replace("{program}", &quoted);
        Target {
            foreign: true,
            files: self.files.clone(),
            most_connections: self.most_connections,
            ..Target::new(name, How::Command(command), self.modes.clone())
        }
    }
}

/// The file of a program.
fn locate(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[other.x]\nprogram = \"sh\"\ncommand = \"{program} {dir}/a {addr}\"\n\
                        setup = \"get x\"\nsummary = \"x\"\nmodes = [\"chat\"]\n\
                        files = { a = \"p {port}\" }\n";

    #[test]
    fn the_file_that_comes_with_the_program_is_valid() {
        let others = Others::load().unwrap();
        for name in ["inspircd", "ngircd", "ncat", "socat"] {
            let other = &others.entries[name];
            assert!(other.setup.starts_with("apt-get install "), "{name}");
            let target = other.target(name);
            assert!(target.foreign && !target.contract && !target.ours, "{name}");
        }
    }

    #[test]
    fn a_server_may_be_told_in_its_file_where_to_listen() {
        assert!(Others::parse(GOOD).is_ok());
        assert!(Others::parse(&GOOD.replace(" {addr}", "")).is_ok());
        let wrong = [
            GOOD.replace(" {addr}", "").replace("{port}", ""),
            GOOD.replace("{program}", "sh"),
            GOOD.replace("a = ", "\"../a\" = "),
            GOOD.replace("[\"chat\"]", "[]"),
            GOOD.replace("summary", "sumary"),
        ];
        for text in wrong {
            assert!(Others::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_the_command_that_gets_it() {
        let missing = |text: &str| Others::parse(text).unwrap().entries["x"].missing();
        assert_eq!(missing(GOOD), None);
        let absent = GOOD.replace("\"sh\"", "\"no-such-x\"");
        assert_eq!(missing(&absent).unwrap(), "no-such-x is missing; get it: get x");
        let needs = format!("{GOOD}needs = {{ no-y = \"get y\" }}\n");
        assert_eq!(missing(&needs).unwrap(), "no-y is missing; get it: get y");
    }
}
