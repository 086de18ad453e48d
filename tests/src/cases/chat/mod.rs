//! 60 and up: every rule of the chat is a case.

mod capabilities;
mod channels;
mod clients;
mod forging;
mod messages;
mod monitor;
mod netsplit;
mod nicknames;
mod oper;
mod operators;
mod people;
mod queries;
mod registration;

use crate::cases::Case;

/// The cases of all files in this directory.
pub(super) const FILES: &[&[Case]] = &[
    registration::CASES,
    capabilities::CASES,
    nicknames::CASES,
    channels::CASES,
    operators::CASES,
    oper::CASES,
    people::CASES,
    messages::CASES,
    monitor::CASES,
    forging::CASES,
    netsplit::CASES,
    queries::CASES,
    clients::CASES,
];

/// The cases whose clients are programs of their own.
pub(super) const PROGRAMS: &[Case] = clients::CASES;

/// The cases that cannot run on this machine, and why.
pub(super) fn missing() -> Vec<(&'static str, String)> {
    clients::missing()
}
