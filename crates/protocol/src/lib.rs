//! What a line server says, without how it waits.
//!
//! Bytes, a connection's id and the time go in; bytes to send and a decision come out. Nothing in
//! this crate opens a socket, reads a clock, starts a thread or takes a lock, so every I/O model
//! drives exactly the same protocol, and a test can drive it too.
//!
//! # The contract of calls
//!
//! A server owns the socket and calls, for each connection:
//!
//! 1. [`Slots::insert`] for a [`ConnId`], [`Session::new`], an [`Outbox`], and in chat
//!    [`Hub::open`].
//! 2. On bytes: [`Session::echo`] or [`Session::chat`]. At the end of the stream, and in echo when
//!    the server stops: [`Session::end`], then the same call with no bytes.
//! 3. In chat, after the hub has been called and under the same lock: [`Hub::take`] for the mail
//!    of this worker and [`Hub::wakes`] for the others; then [`Session::post`] for each [`Mail`],
//!    by way of an [`Inbox`] where a task owns the session.
//! 4. Whenever the outbox is not empty: write [`Outbox::slices`], tell [`Outbox::advance`].
//! 5. After every call above: [`Session::next`] says whether to read, to shut the sending side
//!    down, or to close; [`Session::deadline`] says when to call [`Session::expire`].
//! 6. When the socket is gone: [`Hub::leave`], and the slot is free again.
//!
//! Time is a [`Time`], counted from the start of the server; it never goes backwards.

mod chat;
mod deadlines;
mod id;
mod inbox;
mod lines;
mod outbox;
mod session;
mod settings;
mod time;

pub use chat::{Hub, Mail, Parcel};
pub use deadlines::Deadlines;
pub use id::{ConnId, Slots};
pub use inbox::Inbox;
pub use lines::{Line, Lines};
pub use outbox::{Full, Message, Outbox};
pub use session::{Due, Next, SENDQ_EXCEEDED, Session};
pub use settings::{ChatSettings, Limits, Mode, Settings};
pub use time::Time;
