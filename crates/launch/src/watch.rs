//! What the protocol tells of the clients: counted, and logged.

use std::fmt;
use std::sync::Arc;

use protocol::Gone;

use crate::Log;
use crate::counters::{Gauges, Tally};

pub(crate) struct Watch {
    pub(crate) tally: Arc<Tally>,
    pub(crate) log: Log,
}

impl Watch {
    fn change(&self, change: impl Fn(&Gauges)) {
        self.tally.gauges().into_iter().for_each(change);
    }
}

impl protocol::Watch for Watch {
    fn queue(&self, before: usize, now: usize) {
        self.change(|gauges| gauges.queue_bytes.change(before as u64, now as u64));
    }

    fn slow(&self, is: bool) {
        self.change(|gauges| gauges.slow_members.change((!is).into(), is.into()));
    }

    fn registered(&self) {
        self.change(|gauges| gauges.members.change(0, 1));
    }

    fn gone(&self, gone: &Gone<'_>) {
        if gone.registered {
            self.change(|gauges| gauges.members.change(1, 0));
        }
        self.log.member(gone);
    }

    fn follows_ends(&self) -> bool {
        self.log.follows_connections()
    }

    fn ended(&self, peer: &str, reason: &str) {
        self.log.client(peer, reason);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
