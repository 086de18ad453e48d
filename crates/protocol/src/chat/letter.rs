//! One message to any number of receivers, in the forms in which they understand it.

use std::sync::Arc;

use super::caps::{Cap, Caps, FORMS};
use super::names;
use crate::Message;

/// A line, and what stands before it or in its place for receivers that have asked for more. Each
/// form is made when the first receiver needs it, and shared by all others.
pub(super) struct Letter {
    plain: Message,
    /// In place of the plain line with `extended-join`.
    extended: Option<Message>,
    /// When it was said, in milliseconds since 1970, for `server-time`; none where that is not
    /// known: then the time at which it comes is as good a guess as any.
    said: Option<u64>,
    /// Its own number, for `message-tags`.
    id: u64,
    /// The tags of the client that said it, without the `@`, for `message-tags`.
    tags: Box<[u8]>,
    /// The capabilities that make a difference.
    matters: Caps,
    /// All but the plain one.
    forms: [Option<Message>; FORMS - 1],
}

impl Letter {
    pub(super) fn new(plain: Message, said: Option<u64>) -> Letter {
        let mut matters = Caps::default();
        matters.set(Cap::ServerTime, said.is_some());
        let forms = [const { None }; FORMS - 1];
        Letter { plain, extended: None, said, id: 0, tags: Box::default(), matters, forms }
    }

    /// With another line for `extended-join`.
    pub(super) fn or_extended(mut self, line: Message) -> Letter {
        self.matters.set(Cap::ExtendedJoin, true);
        self.extended = Some(line);
        self
    }

    /// With a number that no other letter has, and the tags of a client, for `message-tags`.
    pub(super) fn with_tags(mut self, id: u64, tags: &[u8]) -> Letter {
        self.matters.set(Cap::MessageTags, true);
        (self.id, self.tags) = (id, tags.into());
        self
    }

    /// The form for a receiver with these capabilities.
    #[inline]
    pub(super) fn form(&mut self, caps: Caps) -> &Message {
        match caps.form(self.matters) {
            0 => &self.plain,
            form => self.marked(form),
        }
    }

    #[cold]
    fn make(&self, form: usize) -> Message {
        let caps = Caps::of_form(form);
        let mut bytes = vec![b'@'];
        if let (true, Some(said)) = (caps.has(Cap::ServerTime), self.said) {
            bytes.extend_from_slice(b"time=");
            bytes.extend_from_slice(names::date_millis(said).as_bytes());
            bytes.push(b';');
        }
        if caps.has(Cap::MessageTags) {
            bytes.extend_from_slice(format!("msgid={:x};", self.id).as_bytes());
            if !self.tags.is_empty() {
                bytes.extend_from_slice(&self.tags);
                bytes.push(b';');
            }
        }
        // What follows the last tag is a space; without any tag, nothing stands before the line.
        match bytes.len() {
            1 => bytes.clear(),
            len => bytes[len - 1] = b' ',
        }
        let extended = self.extended.as_ref().filter(|_| caps.has(Cap::ExtendedJoin));
        bytes.extend_from_slice(extended.unwrap_or(&self.plain));
        Arc::from(bytes)
    }

    #[inline(never)]
    fn marked(&mut self, form: usize) -> &Message {
        if self.forms[form - 1].is_none() {
            self.forms[form - 1] = Some(self.make(form));
        }
        self.forms[form - 1].as_ref().unwrap_or(&self.plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_receiver_gets_its_form() {
        let line = |text: &str| Message::from(text.as_bytes());
        let mut letter = Letter::new(line(":a JOIN #c\r\n"), Some(1_000))
            .or_extended(line(":a JOIN #c * :R\r\n"))
            .with_tags(26, b"+x=y");
        for (caps, expected) in [
            ("", ":a JOIN #c\r\n"),
            ("batch multi-prefix", ":a JOIN #c\r\n"),
            ("server-time", "@time=1970-01-01T00:00:01.000Z :a JOIN #c\r\n"),
            ("extended-join", ":a JOIN #c * :R\r\n"),
            ("message-tags", "@msgid=1a;+x=y :a JOIN #c\r\n"),
            (
                "server-time message-tags extended-join",
                "@time=1970-01-01T00:00:01.000Z;msgid=1a;+x=y :a JOIN #c * :R\r\n",
            ),
        ] {
            let caps = Caps::default().after(caps.as_bytes()).unwrap();
            let form = Arc::clone(letter.form(caps));
            assert_eq!(String::from_utf8_lossy(&form), expected);
            assert!(Arc::ptr_eq(&form, letter.form(caps)), "made once");
        }
        let mut letter = Letter::new(line("x\r\n"), None);
        assert_eq!(**letter.form(Caps::all()), *b"x\r\n");
    }
}
