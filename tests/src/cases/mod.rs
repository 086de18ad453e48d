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
mod scripts;

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
    /// The one package that has what this case is about; `None` for all the rest.
    pub(crate) only: Option<&'static str>,
    pub(crate) run: fn(&Ctx),
}

/// Lists functions as cases of one mode, named as they are, for every server or `only` for one.
macro_rules! cases {
    ($mode:ident: $($case:ident),+ $(,)?) => { $crate::cases::cases!($mode, None, $($case),+) };
    ($mode:ident only $package:literal: $($case:ident),+ $(,)?) => {
        $crate::cases::cases!($mode, Some($package), $($case),+)
    };
    ($mode:ident, $only:expr, $($case:ident),+) => {
        &[$($crate::cases::Case {
            name: stringify!($case),
            mode: $crate::cases::Mode::$mode,
            only: $only,
            run: $case,
        }),+]
    };
}
pub(crate) use cases;

/// Every case that there is for this package. A case that is not listed by its file is dead code,
/// and the compiler says so.
pub(crate) fn of(package: &str) -> Vec<Case> {
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
        exhaustion::URING_ECHO,
        exhaustion::URING_CHAT,
        process::ECHO,
        process::CHAT,
        process::PREFORK_ECHO,
        process::PREFORK_CHAT,
        scripts::ECHO,
        scripts::CHAT,
    ];
    let all = files.iter().chain(chat::FILES).flat_map(|cases| cases.iter().copied());
    all.filter(|case| case.only.is_none_or(|only| only == package)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn no_two_cases_share_a_name() {
        for package in ["serve-uring", "serve-prefork"] {
            let mut names = HashSet::new();
            for case in super::of(package) {
                assert!(names.insert(case.name), "{} is there twice", case.name);
            }
        }
    }

    #[test]
    fn a_case_for_one_package_is_for_no_other() {
        let count = |package| super::of(package).len();
        assert!(count("serve-uring") > count("serve-poll"));
    }
}
