//! A client's line taken apart: a command and its parameters (RFC 2812, 2.3.1).

use std::borrow::Cow;

/// The most parameters a message has; what would be a sixteenth belongs to the last one.
const MAX_PARAMS: usize = 15;

/// No command is longer; a longer word is none that we know.
const MAX_COMMAND: usize = 12;

/// A command's name in upper case, so that a table need hold only one spelling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    bytes: [u8; MAX_COMMAND],
    len: usize,
}

impl Name {
    /// `word` in upper case; none when it is too long to be a command.
    pub(super) fn new(word: &[u8]) -> Option<Name> {
        let mut bytes = [0; MAX_COMMAND];
        bytes.get_mut(..word.len())?.copy_from_slice(word);
        bytes.make_ascii_uppercase();
        Some(Name { bytes, len: word.len() })
    }

    /// The name.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Whether a line is an OPER. It is asked of every line, so the first byte is looked at first.
pub(super) fn is_oper(line: &[u8]) -> bool {
    // A command, or what may stand before one: tags, a source, a space, bytes that are taken out.
    let may_be = matches!(line.first(), Some(b'O' | b'o' | b'@' | b':' | b' ' | b'\r' | b'\0'));
    may_be
        && parse(&without_breaks(line))
            .is_some_and(|parsed| parsed.command.eq_ignore_ascii_case(b"OPER"))
}

/// Whether a line only speaks to others, or keeps the connection alive: its sender is answered with
/// a few lines at most.
pub(super) fn only_speaks(line: &[u8]) -> bool {
    const SPEAK: [&[u8]; 5] = [b"PRIVMSG", b"NOTICE", b"TAGMSG", b"PING", b"PONG"];
    parse(&without_breaks(line))
        .is_some_and(|parsed| SPEAK.iter().any(|name| parsed.command.eq_ignore_ascii_case(name)))
}

/// `line` without CR, LF and NUL, any of which some client takes for the end of a line: nothing
/// that is relayed can forge one. A line of a well-behaved client is not copied.
pub(super) fn without_breaks(line: &[u8]) -> Cow<'_, [u8]> {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n' | b'\0');
    if line.iter().any(is_break) {
        Cow::Owned(line.iter().copied().filter(|byte| !is_break(byte)).collect())
    } else {
        Cow::Borrowed(line)
    }
}

/// The parameters of one message, none of them allocated.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Params<'a> {
    list: [&'a [u8]; MAX_PARAMS],
    len: usize,
}

impl<'a> Params<'a> {
    fn push(&mut self, param: &'a [u8]) {
        if let Some(place) = self.list.get_mut(self.len) {
            *place = param;
            self.len += 1;
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The parameter at `index`, from 0; empty when there is none: a command that needs to know the
    /// difference asks [`Params::len`].
    pub(super) fn at(&self, index: usize) -> &'a [u8] {
        self.list.get(index).copied().unwrap_or_default()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.list[..self.len].iter().copied()
    }
}

/// A line taken apart.
pub(super) struct Parsed<'a> {
    /// Without the `@` before them; empty where there are none.
    pub(super) tags: &'a [u8],
    pub(super) command: &'a [u8],
    pub(super) params: Params<'a>,
}

/// How many bytes of `line` are its tags, the `@` and the space behind them included.
pub(super) fn tags_len(line: &[u8]) -> usize {
    let tags = if line.starts_with(b"@") { word(line).0.len() } else { 0 };
    line.len().min(if tags > 0 { tags + 1 } else { 0 })
}

