//! Forging: whatever a member sends, what others are sent is what the server meant.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::oper::settings_with_operators;
use super::*;
use crate::chat::names;

/// What some client takes for an end or a start of something.
const PIECES: &[&str] = &[
    "\r",
    "\n",
    "\0",
    "\r\n:s NOTICE v :x",
    " ",
    "  ",
    ":",
    " :",
    ":s 001 v :x",
    "@",
    "@time=1 ",
    ";",
    ";label=x",
    ";time=1",
    "=",
    "+x=y",
    "\\",
    "\\:\\s\\r\\n",
    "!",
    "!a@h",
    "#c",
    "#",
    ",",
    "*",
    "?",
    "%",
    "$",
    "~",
    "a",
    "x",
    "v",
    "9",
    "é",
    "\u{202e}",
    "\u{85}",
    "\u{2028}",
    "\u{1b}[2J",
    "\u{1}",
    "\u{7f}",
    "root right",
    "0123456789012345678901234567890123456789012345678901234567890123456789",
];

/// Every command with every parameter of it that another member may come to see.
const LINES: &[&str] = &[
    "NICK {}",
    "NICK :{}",
    "NICK x{}",
    "AWAY :{}",
    "AWAY {}",
    "SETNAME :{}",
    "TOPIC #c :{}",
    "TOPIC #c {}",
    "KICK #c v :{}",
    "KICK #c {} {}",
    "MODE #c +k {}",
    "MODE #c +k :{}",
    "MODE #c +b {}",
    "MODE #c +beI {} {} {}",
    "MODE #c +l {}",
    "MODE #c +ov {} {}",
    "MODE #c {}",
    "MODE x {}",
    "JOIN {}",
    "JOIN #{} {}",
    "PART #c :{}",
    "PART {}",
    "INVITE v {}",
    "INVITE {} #c",
    "PRIVMSG #c :{}",
    "PRIVMSG {} :{}",
    "PRIVMSG @#c,v{} :{}",
    "NOTICE v {}",
    "TAGMSG {}",
    "@{} PRIVMSG #c :{}",
    "@+x={} TAGMSG #c",
    "@label={};+{} PRIVMSG v :{}",
    "@label={} TOPIC #c :{}",
    "@label={} MONITOR + {}",
    "@{}=1;+y JOIN #d",
    ":{} PRIVMSG #c :{}",
    "{} #c :{}",
    "WHO #c %tna,{}",
    "WHO {} {}",
    "WHOIS {}",
    "WHOWAS {}",
    "LIST {}",
    "NAMES {}",
    "MONITOR {} {}",
    "OPER {} {}",
    "OPER root right",
    "KILL v :{}",
    "KILL {} {}",
    "WALLOPS :{}",
    "STATS {}",
    "HELP {}",
    "CAP REQ :{}",
    "CAP {} {}",
    "QUIT :{}",
];

/// What others ask afterwards.
const QUESTIONS: &[&str] = &[
    "WHO #c",
    "WHO *",
    "WHO #c %tcuihsnfdlaor,42",
    "WHOIS x",
    "WHOWAS x",
    "LIST",
    "NAMES #c",
    "MODE #c",
    "MODE #c b",
    "TOPIC #c",
    "USERHOST x",
    "MONITOR S",
    "PRIVMSG x :hi",
];

/// How many parameters an answer has.
const ANSWERS: &[(&str, usize)] = &[
    ("301", 3),
    ("302", 2),
    ("311", 6),
    ("312", 4),
    ("314", 6),
    ("317", 5),
    ("319", 3),
    ("322", 4),
    ("332", 3),
    ("333", 4),
    ("352", 8),
    ("353", 4),
    ("354", 14),
    ("367", 5),
    ("730", 2),
    ("731", 2),
];

/// x leads #c, where v and w are as well. Both watch for x; v has asked for all that changes what
/// it hears of others, and x for tags and labels.
fn stage(user: &str, real: &str) -> World {
    let mut world = World::new(settings_with_operators());
    world.connect("?x");
    world.say("?x", "NICK x");
    world.say("?x", format!("USER {user} 0 * :{real}"));
    world.say("?x", "USER x 0 * :x");
    world.say("?x", "CAP REQ :message-tags labeled-response batch echo-message");
    for name in ["?x", "v", "w"] {
        world.say(name, "JOIN #c");
        world.say(name, "MONITOR + x,y");
    }
    world.say("v", "CAP REQ :message-tags server-time away-notify setname extended-monitor");
    world.say("v", "CAP REQ :extended-join invite-notify userhost-in-names multi-prefix");
    world.say("w", "MODE w +w");
    world.mail();
    world
}

