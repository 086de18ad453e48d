//! Which workloads make no sense, and what to do about it.

use anyhow::{Result, bail};

use super::limits::{
    HEADER, LONGEST, MAX_CHANNELS, MAX_CHAT, MAX_CONNECTIONS, MAX_DEPTH, MAX_ECHO, MAX_RATE,
    MIN_RATE, SLOWEST,
};
use super::sheet::Sheet;
use super::{Changes, Mode, WhenBusy, Workload};

/// Fails if the connections that were asked for are not those of so many channels and members.
pub(super) fn remainder(changes: &Changes, channels: u32, members: u32) -> Result<()> {
    let fit = channels.saturating_mul(members);
    let Some(asked) = changes.connections.filter(|&asked| asked != fit) else { return Ok(()) };
    let plural = if channels == 1 { "" } else { "s" };
    if changes.members.is_none() {
        // A channel has at least two members.
        let least = fit.max(channels.saturating_mul(2));
        let or = match fit < least {
            true => String::new(),
            false => format!(" or {}", fit.saturating_add(channels)),
        };
        bail!(
            "{channels} channel{plural} cannot share --connections {asked} evenly; ask for \
             --connections {least}{or}, or for other --channels"
        );
    }
    bail!(
        "{channels} channel{plural} of {members} members are {fit} connections, and --connections \
         is {asked}; leave it out, or change --channels or --members"
    );
}

impl Sheet {
    /// Fails on numbers of a file that the flags of the same name would refuse.
    pub(super) fn refuse_nothing(&self) -> Result<()> {
        let chat = self.mode == Mode::Chat;
        let needed = |own: Option<u32>, needed: bool| own.or(needed.then_some(0));
        for (name, number) in [
            ("connections", needed(self.connections, !chat)),
            ("active", self.active),
            ("members", needed(self.members, chat)),
            ("speakers", needed(self.speakers, chat)),
            ("churn", self.churn),
            ("disturbers", self.disturbers),
        ] {
            if number == Some(0) {
                bail!("{name} must be at least 1");
            }
        }
        if !(1..=MAX_DEPTH).contains(&self.depth) {
            bail!("depth must be 1 to {MAX_DEPTH}");
        }
        if self.channels.is_some_and(|channels| !(1..=MAX_CHANNELS).contains(&channels)) {
            bail!("channels must be 1 to {MAX_CHANNELS}");
        }
        if self.sizes.iter().any(|&(_, weight)| weight == 0) {
            bail!("each of the sizes needs a weight of at least 1");
        }
        if chat && self.connections.is_some() {
            bail!("connections of chat are channels times members; leave it out");
        }
        Ok(())
    }
}

impl Workload {
    /// Fails, with what to do, on numbers that do not fit together.
    pub(super) fn refuse_nonsense(&self, changes: &Changes) -> Result<()> {
        self.refuse_sizes()?;
        self.refuse_pace(changes)?;
        if self.connections > MAX_CONNECTIONS {
            bail!("--connections {} is more than {MAX_CONNECTIONS}", self.connections);
        }
        if self.duration.is_zero() {
            bail!("--duration must be longer than nothing, for example 5s");
        }
        if self.duration.max(self.warmup) > LONGEST {
            bail!("--duration and --warmup are at most a day each");
        }
        if self.wait.max(self.work) > SLOWEST {
            bail!("--wait and --work are at most a second each: longer is a stall");
        }
        if self.active > self.connections {
            bail!("--active {} is more than --connections {}", self.active, self.connections);
        }
        match self.mode {
            Mode::Echo => self.refuse_echo(changes),
            Mode::Chat => self.refuse_chat(changes),
        }
    }

    fn refuse_sizes(&self) -> Result<()> {
        let name = &self.name;
        let header = HEADER as u32;
        let (least, most) = match self.mode {
            Mode::Echo => (header + 1, MAX_ECHO),
            Mode::Chat => (header, MAX_CHAT),
        };
        let sizes: Vec<u32> = match &self.sizes[..] {
            [] => vec![self.size],
            mix => mix.iter().map(|&(size, _)| size).collect(),
        };
        if let Some(size) = sizes.iter().find(|size| !(least..=most).contains(size)) {
            bail!(
                "--size {size} does not fit {name}: {least} to {most} bytes, because each line \
                 carries its connection and sequence number and must fit the protocol's limit"
            );
        }
        Ok(())
    }

    fn refuse_echo(&self, changes: &Changes) -> Result<()> {
        let name = &self.name;
        let chat = [changes.channels, changes.members, changes.speakers];
        if chat.iter().any(Option::is_some) {
            bail!("--channels, --members and --speakers belong to fan-out, not to {name}");
        }
        if self.server_time {
            bail!("--server-time belongs to the chat workloads, not to {name}");
        }
        if self.churn.is_some() && self.active < self.connections {
            bail!("all visitors of {name} ask; leave --active out");
        }
        if self.churn.is_some() && self.disturbance.is_some() {
            bail!("bystanders stay; leave out --churn or --disturbance");
        }
        if changes.disturbers.is_some() && self.disturbance.is_none() {
            bail!("--disturbers needs a --disturbance, for example hog");
        }
        Ok(())
    }

    fn refuse_chat(&self, changes: &Changes) -> Result<()> {
        let name = &self.name;
        if self.churn.is_some() || self.disturbance.is_some() {
            bail!("--churn and --disturbance belong to the echo workloads, not to {name}");
        }
        if !self.sizes.is_empty() {
            bail!("--sizes belongs to the echo workloads; {name} has --size");
        }
        if changes.active.is_some() {
            bail!("--active belongs to the echo workloads; {name} has --speakers");
        }
        if self.members < 2 || self.speakers > self.members {
            bail!(
                "{} speakers among {} members in a channel: at least 2 members, and no \
                 more speakers than members; change --connections, --members or --speakers",
                self.speakers,
                self.members
            );
        }
        Ok(())
    }

    fn refuse_pace(&self, changes: &Changes) -> Result<()> {
        match self.rate {
            None if changes.arrivals.is_some() || changes.when_busy.is_some() => {
                bail!("--arrivals and --when-busy belong to an open loop: give it a --rate");
            }
            Some(rate) if !(MIN_RATE..=MAX_RATE).contains(&rate) => {
                bail!("--rate {rate} is not between {MIN_RATE} and {MAX_RATE} messages a second");
            }
            Some(_) if self.churn.is_some() => {
                bail!("--rate belongs to connections that last: leave --churn out");
            }
            Some(_) if self.mode == Mode::Chat && self.when_busy == WhenBusy::Pipeline => {
                bail!(
                    "--when-busy pipeline belongs to echo: raise --depth of {} instead",
                    self.name
                )
            }
            _ => Ok(()),
        }
    }
}
