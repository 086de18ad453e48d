//! A client's line taken apart, against a second reading of the same rules.

// The parser is private to `protocol`: what it finds is no promise to its users.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../crates/protocol/src/chat/parse.rs"]
mod parse;

use self::parse::Parsed;

/// No more parameters than that; the last one has the rest.
const MOST: usize = 15;

/// Tags, command and parameters.
type Read<'a> = (&'a [u8], &'a [u8], Vec<&'a [u8]>);

/// The bytes are a line without its end.
pub fn parser(line: &[u8]) {
    let tags = parse::tags_len(line);
    let until = line.iter().position(|&byte| byte == b' ').map_or(line.len(), |at| at + 1);
    assert_eq!(tags, if line.starts_with(b"@") { until } else { 0 });

    let expected = read(line);
    let Some(Parsed { tags, command, params }) = parse::parse(line) else {
        assert!(expected.is_none(), "a command was not found");
        return;
    };
    let found: Vec<_> = params.iter().collect();
    assert_eq!(Some((tags, command, found)), expected);
    for at in 0..MOST + 2 {
        let there = params.iter().nth(at).unwrap_or_default();
        assert_eq!(params.at(at), there);
    }

    let name = parse::Name::new(command);
    assert_eq!(name.is_some(), command.len() <= 12);
    if let Some(name) = name {
        assert!(name.as_bytes().eq_ignore_ascii_case(command));
    }
}

/// A line read by RFC 2812, 2.3.1 and IRCv3 "message-tags": cut into words, which are then told
/// apart by what they begin with.
fn read(line: &[u8]) -> Option<Read<'_>> {
    let mut at = 0;
    let word = |at: &mut usize| {
        while line.get(*at) == Some(&b' ') {
            *at += 1;
        }
        let start = *at;
        while line.get(*at).is_some_and(|&byte| byte != b' ') {
            *at += 1;
        }
        &line[start..*at]
    };
    let mut first = word(&mut at);
    let mut tags = &b""[..];
    if let Some(after) = first.strip_prefix(b"@") {
        tags = after;
        first = word(&mut at);
    }
    if first.starts_with(b":") {
        first = word(&mut at);
    }
    if first.is_empty() {
        return None;
    }
    let mut params = Vec::new();
    loop {
        let param = word(&mut at);
        let start = at - param.len();
        if param.is_empty() {
            return Some((tags, first, params));
        }
        let trailing = param.starts_with(b":");
        if trailing || params.len() + 1 == MOST {
            params.push(&line[start + usize::from(trailing)..]);
            return Some((tags, first, params));
        }
        params.push(param);
    }
}