/// The mask that x has now.
fn mask(world: &World) -> Option<String> {
    let key = world.hub.members.find(world.ids["?x"])?;
    Some(String::from_utf8(world.hub.members[key].mask.to_vec()).unwrap())
}

/// Asserts that a line for another is one that the server means.
fn assert_meant(line: &str, masks: &BTreeSet<String>, said: &str) {
    if let Some(last) = line.strip_prefix("*close ") {
        return assert!(last.starts_with("ERROR :Closing link: "), "{last:?} after {said:?}");
    }
    let (tags, line) = match line.strip_prefix('@') {
        Some(rest) => rest.split_once(' ').unwrap(),
        None => ("", line),
    };
    for tag in tags.split(';').filter(|tag| !tag.is_empty()) {
        let (name, value) = tag.split_once('=').unwrap_or((tag, ""));
        let own = matches!(name, "msgid" | "time" | "bot");
        let client = name.starts_with('+') && !tag.contains(char::is_control);
        assert!(own && value.len() < 30 || client, "the tag {tag:?} after {said:?}");
    }
    let (source, rest) = line.strip_prefix(':').unwrap().split_once(' ').unwrap();
    let (command, params) = rest.split_once(' ').unwrap_or((rest, ""));
    if source != "s" {
        let nick = source.split('!').next().unwrap();
        assert!(names::is_nick(nick.as_bytes()), "{line:?} after {said:?}");
        let by = masks.contains(source) || ["v!v@h", "w!w@h"].contains(&source);
        assert!(by, "{line:?} after {said:?}");
        let known =
            b"PRIVMSG NOTICE TAGMSG NICK JOIN PART KICK QUIT TOPIC MODE INVITE AWAY SETNAME \
            KILL WALLOPS";
        let known = known.split(|byte| *byte == b' ').any(|other| other == command.as_bytes());
        return assert!(known, "{line:?} after {said:?}");
    }
    let (middle, last) = match format!(" {params}").split_once(" :") {
        Some((middle, last)) => (middle.to_owned(), Some(last.to_owned())),
        None => (params.to_owned(), None),
    };
    let bad = |c: char| c.is_control() || c == '\u{202e}';
    assert!(!middle.contains(bad), "{line:?} after {said:?}");
    if let Some((_, count)) = ANSWERS.iter().find(|(numeric, _)| *numeric == command) {
        let told = middle.split_ascii_whitespace().count() + usize::from(last.is_some());
        assert_eq!(told, *count, "the parameters of {line:?} after {said:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_parameter_of_any_command_forges_a_line(
        about in vec(vec(select(PIECES), 0..4), 2),
        script in vec((select(LINES), vec(vec(select(PIECES), 0..5), 3)), 1..25),
        questions in vec(select(QUESTIONS), 25),
    ) {
        let mut world = stage(&about[0].concat(), &about[1].concat());
        let mut masks: BTreeSet<String> = mask(&world).into_iter().collect();
        for ((line, texts), question) in script.iter().zip(questions) {
            let mut parts = line.split("{}");
            let mut said = parts.next().unwrap().to_owned();
            for (text, part) in texts.iter().zip(parts) {
                said += &text.concat();
                said += part;
            }
            world.say("?x", &said);
            masks.extend(mask(&world));
            let told = world.mail();
            for name in ["v", "w"] {
                for line in told.get(name).into_iter().flatten() {
                    assert_meant(line, &masks, &said);
                    let answer = line.strip_prefix(":s ").map(|rest| &rest[..3]);
                    let expected = matches!(answer, None | Some("730" | "731"));
                    prop_assert!(expected, "{name} got {line:?} after {said:?}");
                }
                world.say(name, question);
                for line in world.mail().get(name).into_iter().flatten() {
                    assert_meant(line, &masks, &format!("{said}, then {question}"));
                }
            }
        }
    }
}
