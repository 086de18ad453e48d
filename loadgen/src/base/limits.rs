//! What this machine does not give more of: descriptors and ports.

use rustix::process::{Resource, Rlimit};

/// Raises the soft limit on descriptors to the hard one. Servers started later inherit it.
pub fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where even this is refused, the shortage is reported when it is felt.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

/// The current limit on descriptors.
pub fn descriptor_limit() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// This machine has no more ports or descriptors for the generator: no server's fault.
#[derive(Debug)]
pub struct Shortage {
    what: String,
    /// Whether it is one of ports, which another address may have.
    ports: bool,
}

impl Shortage {
    /// Every local port is in use.
    pub fn of_ports() -> Self {
        let what = "no local port is left; ask for fewer --connections, wait a minute for \
                    TIME_WAIT, or widen net.ipv4.ip_local_port_range";
        Self { what: what.into(), ports: true }
    }

    /// No file descriptor is left for connection `id`.
    pub(crate) fn of_descriptors(id: u32) -> Self {
        let what = format!(
            "out of file descriptors at connection {id}: the limit is {}; \
             raise the hard limit (ulimit -Hn) or ask for fewer --connections",
            descriptor_limit()
        );
        Self { what, ports: false }
    }

    /// Whether another address may have what this one lacks.
    pub(crate) fn is_of_ports(&self) -> bool {
        self.ports
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Shortage {}
