//! The bounds of what a workload may ask for.

use std::time::Duration;

use crate::base::bounds::DAY;

/// Length of the part of a text that names connection and sequence, in bytes.
pub const HEADER: usize = 15;
/// The largest connection number that the header can carry.
pub const MAX_CONNECTIONS: u32 = 0xf_ffff;
/// The most lines in flight on a connection.
pub(super) const MAX_DEPTH: u32 = 65_536;
/// The most lines of a visit.
pub(super) const MAX_CHURN: u32 = 1_000_000_000;
/// The most chat channels.
pub(super) const MAX_CHANNELS: u32 = 99_999;
/// The protocol's default limit on a line, its end included, in bytes.
pub(super) const MAX_ECHO: u32 = 65_536;
/// What is left of a chat line of 512 bytes after a long source and a channel name.
pub(super) const MAX_CHAT: u32 = 350;

/// The lowest and the highest rate of an open loop, in messages a second.
pub(super) const MIN_RATE: f64 = 0.01;
pub(super) const MAX_RATE: f64 = 1e8;

/// The longest phase.
pub(super) const LONGEST: Duration = DAY;
/// The slowest handler.
pub(super) const SLOWEST: Duration = Duration::from_secs(1);
