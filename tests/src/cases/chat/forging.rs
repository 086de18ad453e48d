//! Forging: whatever a member sends, what others are sent is what the server meant.

use crate::cases::{Case, cases};
use crate::member::{Member, Message, gather};
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    no_parameter_makes_others_see_another_line needs 3,
    no_name_of_a_newcomer_makes_others_see_another_line needs 2,
];

/// What some client takes for an end or a start of something.
const BAD: &[&str] = &[
    "\r:s 001 bob :x",
    "a\0\r\0b",
    " :s 001 bob :x",
    ":@time=1 :s 001 bob :x",
    "a b",
    "a,b",
    "a;time=1;label=x",
    "\\r\\n:s",
    "\u{202e}",
    "\u{85}\u{2028}",
    "\x07\x1b[2J",
    "*!*@*,#c",
];

/// Every command with every parameter of it that another member may come to see, but for those of
/// operators of the server, which have a case of their own.
const LINES: &[&str] = &[
    "AWAY :{}",
    "AWAY {}",
    "SETNAME :{}",
    "TOPIC #c :{}",
    "TOPIC #c {}",
    "KICK #c cid :{}",
    "KICK #c {}",
    "MODE #c +k {}",
    "MODE #c -k {}",
    "MODE #c +bb {} {}",
    "MODE #c +e {}",
    "MODE #c +I :{}",
    "MODE #c +o {}",
    "MODE #c {}",
    "MODE ann {}",
    "JOIN {}",
    "JOIN #d{} {}",
    "PART #d :{}",
    "INVITE bob {}",
    "PRIVMSG #c :{}",
    "PRIVMSG {},bob :{}",
    "NOTICE @#c,bob {}",
    "TAGMSG {}",
    "@{} PRIVMSG #c :{}",
    "@+x={} TAGMSG #c",
    "@label={};+{} NOTICE bob :{}",
    ":{} PRIVMSG #c :{}",
    "{} #c :{}",
    "WHO #c %tna,{}",
    "WHOIS {}",
    "MONITOR + {}",
    "WALLOPS :{}",
    "KILL bob :{}",
    "HELP {}",
    "CAP REQ :{}",
];

/// Each line that another gets has a source and a command that are the member's own, or is an
/// answer with as many parameters as it has.
#[track_caller]
fn is_meant(message: &Message, said: &str) {
    let tags = message.tags.split(';').filter(|tag| !tag.is_empty());
    for tag in tags {
        let own = tag.starts_with("time=20") || tag.starts_with("msgid=") || tag.starts_with('+');
        assert!(own && !tag.contains(char::is_control), "{message:?} after {said:?}");
    }
    let count = match message.command.as_str() {
        "PRIVMSG" | "NOTICE" | "TOPIC" | "INVITE" => 2..=2,
        "AWAY" => 0..=1,
        "TAGMSG" | "SETNAME" => 1..=1,
        "JOIN" => 3..=3,
        "PART" => 1..=2,
        "KICK" => 3..=3,
        "MODE" => 2..=8,
        "352" => 8..=8,
        "311" => 6..=6,
        "322" | "333" | "353" => 4..=4,
        "332" | "301" | "319" => 3..=3,
        "367" => 5..=5,
        "312" | "315" | "317" | "318" | "321" | "323" | "366" | "368" | "324" | "329" | "331" => {
            1..=6
        }
        _ => panic!("{message:?} after {said:?}"),
    };
    let told = message.params.len();
    assert!(count.contains(&told), "{told} parameters of {message:?} after {said:?}");
    let numeric = message.command.as_bytes()[0].is_ascii_digit();
    let by_ann = message.source == "ann!ann@127.0.0.1";
    assert!(by_ann || numeric && !message.source.contains('!'), "{message:?} after {said:?}");
    let middle = message.params.len().saturating_sub(1);
    let bad = |param: &String| param.contains(char::is_control) || param.contains('\u{202e}');
    assert!(!message.params[..middle].iter().any(bad), "{message:?} after {said:?}");
}

#[track_caller]
fn asks(bob: &mut Member, said: &str) {
    for message in bob.sync() {
        is_meant(&message, said);
    }
    for question in ["WHO #c", "WHOIS ann", "LIST", "NAMES #c", "MODE #c b", "TOPIC #c"] {
        bob.say(question);
        for message in bob.sync() {
            is_meant(&message, &format!("{said}, then {question}"));
        }
    }
}

/// Of none of the commands that a member may send.
fn no_parameter_makes_others_see_another_line(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob, mut cid) =
        (server.member("ann"), server.member("bob"), server.member("cid"));
    gather("#c", &mut [&mut ann, &mut bob, &mut cid]);
    let all = "message-tags server-time away-notify setname extended-join invite-notify";
    bob.ask(&format!("CAP REQ :{all} extended-monitor"), "CAP");
    ann.ask("CAP REQ :message-tags labeled-response batch", "CAP");
    bob.say("MODE bob +w");
    bob.ask("MONITOR + ann", "MODE");
    bob.sync();
    for line in LINES {
        for bad in BAD {
            let said = line.replace("{}", bad);
            ann.say(&said);
            ann.sync();
            asks(&mut bob, &said);
        }
    }
}

/// NICK and USER: names are made harmless, or refused.
fn no_name_of_a_newcomer_makes_others_see_another_line(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut bob = server.member("bob");
    bob.join("#c");
    for bad in BAD {
        let mut ann = Member::stranger(server.client());
        ann.say(format!("NICK {bad}"));
        ann.say(format!("USER {bad} 0 * :{bad}"));
        ann.say("USER ann 0 * :Ann");
        ann.say("NICK ann");
        ann.say("JOIN #c");
        ann.through("366");
        let join = bob.gets("JOIN");
        let (nick, rest) = join.source.split_once('!').expect("a mask");
        let (user, host) = rest.split_once('@').expect("a mask");
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(plain(nick) && plain(user) && host == "127.0.0.1", "{join:?} after {bad:?}");
        bob.say("WHO #c");
        for message in bob.through("315").iter().filter(|message| message.command == "352") {
            assert_eq!(message.params.len(), 8, "{message:?} after {bad:?}");
        }
        ann.say(format!("QUIT :{bad}"));
        ann.client.read_to_end();
        assert_eq!(bob.next().command, "QUIT");
    }
    bob.hears_nothing();
}