/// The tags, the command and the parameters of `line`; none when the line holds no command. A
/// source is skipped: what a client says of its own origin is never believed.
pub(super) fn parse(line: &[u8]) -> Option<Parsed<'_>> {
    let mut rest = skip_spaces(line);
    let mut tags = &b""[..];
    if let [b'@', after @ ..] = rest {
        (tags, rest) = word(after);
        rest = skip_spaces(rest);
    }
    if let [b':', ..] = rest {
        rest = skip_spaces(word(rest).1);
    }
    let (command, mut rest) = word(rest);
    if command.is_empty() {
        return None;
    }
    let mut params = Params::default();
    loop {
        rest = skip_spaces(rest);
        match rest {
            [] => break,
            [b':', trailing @ ..] => {
                params.push(trailing);
                break;
            }
            last if params.len + 1 == MAX_PARAMS => {
                params.push(last);
                break;
            }
            _ => {
                let (param, after) = word(rest);
                params.push(param);
                rest = after;
            }
        }
    }
    Some(Parsed { tags, command, params })
}

fn skip_spaces(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&byte| byte != b' ').unwrap_or(bytes.len());
    &bytes[start..]
}

/// What stands before the first space, and the rest from there on.
fn word(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|&byte| byte == b' ').unwrap_or(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(line: &str) -> String {
        match parse(line.as_bytes()) {
            None => "nothing".to_owned(),
            Some(Parsed { command, params, .. }) => {
                let params: Vec<_> = params.iter().map(String::from_utf8_lossy).collect();
                format!("{}{params:?}", String::from_utf8_lossy(command))
            }
        }
    }

    #[test]
    fn lines_come_apart() {
        for (line, expected) in [
            ("", "nothing"),
            ("   ", "nothing"),
            (":source", "nothing"),
            ("@tag", "nothing"),
            ("PING", "PING[]"),
            ("PING ", "PING[]"),
            ("PING :", r#"PING[""]"#),
            ("JOIN #a key", r##"JOIN["#a", "key"]"##),
            ("  JOIN   #a   key  ", r##"JOIN["#a", "key"]"##),
            ("PRIVMSG #a :one two", r##"PRIVMSG["#a", "one two"]"##),
            ("PRIVMSG #a ::)", r##"PRIVMSG["#a", ":)"]"##),
            ("PRIVMSG #a a:b", r##"PRIVMSG["#a", "a:b"]"##),
            (":me PING x", r#"PING["x"]"#),
            ("@t=1;u :me PING x", r#"PING["x"]"#),
        ] {
            assert_eq!(show(line), expected, "{line:?}");
        }
    }

    #[test]
    fn tags_are_what_stands_first() {
        for (line, tags, len) in [
            ("@a=b;c PING x", "a=b;c", 7),
            ("@a :me PING x", "a", 3),
            ("PING @a", "", 0),
            ("@ PING x", "", 2),
            ("@a", "", 2),
        ] {
            assert_eq!(tags_len(line.as_bytes()), len, "{line:?}");
            if let Some(parsed) = parse(line.as_bytes()) {
                assert_eq!(parsed.tags, tags.as_bytes(), "{line:?}");
            }
        }
    }

    #[test]
    fn the_fifteenth_parameter_takes_the_rest() {
        let line = format!("X {} p15 p16 :p17", vec!["p"; 14].join(" "));
        let params = parse(line.as_bytes()).unwrap().params;
        assert_eq!((params.len(), params.at(14)), (15, &b"p15 p16 :p17"[..]));
        assert_eq!(params.at(15), b"");
        assert_eq!(params.at(usize::MAX), b"");
    }

    #[test]
    fn what_only_speaks_is_told_from_what_asks() {
        for line in ["PRIVMSG a :x", "notice a :x", "@+a=b TAGMSG a", ":me PING x", "PO\0NG x"] {
            assert!(only_speaks(line.as_bytes()), "{line:?}");
        }
        for line in ["LIST", "WHO a", "PRIVMSGS a :x", "JOIN #PING", "", ":PING", "@PING"] {
            assert!(!only_speaks(line.as_bytes()), "{line:?}");
        }
    }

    #[test]
    fn a_name_has_one_spelling() {
        assert_eq!(Name::new(b"PrivMsg").unwrap().as_bytes(), b"PRIVMSG");
        assert!(Name::new(&[b'a'; MAX_COMMAND + 1]).is_none());
    }
}
