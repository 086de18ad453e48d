//! An agent that is slow because its machine gives it little: a control group lets it have a part
//! of a processor.

use std::path::{Path, PathBuf};

use crate::cluster::{Killed, LOADGEN, start};

/// How often the kernel counts anew, in microseconds. Long, so that opening connections and a
/// moment's burst do not use a period up.
const PERIOD: u32 = 100_000;
/// What of each period the group may have.
const QUOTA: u32 = 10_000;

/// A control group of processes that may use a tenth of one processor together.
pub(crate) struct Share(PathBuf);

impl Drop for Share {
    fn drop(&mut self) {
        // It is empty once its processes have ended; otherwise it stays, and costs nothing.
        let _ = std::fs::remove_dir(&self.0);
    }
}

impl Share {
    /// A new group, or why there can be none.
    pub(crate) fn new(name: &str) -> Result<Self, String> {
        let name = format!("loadgen-{}-{name}", std::process::id());
        let mut why = Vec::new();
        for base in bases() {
            match Self::within(&base, &name) {
                Ok(share) => return Ok(share),
                Err(e) => why.push(format!("{}: {e}", base.display())),
            }
        }
        match &why[..] {
            [] => Err("no control groups are mounted at /sys/fs/cgroup".into()),
            _ => Err(format!("no control group can be made: {}", why.join("; "))),
        }
    }

    fn within(base: &Path, name: &str) -> std::io::Result<Self> {
        let dir = base.join(name);
        if base.join("cgroup.controllers").exists() {
            // It may be handed down already, or not be allowed: then there is no cpu.max below.
            let _ = std::fs::write(base.join("cgroup.subtree_control"), "+cpu");
            std::fs::create_dir(&dir)?;
            let share = Self(dir);
            std::fs::write(share.0.join("cpu.max"), format!("{QUOTA} {PERIOD}"))?;
            return Ok(share);
        }
        std::fs::create_dir(&dir)?;
        let share = Self(dir);
        std::fs::write(share.0.join("cpu.cfs_period_us"), PERIOD.to_string())?;
        std::fs::write(share.0.join("cpu.cfs_quota_us"), QUOTA.to_string())?;
        Ok(share)
    }

    /// In how many periods its processes were held back so far, because the share was used up.
    pub(crate) fn held_back(&self) -> u64 {
        let told = std::fs::read_to_string(self.0.join("cpu.stat")).unwrap();
        let line = told.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.unwrap().parse().unwrap()
    }

    /// An agent whose processes are all of this group.
    pub(crate) fn agent(&self, url: &str, name: &str) -> Killed {
        let group = self.0.join("cgroup.procs").display().to_string();
        let command = format!(
            "echo $$ > '{group}' || exit 1; exec {LOADGEN} agent --nats {url} --name {name}"
        );
        start(None, "sh", &["-c", &command], &format!("agent {name} is there"))
    }
}

/// Where a group of processors may be made: of the first version of control groups, or within those
/// of the second that this process is in.
fn bases() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let first = ["cpu", "cpu,cpuacct"].map(|name| root.join(name));
    let mut bases: Vec<PathBuf> =
        first.into_iter().filter(|base| base.join("cpu.cfs_quota_us").exists()).collect();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    if let Some(own) = own.filter(|_| root.join("cgroup.controllers").exists()) {
        let within = root.join(own);
        let up = within.ancestors().take_while(|path| path.starts_with(root));
        bases.extend(up.map(Path::to_owned));
    }
    bases
}
