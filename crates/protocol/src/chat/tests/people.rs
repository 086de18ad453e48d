//! What members say of themselves, and what others learn of them: AWAY, modes, WHO, WHOIS, WHOWAS.

use super::*;

/// a and b are the only members of #c; stranger is in no channel.
fn world() -> World {
    let mut world = World::new(settings());
    for name in ["a", "b"] {
        world.say(name, "JOIN #c");
    }
    world.say("stranger", "PING t");
    world.mail();
    world
}

#[test]
fn modes_of_members() {
    world().play(
        "a> MODE A
        a< :s 221 a +
        a> MODE a +iwo-x+i
        a< :s 501 a :Unknown MODE flag
        a< :a!a@h MODE a :+iw
        a> MODE a
        a< :s 221 a +iw
        a> MODE a -i+w
        a< :a!a@h MODE a :-i
        a> MODE a -i
        a> LUSERS
        a< :s 251 a :There are 3 users and 0 invisible on 1 server
        a< :s 252 a 0 :operator(s) online
        a< :s 253 a 0 :unknown connection(s)
        a< :s 254 a 1 :channels formed
        a< :s 255 a :I have 3 clients and 0 servers
        a< :s 265 a 3 3 :Current local users 3, max 3
        a< :s 266 a 3 3 :Current global users 3, max 3
        a> MODE b
        a< :s 502 a :Cannot change mode for other users
        a> MODE b +i
        a< :s 502 a :Cannot change mode for other users
        a> MODE nobody
        a< :s 401 a nobody :No such nick
        a> MODE
        a< :s 461 a MODE :Not enough parameters",
    );
}

#[test]
fn a_channel_where_all_are_invisible_is_an_empty_one_to_others() {
    world().play(
        "a> MODE a +i
        a< :a!a@h MODE a :+i
        b> MODE b +i
        b< :b!b@h MODE b :+i
        stranger> NAMES #c
        stranger< :s 366 stranger #c :End of NAMES list
        a> NAMES #c
        a< :s 353 a = #c :@a b
        a< :s 366 a #c :End of NAMES list",
    );
}

#[test]
fn who_is_away_is_told_of() {
    let long = "é".repeat(200);
    world().play(&format!(
        "b> AWAY :{long}
        b< :s 306 b :You have been marked as being away
        a> PRIVMSG b,#c,b :x
        b< :a!a@h PRIVMSG b :x
        b< :a!a@h PRIVMSG #c :x
        a< :s 301 a b :{clipped}
        a> NOTICE b :x
        b< :a!a@h NOTICE b :x
        a> USERHOST a b
        a< :s 302 a :a=+a@h b=-b@h
        a> WHO b
        a< :s 352 a * b h s b G :0 Real b
        a< :s 315 a b :End of WHO list
        stranger> WHOIS b
        stranger< :s 311 stranger b b h * :Real b
        stranger< :s 319 stranger b :#c
        stranger< :s 312 stranger b s :one protocol, every I/O model
        stranger< :s 301 stranger b :{clipped}
        stranger< :s 317 stranger b 0 1007 :seconds idle, signon time
        stranger< :s 318 stranger b :End of WHOIS list
        a> JOIN #d
        a< :a!a@h JOIN #d
        a< :s 353 a = #d :@a
        a< :s 366 a #d :End of NAMES list
        a> INVITE b #d
        b< :a!a@h INVITE b #d
        a< :s 341 a b #d
        a< :s 301 a b :{clipped}
        b> AWAY :
        b< :s 305 b :You are no longer marked as being away
        a> PRIVMSG b :x
        b< :a!a@h PRIVMSG b :x
        b> AWAY
        b< :s 305 b :You are no longer marked as being away",
        clipped = "é".repeat(100),
    ));
}

