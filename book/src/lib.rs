//! The book of this project: chapters that take what they show from the servers themselves, and a
//! page that sets two servers side by side.
//!
//! `project` finds the files; `outline` cuts a source into its functions; `record`, `picture` and
//! `capture` make what the macros of `chapters` put in; `side` is the page of two servers; `build`
//! runs all of it.

pub mod build;
pub mod capture;
pub mod chapters;
pub mod check;
pub mod outline;
pub mod picture;
pub mod project;
pub mod record;
pub mod serve;
pub mod side;
pub mod sources;
