//! What a capability changes, and for whom.

use super::*;

/// a, b and c share #c; a leads it and has the capabilities `caps`, and so has b.
fn world(caps: &str) -> World {
    let mut world = World::new(settings());
    for name in ["a", "b", "c"] {
        world.say(name, "JOIN #c");
    }
    for name in ["a", "b"] {
        world.say(name, format!("CAP REQ :{caps}"));
    }
    world.say("d", "PING t");
    world.mail();
    world
}

const TIME: &str = "@time=1970-01-01T00:16:47.000Z";

#[test]
fn a_line_has_its_time_for_those_who_asked() {
    let mut world = world("server-time");
    world.play(&format!(
        "c> PRIVMSG #c :x
        a< {TIME} :c!c@h PRIVMSG #c :x
        b< {TIME} :c!c@h PRIVMSG #c :x
        a> MODE #c +v c
        a< {TIME} :a!a@h MODE #c +v c
        b< {TIME} :a!a@h MODE #c +v c
        c< :a!a@h MODE #c +v c
        c> QUIT
        c< *close ERROR :Closing link: Client quit
        a< {TIME} :c!c@h QUIT :Client quit
        b< {TIME} :c!c@h QUIT :Client quit"
    ));
    // What comes to pass without a line has no time that the hub knows.
    let id = world.ids["b"];
    world.hub.leave(id, "Reset");
    world.expect(&[("a", ":b!b@h QUIT :Reset")]);
}

#[test]
fn one_message_is_encoded_once_for_each_kind_of_receiver() {
    let mut world = World::new(settings());
    for n in 0..30 {
        let name = format!("m{n}");
        world.say(&name, "JOIN #c");
        let caps = ["", "server-time", "message-tags", "server-time message-tags"][n % 4];
        world.say(&name, format!("CAP REQ :{caps}"));
    }
    world.mail();
    world.say("m0", "PRIVMSG #c :x");
    let mut mail = Vec::new();
    world.hub.take(0, &mut mail);
    assert_eq!(mail.len(), 29);
    let mut texts = BTreeMap::new();
    for Mail { parcel, .. } in mail {
        let Parcel::Text(text) = parcel else { panic!("no text") };
        texts.entry(text.to_vec()).or_insert_with(|| Arc::clone(&text));
        assert!(Arc::ptr_eq(&texts[&text.to_vec()], &text), "encoded twice");
    }
    assert_eq!(texts.len(), 4);
}

#[test]
fn names_and_who_show_all_ranks_and_masks() {
    let mut world = world("multi-prefix");
    world.say("a", "MODE #c +v a");
    world.mail();
    world.play(
        "a> NAMES #c
        a< :s 353 a = #c :@+a b c
        a< :s 366 a #c :End of NAMES list
        c> NAMES #c
        c< :s 353 c = #c :@a b c
        c< :s 366 c #c :End of NAMES list
        a> WHO #c %nf
        a< :s 354 a a H@+
        a< :s 354 a b H
        a< :s 354 a c H
        a< :s 315 a #c :End of WHO list
        a> CAP REQ :userhost-in-names -multi-prefix
        a< :s CAP a ACK :userhost-in-names -multi-prefix
        a> NAMES #c
        a< :s 353 a = #c :@a!a@h b!b@h c!c@h
        a< :s 366 a #c :End of NAMES list",
    );
}

#[test]
fn a_join_tells_more_to_those_who_asked() {
    world("extended-join").play(
        "d> JOIN #c
        d< :d!d@h JOIN #c
        d< :s 353 d = #c :@a b c d
        d< :s 366 d #c :End of NAMES list
        a< :d!d@h JOIN #c * :Real d
        b< :d!d@h JOIN #c * :Real d
        c< :d!d@h JOIN #c
        a> JOIN #e
        a< :a!a@h JOIN #e * :Real a
        a< :s 353 a = #e :@a
        a< :s 366 a #e :End of NAMES list",
    );
}

