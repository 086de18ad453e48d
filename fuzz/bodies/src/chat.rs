//! What the targets of chat share: lines that mean something, and what must be true of all that a
//! client is sent.

use arbitrary::{Result, Unstructured};

const COMMANDS: &[&str] = &[
    "ADMIN",
    "AUTHENTICATE",
    "AWAY",
    "CAP",
    "INFO",
    "INVITE",
    "ISON",
    "JOIN",
    "KICK",
    "LINKS",
    "LIST",
    "LUSERS",
    "MODE",
    "MOTD",
    "NAMES",
    "NICK",
    "NOTICE",
    "OPER",
    "PART",
    "PASS",
    "PING",
    "PONG",
    "PRIVMSG",
    "QUIT",
    "SETNAME",
    "STATS",
    "TAGMSG",
    "TIME",
    "TOPIC",
    "USER",
    "USERHOST",
    "VERSION",
    "WHO",
    "WHOIS",
    "WHOWAS",
    "MONITOR",
    "CHATHISTORY",
];

const WORDS: &[&str] = &[
    "a",
    "b",
    "c",
    "A",
    "#a",
    "#b",
    "#A",
    "#a,#b",
    "a,b,c",
    "0",
    "*",
    "LS",
    "302",
    "REQ",
    "END",
    "LIST",
    "CLEAR",
    "+o",
    "-o",
    "+v",
    "+b",
    "-b",
    "+k",
    "-k",
    "+l",
    "+i",
    "+m",
    "+n",
    "+s",
    "+t",
    "+ovb",
    "b",
    "a!*@*",
    "*!*@*",
    "key",
    "3",
    "99999999999999999999",
    "localhost",
    ":",
    "",
    ":message-tags echo-message labeled-response batch server-time account-tag away-notify",
    ":multi-prefix userhost-in-names extended-join setname cap-notify invite-notify chghost",
    ":-echo-message",
    ":some text",
    ":\u{202e}text",
    "%",
    "o",
    "#c \u{7}",
];

const TAGS: &[&str] =
    &["label=x", "+typing=active", "time=1", "label", "+draft/reply=\\:\\s\\\\", ""];

/// A line without its end: of the commands and names that mean something, or any bytes.
pub(crate) fn line(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if input.ratio(1_u8, 8_u8)? {
        return Ok(input.arbitrary::<&[u8]>()?.to_vec());
    }
    let mut line = Vec::new();
    if input.ratio(1_u8, 8_u8)? {
        line.extend_from_slice(b"@");
        for _ in 0..input.int_in_range(0..=3)? {
            line.extend_from_slice(input.choose(TAGS)?.as_bytes());
            line.push(b';');
        }
        line.push(b' ');
    }
    line.extend_from_slice(input.choose(COMMANDS)?.as_bytes());
    for _ in 0..input.int_in_range(0..=4)? {
        let word: &[u8] = if input.ratio(1_u8, 6_u8)? {
            input.arbitrary()?
        } else {
            input.choose(WORDS)?.as_bytes()
        };
        line.extend([b" ", word].concat());
    }
    Ok(line)
}

/// The lines by which a client registers.
pub(crate) fn registration(nick: &str) -> [String; 2] {
    [format!("NICK {nick}"), format!("USER {nick} 0 * :{nick}")]
}

/// Every byte that a client is sent belongs to a whole line that any client can read: nothing in it
/// ends it early, and it is not longer than a line may be.
pub(crate) fn check_lines(text: &[u8]) {
    assert!(text.ends_with(b"\r\n"), "half a line: {}", text.escape_ascii());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let inner = line.strip_suffix(b"\r\n").expect("a line ends in CR LF");
        let forged = inner.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0'));
        assert!(!forged, "a line in a line: {}", line.escape_ascii());
        assert!(!inner.is_empty(), "an empty line");
        let tags = match inner.first() {
            Some(b'@') => 1 + inner.iter().position(|&byte| byte == b' ').expect("only tags"),
            _ => 0,
        };
        assert!(tags <= 8191, "{tags} bytes of tags");
        assert!(line.len() - tags <= 512, "too long: {}", line.escape_ascii());
    }
}
