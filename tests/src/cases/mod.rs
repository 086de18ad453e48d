//! The cases, each a plain function with the rule it holds the server to.
//!
//! The numbers in their comments are those of the list that the suite was made from: framing 1–11,
//! life of a connection 12–21, backpressure 22–28, abuse 29–36, exhaustion 37–45, process 46–51,
//! model 52–56, chat 60 and up (every rule of the protocol's description).

mod abuse;
mod backpressure;
mod chat;
mod exhaustion;
mod framing;
mod life;
mod process;

use serde::Deserialize;

use crate::watchdog::Ctx;

/// What the server is asked to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Echo,
    Chat,
}

/// A case: its name, the mode it needs, and what it does. It fails by panicking.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) mode: Mode,
    pub(crate) run: fn(&Ctx),
}

/// Lists functions as cases of one mode, named as they are.
macro_rules! cases {
    ($mode:ident: $($case:ident),+ $(,)?) => {
        &[$($crate::cases::Case {
            name: stringify!($case),
            mode: $crate::cases::Mode::$mode,
            run: $case,
        }),+]
    };
}
pub(crate) use cases;

/// Every case there is. A case that is not listed by its file is dead code, and the compiler says
/// so.
pub(crate) fn all() -> Vec<Case> {
    let files = [
        framing::ECHO,
        framing::CHAT,
        life::ECHO,
        backpressure::ECHO,
        backpressure::CHAT,
        abuse::ECHO,
        abuse::CHAT,
        exhaustion::ECHO,
        exhaustion::CHAT,
        process::ECHO,
        process::CHAT,
    ];
    files.iter().chain(chat::FILES).flat_map(|cases| cases.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn no_two_cases_share_a_name() {
        let mut names = HashSet::new();
        for case in super::all() {
            assert!(names.insert(case.name), "{} is there twice", case.name);
        }
    }
}
