//! One run by several machines: agents that drive, and a conductor that tells them what and when.
//!
//! Agents and conductor talk over NATS. What an agent does in its window is what `measure` does on
//! one machine: nothing of this room runs on a thread that drives.
//!
//! **Lives here:** the connection to NATS, what is said over it, who is there, how the work is
//! shared out, how far clocks are apart, an agent's part of a run, the server that an agent keeps,
//! and what becomes of a run when an agent is lost, late or of another version.
//!
//! **May use:** `base`, `workload`, `drive`, `target`, `measure`, `results`, `record`, `compare`.
//!
//! **Must not know:** the command line beyond the flags of the connection, and how results look.

mod access;
mod agent;
mod bus;
mod clock;
mod conductor;
mod errand;
mod gather;
mod judge;
mod keeper;
mod roll;
mod served;
mod shares;
mod words;

pub use access::Access;
pub use agent::{Agent, Post, Pretence};
pub use bus::Bus;
pub use conductor::{Asked, Conductor};
pub use gather::Keep;
pub use keeper::Stand;
pub use shares::shares;
