//! What a line server says, without how it waits.
//!
//! Bytes, a connection's id and the time go in; bytes to send and a decision come out. Nothing in
//! this crate opens a socket, reads a clock, starts a thread or takes a lock, so every I/O model
//! drives exactly the same protocol, and a test can drive it too.
//!
//! # Which part fits which server
//!
//! - An event loop that owns many connections: [`Connections`], which has the rest inside. Its
//!   contract of calls stands at the top of its module.
//! - A thread or a process that blocks for one connection: [`Session::step`]. If several threads
//!   serve it, [`Duplex`].
//! - A task for each connection: a [`Session`] and an [`Outbox`] of its own, and one [`Room`] for
//!   all of them.
//!
//! # The contract of calls for one connection
//!
//! 1. [`Session::new`], an [`Outbox`], and in chat [`Hub::open`] with a [`ConnId`].
//! 2. On bytes, and at the end of the stream: [`Session::echo`] or [`Session::chat`] with
//!    [`Input::Received`]. When an echo server stops: [`Session::stop`].
//! 3. In chat, after the hub has been called and under the same lock: [`Hub::take`] for the mail
//!    and [`Hub::wakes`] for the other workers; then [`Session::post`] for each [`Mail`].
//! 4. Whenever the outbox is not empty: write [`Outbox::slices`], then call [`Outbox::advance`].
//! 5. After every call above: [`Session::next`] says whether to read, to shut the sending side
//!    down, or to close; [`Session::deadline`] says when to call [`Session::expire`].
//! 6. When the socket is gone: [`Hub::leave`], and the id may be used again.
//!
//! Time is a [`Time`], counted from the start of the server; it never goes backwards.

mod chat;
mod connections;
mod deadlines;
mod id;
mod inbox;
mod lines;
mod outbox;
mod room;
mod session;
mod settings;
mod time;

pub use chat::{Hub, Mail, Parcel};
pub use connections::{Connection, Connections, Done};
pub use deadlines::Deadlines;
pub use id::{ConnId, Slots};
pub use inbox::Inbox;
pub use lines::{Line, LineLimit, Lines};
pub use outbox::{Full, Message, Outbox};
pub use room::{Exchange, Room};
pub use session::{Due, Duplex, Hears, Input, Next, Posted, SENDQ_EXCEEDED, Session, Step};
pub use settings::{
    Changing, ChatSettings, ChatTexts, Gone, Limits, Mode, Settings, Verdict, Watch,
};
pub use time::Time;