#[test]
fn who_takes_masks_and_all() {
    let all = "
        a< :s 352 a * a h s a H :0 Real a
        a< :s 352 a * b h s b H :0 Real b
        a< :s 352 a * stranger h s stranger H :0 Real stranger";
    world().play(&format!(
        "a> WHO *{all}
        a< :s 315 a * :End of WHO list
        a> WHO{all}
        a< :s 315 a * :End of WHO list
        a> WHO 0{all}
        a< :s 315 a 0 :End of WHO list
        a> WHO ?
        a< :s 352 a * a h s a H :0 Real a
        a< :s 352 a * b h s b H :0 Real b
        a< :s 352 a * stranger h s stranger H :0 Real stranger
        a< :s 315 a ? :End of WHO list
        a> WHO *TRA*
        a< :s 352 a * stranger h s stranger H :0 Real stranger
        a< :s 315 a *TRA* :End of WHO list
        a> WHO * o
        a< :s 315 a * :End of WHO list
        a> WHO x*
        a< :s 315 a x* :End of WHO list
        a> WHO {long}
        a< :s 315 a {long} :End of WHO list
        stranger> MODE stranger +i
        stranger< :stranger!stranger@h MODE stranger :+i
        a> WHO s*
        a< :s 315 a s* :End of WHO list
        a> WHO STRANGER
        a< :s 352 a * stranger h s stranger H :0 Real stranger
        a< :s 315 a STRANGER :End of WHO list",
        long = "*".repeat(65)
    ));
}

#[test]
fn invisible_members_are_seen_by_those_who_share_a_channel() {
    world().play(
        "b> MODE b +i
        b< :b!b@h MODE b :+i
        a> WHO b*
        a< :s 352 a * b h s b H :0 Real b
        a< :s 315 a b* :End of WHO list
        stranger> WHO b*
        stranger< :s 315 stranger b* :End of WHO list
        stranger> WHO #c
        stranger< :s 352 stranger #c a h s a H@ :0 Real a
        stranger< :s 315 stranger #c :End of WHO list
        stranger> NAMES #c
        stranger< :s 353 stranger = #c :@a
        stranger< :s 366 stranger #c :End of NAMES list
        a> NAMES #c
        a< :s 353 a = #c :@a b
        a< :s 366 a #c :End of NAMES list",
    );
}

#[test]
fn whox_tells_what_is_asked_for() {
    world().play(
        "a> WHO b %tcuihsnfdlaor,123
        a< :s 354 a 123 * b h h s b H 0 0 0 n/a :Real b
        a< :s 315 a b :End of WHO list
        a> WHO #c %nfc
        a< :s 354 a #c a H@
        a< :s 354 a #c b H
        a< :s 315 a #c :End of WHO list
        a> WHO b %tn,1234
        a< :s 354 a 0 b
        a< :s 315 a b :End of WHO list
        a> WHO b %tn,1\u{202e}
        a< :s 354 a 0 b
        a< :s 315 a b :End of WHO list
        a> WHO b o%n
        a< :s 315 a b :End of WHO list",
    );
}

#[test]
fn whox_tells_how_long_a_member_has_been_silent() {
    let mut world = world();
    world.now = Time::from_millis(67_900);
    world.play("a> NOTICE stranger :x\nstranger< :a!a@h NOTICE stranger :x");
    world.now = Time::from_millis(69_900);
    world.play(
        "b> WHO #c %nl
        b< :s 354 b a 2
        b< :s 354 b b 62
        b< :s 315 b #c :End of WHO list",
    );
}

#[test]
fn whowas_tells_the_latest_first() {
    let mut world = world();
    world.now = Time::from_millis(60_000);
    world.play(
        "b> NICK bob
        b< :b!b@h NICK bob
        a< :b!b@h NICK bob
        stranger> NICK b
        stranger< :stranger!stranger@h NICK b
        stranger> QUIT
        stranger< *close ERROR :Closing link: Client quit
        a> WHOWAS B
        a< :s 314 a b stranger h * :Real stranger
        a< :s 312 a b s :1970-01-01T00:17:40Z
        a< :s 314 a b b h * :Real b
        a< :s 312 a b s :1970-01-01T00:17:40Z
        a< :s 369 a B :End of WHOWAS
        a> WHOWAS b 1
        a< :s 314 a b stranger h * :Real stranger
        a< :s 312 a b s :1970-01-01T00:17:40Z
        a< :s 369 a b :End of WHOWAS
        a> WHOWAS b 0
        a< :s 314 a b stranger h * :Real stranger
        a< :s 312 a b s :1970-01-01T00:17:40Z
        a< :s 314 a b b h * :Real b
        a< :s 312 a b s :1970-01-01T00:17:40Z
        a< :s 369 a b :End of WHOWAS
        a> WHOWAS nobody,b -1
        a< :s 406 a nobody :There was no such nickname
        a< :s 369 a nobody :End of WHOWAS
        a< :s 314 a b stranger h * :Real stranger
        a< :s 312 a b s :1970-01-01T00:17:40Z
        a< :s 314 a b b h * :Real b
        a< :s 312 a b s :1970-01-01T00:17:40Z
        a< :s 369 a b :End of WHOWAS
        a> WHOWAS
        a< :s 431 a :No nickname given",
    );
}

