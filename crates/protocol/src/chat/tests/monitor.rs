//! MONITOR: who is told that a nickname is taken or free, once each.

use super::*;
use crate::chat::watchers::MOST;

/// a watches for b and c; d shares #c with a.
fn world() -> World {
    let mut world = World::new(settings());
    for name in ["a", "d"] {
        world.say(name, "JOIN #c");
    }
    world.mail();
    world.say("a", "MONITOR + b,c");
    world.expect(&[("a", ":s 731 a :b,c")]);
    world
}

#[test]
fn a_watcher_hears_of_coming_going_and_other_names() {
    let mut world = world();
    world.say("?b", "NICK b");
    assert!(world.mail().is_empty(), "a client is no member before it has registered");
    world.say("?b", "USER u 0 * :R");
    assert_eq!(world.mail()["a"], [":s 730 a :b!u@h"]);
    world.play(
        "?b> NICK B
        ?b< :b!u@h NICK B
        ?b> NICK c
        a< :s 731 a :B
        a< :s 730 a :c!u@h
        ?b< :B!u@h NICK c
        ?b> QUIT
        a< :s 731 a :c
        ?b< *close ERROR :Closing link: Client quit
        a> MONITOR + d
        a< :s 730 a :d!d@h
        d> NICK e
        a< :d!d@h NICK e
        a< :s 731 a :d
        d< :d!d@h NICK e",
    );
}

#[test]
fn a_list_of_watched_nicknames_is_kept_and_told() {
    world().play(
        "a> MONITOR L
        a< :s 732 a :b,c
        a< :s 733 a :End of MONITOR list
        a> MONITOR + D,B,1,d,,e!*
        a< :s 432 a 1 :Erroneous nickname
        a< :s 730 a :d!d@h
        a< :s 731 a :B
        a> MONITOR S
        a< :s 730 a :d!d@h
        a< :s 731 a :b,c
        a> MONITOR - C,none
        a> MONITOR l
        a< :s 732 a :b,D
        a< :s 733 a :End of MONITOR list
        d> MONITOR S
        d> MONITOR L
        d< :s 733 d :End of MONITOR list
        a> MONITOR C
        a> MONITOR s
        a> MONITOR L
        a< :s 733 a :End of MONITOR list
        d> QUIT
        a< :d!d@h QUIT :Client quit
        d< *close ERROR :Closing link: Client quit
        a> MONITOR
        a< :s 461 a MONITOR :Not enough parameters
        a> MONITOR +
        a< :s 461 a MONITOR :Not enough parameters
        a> MONITOR :x y
        a< :s FAIL MONITOR INVALID_SUBCOMMAND * :Not one of + - C L S",
    );
}

#[test]
fn a_watcher_of_itself_hears_of_it_after_its_own_line() {
    let mut world = world();
    world.play(
        "a> MONITOR + a
        a< :s 730 a :a!a@h
        a> NICK b
        d< :a!a@h NICK b
        a< :a!a@h NICK b
        a< :s 731 b :a
        a< :s 730 b :b!a@h
        a> QUIT
        d< :b!a@h QUIT :Client quit
        a< *close ERROR :Closing link: Client quit",
    );
    assert_eq!(world.hub.watchers.len(), 0);
}

#[test]
fn the_list_has_a_bound() {
    let mut world = world();
    for n in 2..MOST {
        world.say("a", format!("MONITOR + n{n}"));
    }
    world.mail();
    world.play(
        "a> MONITOR + n2,b,x,1,n3,y
        a< :s 734 a 100 x,n3,y :MONITOR list is full
        a< :s 731 a :n2,b
        a> MONITOR - n2
        a> MONITOR + x
        a< :s 731 a :x",
    );
    assert_eq!(world.hub.watchers.len(), MOST);
}

#[test]
fn a_watcher_that_asked_for_more_hears_once_of_each_member() {
    let mut world = world();
    world.say("a", "CAP REQ :extended-monitor away-notify setname");
    world.say("a", "MONITOR + d,far");
    world.say("far", "PING t");
    world.mail();
    world.play(
        "d> AWAY :gone
        a< :d!d@h AWAY :gone
        d< :s 306 d :You have been marked as being away
        far> AWAY :gone
        a< :far!far@h AWAY :gone
        far< :s 306 far :You have been marked as being away
        far> SETNAME :Far
        a< :far!far@h SETNAME :Far
        a> CAP REQ :-extended-monitor
        a< :s CAP a ACK :-extended-monitor
        far> AWAY
        far< :s 305 far :You are no longer marked as being away
        d> SETNAME :D
        a< :d!d@h SETNAME :D",
    );
}

#[test]
fn each_watcher_is_told_once_when_many_watch() {
    let mut world = World::new(settings());
    for n in 0..50 {
        world.say(&format!("m{n}"), "MONITOR + b,B,c");
    }
    world.mail();
    world.say("b", "PING t");
    let id = world.ids["b"];
    world.hub.cut(id, "cut");
    let mail = world.mail();
    for n in 0..50 {
        assert_eq!(mail[&format!("m{n}")], [format!(":s 731 m{n} :b")]);
    }
    world.hub.shut_down();
    assert_eq!(world.hub.watchers.len(), 0);
}
