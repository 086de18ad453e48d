//! How a connection ends.

use crate::Time;

/// How far a connection has come on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is served.
    No,
    /// Chat: its last words are queued, and are to be written by this instant.
    LastWords { until: Time },
    /// Our side of the stream has ended. The peer has until this instant to end its own.
    Lingering { until: Time },
    /// The socket is to be closed, for this reason.
    Over(&'static str),
}