#[test]
fn the_server_tells_of_itself() {
    let mut world = world();
    world.now = Time::from_millis(90_061_000);
    world.play(
        "a> TIME
        a< :s 391 a s :1970-01-02T01:17:41Z
        a> INFO
        a< :s 371 a :iomodels-...
        a< :s 371 a :This server was started 1970-01-01T00:16:40Z
        a< :s 374 a :End of INFO list
        a> ADMIN
        a< :s 423 a s :No administrative info available
        a> STATS u
        a< :s 242 a :Server Up 1 days 1:01:01
        a< :s 219 a u :End of STATS report
        a> STATS k
        a< :s 219 a k :End of STATS report
        a> LINKS
        a< :s 364 a s s :0 one protocol, every I/O model
        a< :s 365 a * :End of LINKS list
        a> LINKS s *.Example
        a< :s 364 a s s :0 one protocol, every I/O model
        a< :s 365 a *.Example :End of LINKS list",
    );
    let mut settings = settings();
    settings.chat.admin = Some("root@example.org".to_owned());
    World::new(settings).play(
        "a> ADMIN
        a< :s 256 a s :Administrative info
        a< :s 257 a :net
        a< :s 258 a :iomodels-...
        a< :s 259 a :root@example.org",
    );
}

#[test]
fn the_time_since_the_start_is_told_in_days_hours_minutes_and_seconds() {
    for (seconds, told) in [
        (7, "0 days 0:00:07"),
        (3_599, "0 days 0:59:59"),
        (86_399, "0 days 23:59:59"),
        (2 * 86_400 + 3 * 3_600 + 4 * 60 + 5, "2 days 3:04:05"),
    ] {
        let mut world = World::new(settings());
        world.now = Time::from_millis(seconds * 1_000);
        world.play(&format!(
            "a> STATS u
            a< :s 242 a :Server Up {told}
            a< :s 219 a u :End of STATS report"
        ));
    }
}

#[test]
fn users_are_counted_as_visible_or_invisible() {
    world().play(
        "a> MODE a +i
        a< :a!a@h MODE a :+i
        b> LUSERS
        b< :s 251 b :There are 2 users and 1 invisible on 1 server
        b< :s 252 b 0 :operator(s) online
        b< :s 253 b 0 :unknown connection(s)
        b< :s 254 b 1 :channels formed
        b< :s 255 b :I have 3 clients and 0 servers
        b< :s 265 b 3 3 :Current local users 3, max 3
        b< :s 266 b 3 3 :Current global users 3, max 3",
    );
}

#[test]
fn who_takes_a_mask_of_64_bytes_and_none_that_is_longer() {
    let (longest, longer) = (["s", &"*".repeat(63)].concat(), ["s", &"*".repeat(64)].concat());
    world().play(&format!(
        "a> WHO {longest}
        a< :s 352 a * stranger h s stranger H :0 Real stranger
        a< :s 315 a {longest} :End of WHO list
        a> WHO {longer}
        a< :s 315 a {longer} :End of WHO list",
    ));
}

#[test]
fn a_real_name_may_be_as_long_as_namelen_says() {
    let longest = "é".repeat(64);
    world().play(&format!(
        "a> SETNAME :{longest}
        b> SETNAME :{longest}x
        b< :s FAIL SETNAME INVALID_REALNAME :Real name is empty or too long
        stranger> WHO #c %nr
        stranger< :s 354 stranger a :{longest}
        stranger< :s 354 stranger b :Real b
        stranger< :s 315 stranger #c :End of WHO list",
    ));
}