#[test]
fn going_away_is_told_to_members_that_asked_and_share_a_channel() {
    let mut world = world("away-notify");
    world.say("c", "JOIN #e");
    world.say("a", "JOIN #e");
    world.mail();
    world.play(
        "c> AWAY :gone
        c< :s 306 c :You have been marked as being away
        a< :c!c@h AWAY :gone
        b< :c!c@h AWAY :gone
        c> AWAY :gone
        c< :s 306 c :You have been marked as being away
        d> AWAY :too
        d< :s 306 d :You have been marked as being away
        d> JOIN #c
        d< :d!d@h JOIN #c
        d< :s 353 d = #c :@a b c d
        d< :s 366 d #c :End of NAMES list
        a< :d!d@h JOIN #c
        a< :d!d@h AWAY :too
        b< :d!d@h JOIN #c
        b< :d!d@h AWAY :too
        c< :d!d@h JOIN #c
        c> AWAY
        c< :s 305 c :You are no longer marked as being away
        a< :c!c@h AWAY
        b< :c!c@h AWAY",
    );
}

#[test]
fn real_names_change_for_those_who_asked() {
    let long = "n".repeat(129);
    world("setname").play(&format!(
        "b> SETNAME :New Name
        b< :b!b@h SETNAME :New Name
        a< :b!b@h SETNAME :New Name
        c> SETNAME :Other
        a< :c!c@h SETNAME :Other
        b< :c!c@h SETNAME :Other
        a> WHO c %r
        a< :s 354 a :Other
        a< :s 315 a c :End of WHO list
        a> SETNAME :
        a< :s FAIL SETNAME INVALID_REALNAME :Real name is empty or too long
        a> SETNAME :{long}
        a< :s FAIL SETNAME INVALID_REALNAME :Real name is empty or too long"
    ));
}

#[test]
fn operators_hear_of_invitations() {
    let mut world = world("invite-notify");
    world.play(
        "c> INVITE d #c
        c< :s 341 c d #c
        d< :c!c@h INVITE d #c
        a< :c!c@h INVITE d #c
        a> INVITE d #c
        a< :s 341 a d #c
        d< :a!a@h INVITE d #c",
    );
}

#[test]
fn an_echo_comes_to_those_who_asked() {
    world("echo-message").play(
        "a> PRIVMSG #c,d,nobody :x
        a< :a!a@h PRIVMSG #c :x
        a< :a!a@h PRIVMSG d :x
        a< :s 401 a nobody :No such nick
        b< :a!a@h PRIVMSG #c :x
        c< :a!a@h PRIVMSG #c :x
        d< :a!a@h PRIVMSG d :x
        a> NOTICE a :me
        a< :a!a@h NOTICE a :me
        a< :a!a@h NOTICE a :me",
    );
}

#[test]
fn tags_of_clients_go_to_those_who_understand_them() {
    let mut world = world("message-tags");
    world.say("a", "@+x=y;time=1;label=z PRIVMSG #c :hi");
    let mail = world.mail();
    let line = mail["b"][0].strip_prefix("@msgid=").unwrap();
    let (_, line) = line.split_once(';').unwrap();
    assert_eq!(line, "+x=y :a!a@h PRIVMSG #c :hi");
    assert_eq!(mail["c"], [":a!a@h PRIVMSG #c :hi"]);
    // One that has not asked sends none.
    world.say("c", "@+x=y PRIVMSG #c :hi");
    assert!(world.mail()["b"][0].ends_with(" :c!c@h PRIVMSG #c :hi"));
    world.say("a", "@+x=y TAGMSG #c,b,d");
    let mail = world.mail();
    assert!(mail["b"][0].ends_with(";+x=y :a!a@h TAGMSG #c"), "{mail:?}");
    assert!(mail["b"][1].ends_with(";+x=y :a!a@h TAGMSG b"), "{mail:?}");
    assert_eq!(mail.len(), 1, "{mail:?}");
    world.play(
        "c> TAGMSG #c
        c< :s 421 c TAGMSG :Unknown command
        a> TAGMSG
        a< :s 411 a :No recipient given (PRIVMSG)
        a> TAGMSG #none
        a< :s 403 a #none :No such channel",
    );
}

