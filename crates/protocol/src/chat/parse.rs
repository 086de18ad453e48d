//! A client's line taken apart: a command and its parameters (RFC 2812, 2.3.1).

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

    /// The parameter at `index`, from 0; empty when there is none: whoever needs to know the
    /// difference asks [`Params::len`].
    pub(super) fn at(&self, index: usize) -> &'a [u8] {
        self.list.get(index).copied().unwrap_or_default()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.list[..self.len].iter().copied()
    }
}

/// The command and the parameters of `line`; none when the line holds no command. Tags and a
/// source are skipped: what a client says of its own origin is never believed.
pub(super) fn parse(line: &[u8]) -> Option<(&[u8], Params<'_>)> {
    let mut rest = skip_spaces(line);
    for mark in [b'@', b':'] {
        if rest.first() == Some(&mark) {
            rest = skip_spaces(word(rest).1);
        }
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
    Some((command, params))
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
            Some((command, params)) => {
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
    fn the_fifteenth_parameter_takes_the_rest() {
        let line = format!("X {} p15 p16 :p17", vec!["p"; 14].join(" "));
        let (_, params) = parse(line.as_bytes()).unwrap();
        assert_eq!((params.len(), params.at(14)), (15, &b"p15 p16 :p17"[..]));
        assert_eq!(params.at(15), b"");
        assert_eq!(params.at(usize::MAX), b"");
    }

    #[test]
    fn a_name_has_one_spelling() {
        assert_eq!(Name::new(b"PrivMsg").unwrap().as_bytes(), b"PRIVMSG");
        assert!(Name::new(&[b'a'; MAX_COMMAND + 1]).is_none());
    }
}
