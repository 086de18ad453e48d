//! MONITOR: to be told who comes and goes.

use crate::cases::{Case, cases, may_have_workers};
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    a_watcher_is_told_of_coming_and_going needs 2,
    each_watcher_is_told_once needs 12,
    the_list_of_the_watched_is_kept_and_bounded needs 2,
    a_watcher_hears_of_members_far_away_if_it_asked needs 2,
];

/// 730 and 731: when one registers, takes another nickname, quits, or vanishes.
fn a_watcher_is_told_of_coming_and_going(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    assert_eq!(ann.ask("MONITOR + Bob,eve", "731").params, ["ann", "Bob,eve"]);
    let mut bob = server.member("bob");
    assert_eq!(ann.gets("730").params, ["ann", "bob!bob@127.0.0.1"]);
    bob.say("NICK BOB");
    bob.say("NICK eve");
    bob.sync();
    assert_eq!(ann.gets("731").params, ["ann", "BOB"]);
    assert_eq!(ann.gets("730").params, ["ann", "eve!bob@127.0.0.1"]);
    bob.say("QUIT");
    bob.client.read_to_end();
    assert_eq!(ann.gets("731").params, ["ann", "eve"]);
    drop(server.member("bob"));
    ann.gets("730");
    assert_eq!(ann.gets("731").params, ["ann", "bob"]);
    ann.say("MONITOR - bob,eve");
    ann.sync();
    drop(server.member("bob"));
    ann.hears_nothing();
}

/// Whatever number of them, also where others serve them.
fn each_watcher_is_told_once(ctx: &Ctx) {
    let workers = if may_have_workers(ctx) { "2" } else { "1" };
    let server = ctx.busy_chat(&["--workers", workers]);
    let mut watchers: Vec<_> = (0..10).map(|n| server.member(&format!("w{n}"))).collect();
    for watcher in &mut watchers {
        watcher.ask("MONITOR + bob,ann", "731");
    }
    let mut bob = server.member("bob");
    bob.say("NICK ann");
    bob.say("QUIT");
    bob.client.read_to_end();
    for watcher in &mut watchers {
        let nick = watcher.nick.clone();
        let heard = watcher.through("731").len() + watcher.through("731").len();
        assert_eq!(heard, 4, "what {nick} heard: bob came and went, and ann came and went");
        watcher.hears_nothing();
    }
}

/// 732 and 733, S, C; 432 for what is no nickname, 734 beyond what 005 says.
fn the_list_of_the_watched_is_kept_and_bounded(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.say("MONITOR + bob,*!u@h,cid");
    assert_eq!(ann.gets("432").param(1), "*!u@h");
    assert_eq!(ann.gets("730").text(), "bob!bob@127.0.0.1");
    assert_eq!(ann.gets("731").text(), "cid");
    ann.say("MONITOR S");
    assert_eq!(ann.gets("730").text(), "bob!bob@127.0.0.1");
    assert_eq!(ann.gets("731").text(), "cid");
    assert_eq!(ann.ask("MONITOR L", "732").text(), "bob,cid");
    ann.gets("733");
    for n in 2..100 {
        ann.ask(&format!("MONITOR + n{n}"), "731");
    }
    assert_eq!(
        ann.ask("MONITOR + more,n2,evenmore", "734").params[1..3],
        ["100", "more,n2,evenmore"]
    );
    ann.say("MONITOR C");
    ann.ask("MONITOR L", "733");
    ann.ask("MONITOR", "461");
    bob.ask("MONITOR L", "733");
    bob.say("QUIT");
    ann.hears_nothing();
}

/// With extended-monitor: AWAY and SETNAME of those it watches, once, and else nothing.
fn a_watcher_hears_of_members_far_away_if_it_asked(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.ask("MONITOR + bob", "730");
    ann.ask("CAP REQ :away-notify setname", "CAP");
    bob.ask("AWAY :gone", "306");
    ann.hears_nothing();
    ann.ask("CAP REQ :extended-monitor", "CAP");
    bob.ask("AWAY", "305");
    ann.expect("bob AWAY");
    bob.say("SETNAME :Robert");
    bob.sync();
    ann.expect("bob SETNAME Robert");
    ann.join("#c");
    bob.join("#c");
    ann.expect("bob JOIN #c");
    bob.ask("AWAY :gone", "306");
    ann.expect("bob AWAY gone");
    ann.hears_nothing();
}
