//! What the fuzz targets do with their bytes.
//!
//! Each target is one function from bytes to nothing: it panics if something that must hold does
//! not. The fuzzer of `fuzz/` calls it with the bytes that it finds interesting, and
//! `tests/replay.rs` with the seeds in `fuzz/corpus` and with some thousand inputs made of them.
//!
//! ```text
//! cargo test -p bodies                                 the replay, in seconds
//! cargo +nightly fuzz run hub                          the fuzzer, until it finds something
//! ```
//!
//! An input that once broke a target stays in its corpus as `found-WHAT`.

mod chat;
mod checker;
mod connections;
mod frames;
mod framing;
mod hub;
mod outbox;
mod parser;
mod readers;
mod session;

pub use checker::checker;
pub use connections::connections;
pub use frames::frames;
pub use framing::framing;
pub use hub::hub;
pub use outbox::outbox;
pub use parser::parser;
pub use readers::{models, record, workload};
pub use session::session;

/// A target: its name, which is that of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 11] = [
    ("framing", framing),
    ("session", session),
    ("parser", parser),
    ("hub", hub),
    ("connections", connections),
    ("outbox", outbox),
    ("frames", frames),
    ("checker", checker),
    ("record", record),
    ("models", models),
    ("workload", workload),
];
