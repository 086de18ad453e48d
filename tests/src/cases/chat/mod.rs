//! 60 and up: every rule of the chat is a case.

mod channels;
mod messages;
mod nicknames;
mod queries;
mod registration;

use crate::cases::Case;

/// The cases of all files in this directory.
pub(super) const FILES: &[&[Case]] =
    &[registration::CASES, nicknames::CASES, channels::CASES, messages::CASES, queries::CASES];
