//! The machine and the program, as a reader of a record must know them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::limits::descriptor_limit;
use crate::base::secrets;
use crate::measure::machine::stolen_ticks;

/// Settings of the kernel that bear on many connections, by their names under `/proc/sys`.
const SETTINGS: [&str; 5] = [
    "fs/nr_open",
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
];

/// Where something was measured, when, and by what command.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// When the command began, RFC 3339 in UTC.
    pub time: String,
    /// Release and architecture.
    pub kernel: String,
    /// The processor's model name, if the kernel tells it.
    pub processor: Option<String>,
    /// Processors that this process may use.
    pub processors: usize,
    /// Whether the processor says that it is a guest of a hypervisor.
    pub virtual_machine: bool,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The hard limit on file descriptors.
    pub descriptor_limit: u64,
    /// Settings of the kernel, by their names under `/proc/sys`.
    pub settings: BTreeMap<String, String>,
    /// What each known vulnerability of the processor is met with.
    pub mitigations: BTreeMap<String, String>,
    /// Frequency governors in use; empty where the frequency is not this system's to set.
    pub governors: Vec<String>,
    /// The kernel's clock source.
    pub clock: String,
    /// Load averages over 1, 5 and 15 minutes when the command began.
    pub load: String,
    /// Part of all processors' time since boot that went to other guests, from 0 to 1.
    pub stolen_since_boot: f64,
    /// Version of this program.
    pub loadgen: String,
    /// Revision of the workspace that the servers are built from, if it is one.
    pub revision: Option<String>,
    /// The compiler that builds them.
    pub compiler: Option<String>,
    /// The command, word by word; secrets in addresses are hidden.
    pub command: Vec<String>,
    /// In a merged record, the hosts of the records that it was made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<Host>,
}

impl Host {
    /// Looks at this machine. Takes a few milliseconds, two of git's and the compiler's.
    pub fn look() -> Self {
        let info = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(": ")?.1.to_owned())
        };
        let total = read("/proc/meminfo").lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok()
        });
        let settings = SETTINGS.map(|name| (name.to_owned(), read(&format!("/proc/sys/{name}"))));
        let (stolen, all) = stolen_ticks(&[]);
        Self {
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            kernel: format!("{} {}", read("/proc/sys/kernel/osrelease"), std::env::consts::ARCH),
            processor: field("model name"),
            processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
            virtual_machine: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_bytes: total.map(|kb| kb * 1024),
            descriptor_limit: descriptor_limit(),
            settings: settings.into(),
            mitigations: files("/sys/devices/system/cpu/vulnerabilities"),
            governors: governors(),
            clock: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            stolen_since_boot: stolen as f64 / all.max(1) as f64,
            loadgen: env!("CARGO_PKG_VERSION").to_owned(),
            revision: workspace().and_then(|workspace| revision(&workspace)),
            compiler: ask(Command::new("rustc").arg("--version")),
            command: secrets::shown(std::env::args()),
            merged: Vec::new(),
        }
    }

    /// What makes numbers of the two hosts incomparable, in words; empty if nothing does.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
        let pairs = [
            ("kernel", self.kernel.clone(), other.kernel.clone()),
            ("processor", text(&self.processor), text(&other.processor)),
            ("processors", self.processors.to_string(), other.processors.to_string()),
            ("clock source", self.clock.clone(), other.clock.clone()),
            ("governors", self.governors.join(","), other.governors.join(",")),
            ("mitigations", joined(&self.mitigations), joined(&other.mitigations)),
        ];
        pairs
            .into_iter()
            .filter(|(_, a, b)| a != b)
            .map(|(what, a, b)| format!("{what}: {a} against {b}"))
            .collect()
    }
}

fn joined(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
}

/// The workspace that this program was built from, if it is still there.
pub fn workspace() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().ok()?;
    root.join("Cargo.toml").exists().then_some(root)
}

/// The commit that is checked out, and whether files differ from it.
fn revision(workspace: &Path) -> Option<String> {
    let git = |args: &[&str]| ask(Command::new("git").arg("-C").arg(workspace).args(args));
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|commit| !commit.is_empty())?;
    let changed = git(&["status", "--porcelain"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit} with changes") })
}

/// What a command prints, if it succeeds.
fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Name and content of every file in a folder.
fn files(folder: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, read(&entry.path().display().to_string()))
        })
        .collect()
}

fn governors() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let mut all: Vec<String> = entries
        .map(|entry| read(&entry.path().join("cpufreq/scaling_governor").display().to_string()))
        .filter(|governor| !governor.is_empty())
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_describes_itself_and_does_not_differ_from_itself() {
        let host = Host::look();
        assert!(host.processors >= 1 && host.kernel.len() > 5 && !host.command.is_empty());
        assert!(host.settings["net/core/somaxconn"].parse::<u32>().is_ok());
        assert_eq!(host.differences(&host), [""; 0]);
        let other = Host { kernel: "2.6.8".into(), time: "later".into(), ..host.clone() };
        let differences = host.differences(&other);
        assert!(differences.len() == 1 && differences[0].contains("2.6.8"), "{differences:?}");
    }
}
