//! CAP, and the labels of IRCv3.

use super::Request;
use crate::chat::Hub;
use crate::chat::caps::{Cap, Caps};
use crate::chat::members::MemberKey;
use crate::chat::names;
use crate::chat::reply::ERR_INVALIDCAPCMD;

/// Longest list of capabilities that is answered with ACK or NAK whole, in bytes.
const WANTED: usize = 350;

/// Longest label, in bytes (IRCv3 "labeled-response").
const LABEL: usize = 64;

impl Hub {
    /// CAP (IRCv3 "Client Capability Negotiation"): registration waits for a client that asks to
    /// finish.
    pub(super) fn cap(&mut self, request: &Request<'_>) {
        let Request { from, ref params, now, .. } = *request;
        let subcommand = params.at(0).to_ascii_uppercase();
        let member = &mut self.members[from];
        if matches!(&*subcommand, b"LS" | b"REQ") && !member.registered {
            member.negotiating = true;
        }
        let mut caps = member.caps;
        let (verb, list): (&[u8], Vec<u8>) = match &*subcommand {
            b"LS" => {
                // A client of version 302 is told of changes without asking for it.
                let version = core::str::from_utf8(params.at(1)).unwrap_or_default();
                if version.parse::<u32>().is_ok_and(|version| version >= 302) {
                    caps.set(Cap::Notify, true);
                }
                (b" LS :", Caps::all().names())
            }
            b"LIST" => (b" LIST :", caps.names()),
            b"REQ" => {
                let wanted = names::clip(params.at(1), WANTED);
                let after = caps.after(params.at(1)).filter(|_| wanted == params.at(1));
                let verb: &[u8] = if after.is_some() { b" ACK :" } else { b" NAK :" };
                caps = after.unwrap_or(caps);
                (verb, wanted.into())
            }
            b"END" => {
                member.negotiating = false;
                return self.register_if_ready(from, now);
            }
            _ => {
                let shown = names::shown(params.at(0));
                return self.reply.numeric(member, ERR_INVALIDCAPCMD, &[shown]);
            }
        };
        let name = member.name();
        self.reply.line(&[b":", &self.server, b" CAP ", name, verb, &list]);
        self.set_caps(from, caps);
    }

    /// Remembers the label of a line, if its member may give it one.
    pub(super) fn note_label(&mut self, from: MemberKey, tags: &[u8]) {
        let caps = self.members[from].caps;
        if !caps.has(Cap::LabeledResponse) || !caps.has(Cap::Batch) {
            return;
        }
        let mut tags = tags.split(|&byte| byte == b';');
        let label = tags.find_map(|tag| tag.strip_prefix(b"label="));
        let good = |label: &&[u8]| (1..=LABEL).contains(&label.len()) && is_value(label);
        if let Some(label) = label.filter(good) {
            self.label = Some(label.into());
        }
    }

    /// Puts the label of the line, if it has one, on what is said in return to it.
    pub(in crate::chat) fn label_reply(&mut self) {
        if let Some(label) = self.label.take() {
            self.batches += 1;
            self.reply.put_label(&label, self.batches);
        }
    }
}

/// The tags that a client may send to others, bounded by the length of its line: those that begin
/// with a `+`, each with a name and a value that cannot be taken for anything else.
pub(super) fn client_tags(tags: &[u8]) -> Vec<u8> {
    let good = |tag: &&[u8]| {
        let name = tag.split(|&byte| byte == b'=').next().unwrap_or_default();
        let value = tag.get(name.len() + 1..).unwrap_or_default();
        let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-./".contains(byte);
        let name = name.strip_prefix(b"+").unwrap_or_default();
        !name.is_empty() && name.iter().all(in_name) && is_value(value)
    };
    tags.split(|&byte| byte == b';').filter(good).collect::<Vec<_>>().join(&b';')
}

fn is_value(value: &[u8]) -> bool {
    let bad = |c: char| c.is_control() || c == ' ' || c == ';';
    value.utf8_chunks().all(|chunk| !chunk.valid().contains(bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_of_clients_are_passed_on() {
        for (tags, passed) in [
            ("+a=b;time=x;+draft/reply=1;label=2;msgid=3", "+a=b;+draft/reply=1"),
            ("+a;+;+=b;+a b=c", "+a"),
            ("+a=\x01;+\x02=b;+a=\u{85};+b=c\\s\\:", "+b=c\\s\\:"),
            ("+a=b c;+d=e", "+d=e"),
            ("", ""),
        ] {
            assert_eq!(client_tags(tags.as_bytes()), passed.as_bytes(), "{tags:?}");
        }
    }
}
