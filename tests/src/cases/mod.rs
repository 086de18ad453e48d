//! The cases, each a plain function with the rule it holds the server to.
//!
//! The numbers in their comments are those of the list that the suite was made from: framing 1–11,
//! life of a connection 12–21, backpressure 22–28, abuse 29–36, exhaustion 37–45, process 46–51,
//! model 52–56, surroundings 57–59, service 60–66, calls 67. Every rule of the chat is a
//! case as well.

mod abuse;
mod addresses;
mod answers;
mod backpressure;
mod bare;
mod calls;
mod chat;
mod exhaustion;
mod extremes;
mod framing;
mod inherited;
mod life;
mod malformed;
mod process;
mod scripts;
mod service;
mod watching;

use std::collections::BTreeMap;

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
    /// How many clients it needs that are served at once.
    pub(crate) clients: usize,
    pub(crate) run: fn(&Ctx),
}

/// Lists functions as cases of one mode, named as they are, for every server or `only` for one. A
/// case that `needs` so many clients to be served at once is no case for a model that serves fewer.
macro_rules! cases {
    ($mode:ident: $($case:ident $(needs $clients:literal)?),+ $(,)?) => {
        $crate::cases::cases!($mode, None, $($case $(needs $clients)?),+)
    };
    ($mode:ident only $package:literal: $($case:ident $(needs $clients:literal)?),+ $(,)?) => {
        $crate::cases::cases!($mode, Some($package), $($case $(needs $clients)?),+)
    };
    ($mode:ident, $only:expr, $($case:ident $(needs $clients:literal)?),+) => {
        &[$($crate::cases::Case {
            name: stringify!($case),
            mode: $crate::cases::Mode::$mode,
            only: $only,
            clients: $crate::cases::cases!(clients $($clients)?),
            run: $case,
        }),+]
    };
    (clients) => { 1 };
    (clients $clients:literal) => { $clients };
}
pub(crate) use cases;

/// What `examples/bare.rs` of this package is put through; and those that need two clients at once.
pub(crate) fn bare(package: &str) -> (Vec<Case>, Vec<Case>) {
    let all = [bare::ALONE, bare::SIGIO, bare::SELECT].concat();
    let own = all.into_iter().filter(|case| case.only.is_none_or(|only| only == package));
    (own.collect(), bare::TOGETHER.to_vec())
}

/// Every case that there is for this package of the project. A case that is not listed by its file
/// is dead code, and the compiler says so.
pub(crate) fn of(package: &str) -> Vec<Case> {
    let own = [
        inherited::ECHO,
        inherited::CHAT,
        inherited::PREFORK_ECHO,
        inherited::PREFORK_CHAT,
        abuse::OWN_ECHO,
        backpressure::OWN_ECHO,
        exhaustion::OWN_ECHO,
        process::OWN_ECHO,
        process::URING_ECHO,
        addresses::ECHO,
        addresses::CHAT,
        calls::ECHO,
        calls::CHAT,
        extremes::ECHO,
        extremes::CHAT,
        malformed::ECHO,
        malformed::CHAT,
        service::ECHO,
        service::CHAT,
        watching::CHAT,
    ];
    let own = own.iter().flat_map(|cases| cases.iter().copied());
    let own = own.filter(|case| case.only.is_none_or(|only| only == package));
    shared(package).into_iter().chain(own).collect()
}

/// The cases that a peer is put through as well: what it inherits, and how it takes a flag, is a
/// matter of its language.
pub(crate) fn shared(package: &str) -> Vec<Case> {
    let files = [
        framing::ECHO,
        framing::CHAT,
        life::ECHO,
        backpressure::ECHO,
        backpressure::CHAT,
        abuse::ECHO,
        abuse::CHAT,
        answers::CHAT,
        exhaustion::ECHO,
        exhaustion::CHAT,
        exhaustion::CALLOOP,
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

/// The cases that a server is put through once more behind a bad network: framing, the life of a
/// connection, and chat. Clients that are programs of their own go to the server itself, and a
/// thousand members would take two thousand threads of the network.
pub(crate) fn far() -> Vec<Case> {
    let files = [framing::ECHO, framing::CHAT, life::ECHO];
    let all = files.iter().chain(chat::FILES).flat_map(|cases| cases.iter().copied());
    let elsewhere = |case: &Case| {
        chat::PROGRAMS.iter().any(|program| program.name == case.name)
            || case.name == "a_thousand_members_hear_all_while_some_come_and_go"
    };
    all.filter(|case| !elsewhere(case)).collect()
}

/// Whether this model may be given more than one worker: one flavor of tokio is a single thread.
pub(crate) fn may_have_workers(ctx: &Ctx) -> bool {
    !ctx.args().contains(&"current-thread".to_owned())
}

/// Adds to what a model does not offer those of `cases` that need a program which this machine does
/// not have.
pub(crate) fn leave_out_missing(cases: &[Case], unsupported: &mut BTreeMap<String, String>) {
    for (name, reason) in
        [chat::missing(), addresses::missing(), calls::missing()].into_iter().flatten()
    {
        if cases.iter().any(|case| case.name == name) {
            unsupported.entry(name.to_owned()).or_insert(reason);
        }
    }
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