#[test]
fn tags_have_a_bound() {
    let mut world = world("message-tags");
    let tags = |len: usize| format!("@+x={}", "y".repeat(len - "@+x= ".len()));
    world.say("a", format!("{} PRIVMSG #c :hi", tags(4096)));
    assert!(world.mail()["b"][0].len() > 4096);
    world.play(&format!(
        "a> {} PRIVMSG #c :hi
        a< :s 417 a :Input line was too long
        a> {} PRIVMSG #c :{}
        a< :s 417 a :Input line was too long
        a> PRIVMSG #c :{}
        a< :s 417 a :Input line was too long",
        tags(4097),
        tags(100),
        "x".repeat(500),
        "x".repeat(500)
    ));
}

#[test]
fn a_label_comes_back() {
    let mut world = world("labeled-response batch echo-message");
    world.play(
        "a> @label=1 PRIVMSG c :x
        a< @label=1 :a!a@h PRIVMSG c :x
        c< :a!a@h PRIVMSG c :x
        a> @label=2 PONG x
        a< @label=2 :s ACK
        a> @label=3 PING x
        a< @label=3 :s PONG s :x
        a> @label=4 MODE #c
        a< @label=4 :s BATCH +4 labeled-response
        a< @batch=4 :s 324 a #c +n
        a< @batch=4 :s 329 a #c 1007
        a< :s BATCH -4
        a> @label= PONG x
        a> @label=\u{7} PONG x
        a> @label PONG x
        a> @label=5 PRIVMSG a :x
        a< :a!a@h PRIVMSG a :x
        a< @label=5 :a!a@h PRIVMSG a :x
        c> @label=6 PONG x
        a> @label=7 QUIT
        a< *close ERROR :Closing link: Client quit
        b< :a!a@h QUIT :Client quit
        c< :a!a@h QUIT :Client quit",
    );
}

#[test]
fn capabilities_are_all_or_none() {
    let many = "batch ".repeat(60);
    world("").play(&format!(
        "a> CAP REQ :batch sasl
        a< :s CAP a NAK :batch sasl
        a> CAP LIST
        a< :s CAP a LIST :
        a> CAP REQ :{many}
        a< :s CAP a NAK :batch ...
        a> CAP REQ
        a< :s CAP a ACK :
        a> CAP REQ :batch setname
        a< :s CAP a ACK :batch setname
        a> CAP LIST
        a< :s CAP a LIST :batch setname"
    ));
}

#[test]
fn a_capability_that_is_asked_for_twice_is_there() {
    let mut world = world("server-time");
    world.say("a", "CAP REQ :server-time");
    world.mail();
    world.play(&format!(
        "c> PRIVMSG a :x
        a< {TIME} :c!c@h PRIVMSG a :x"
    ));
}

#[test]
fn a_list_of_capabilities_does_not_hold_registration() {
    let mut world = World::new(settings());
    for line in ["CAP LIST", "NICK x", "USER x 0 * :R"] {
        world.say("?x", line);
    }
    assert!(world.mail()["?x"].iter().any(|line| line == "*welcome"));
}

#[test]
fn a_label_comes_back_only_with_both_of_its_capabilities() {
    for one in ["labeled-response", "batch"] {
        world(one).play("a> @label=1 PING x\na< :s PONG s :x");
    }
    world("labeled-response batch").play("a> @label=1 PING x\na< @label=1 :s PONG s :x");
}

#[test]
fn a_new_tenant_has_no_capabilities_of_the_former_one() {
    let mut world = world("server-time");
    let id = world.ids["b"];
    world.hub.leave(id, "Reset");
    world.mail();
    world.ids.remove("b");
    world.ids.insert("e".to_owned(), conn(0, 2, id.slot()));
    world.hub.open(world.ids["e"], "h", world.now);
    for line in ["NICK e", "USER e 0 * :E", "JOIN #c"] {
        world.say("e", line);
    }
    world.mail();
    world.say("c", "PRIVMSG #c :x");
    assert_eq!(world.mail()["e"], [":c!c@h PRIVMSG #c :x"]);
}
