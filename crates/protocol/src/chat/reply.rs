//! How a line of the server is written: numerics, and the limit of 512 bytes that holds for all.

use super::members::Member;
use super::names;
use crate::Limits;

/// A numeric reply: its number, and the text that ends it where that text is always the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numeric {
    pub(super) code: &'static str,
    pub(super) text: &'static str,
}

macro_rules! numerics {
    ($($name:ident $code:literal $text:literal)*) => {
        $(pub(super) const $name: Numeric = Numeric { code: $code, text: $text };)*
    };
}

// The names of RFC 2812, 5, and of Modern IRC for what came later.
numerics! {
    RPL_WELCOME "001" ""
    RPL_YOURHOST "002" ""
    RPL_CREATED "003" ""
    RPL_MYINFO "004" ""
    RPL_ISUPPORT "005" "are supported by this server"
    RPL_ENDOFSTATS "219" "End of STATS report"
    RPL_UMODEIS "221" ""
    RPL_STATSUPTIME "242" ""
    RPL_LUSERCLIENT "251" ""
    RPL_LUSEROP "252" "operator(s) online"
    RPL_LUSERUNKNOWN "253" "unknown connection(s)"
    RPL_LUSERCHANNELS "254" "channels formed"
    RPL_LUSERME "255" ""
    RPL_ADMINME "256" "Administrative info"
    RPL_ADMINLOC1 "257" ""
    RPL_ADMINLOC2 "258" ""
    RPL_ADMINEMAIL "259" ""
    RPL_TRYAGAIN "263" "Please wait a while and try again."
    RPL_LOCALUSERS "265" ""
    RPL_GLOBALUSERS "266" ""
    RPL_AWAY "301" ""
    RPL_USERHOST "302" ""
    RPL_ISON "303" ""
    RPL_UNAWAY "305" "You are no longer marked as being away"
    RPL_NOWAWAY "306" "You have been marked as being away"
    RPL_WHOISUSER "311" ""
    RPL_WHOISSERVER "312" ""
    RPL_WHOISOPERATOR "313" "is an IRC operator"
    RPL_WHOWASUSER "314" ""
    RPL_ENDOFWHO "315" "End of WHO list"
    RPL_WHOISIDLE "317" "seconds idle, signon time"
    RPL_ENDOFWHOIS "318" "End of WHOIS list"
    RPL_WHOISCHANNELS "319" ""
    RPL_LISTSTART "321" "Users  Name"
    RPL_LIST "322" ""
    RPL_LISTEND "323" "End of LIST"
    RPL_CHANNELMODEIS "324" ""
    RPL_CREATIONTIME "329" ""
    RPL_NOTOPIC "331" "No topic is set"
    RPL_TOPIC "332" ""
    RPL_TOPICWHOTIME "333" ""
    RPL_WHOISBOT "335" "is a bot"
    RPL_INVITELIST "336" ""
    RPL_ENDOFINVITELIST "337" "End of INVITE list"
    RPL_INVITING "341" ""
    RPL_INVEXLIST "346" ""
    RPL_ENDOFINVEXLIST "347" "End of channel invite exception list"
    RPL_EXCEPTLIST "348" ""
    RPL_ENDOFEXCEPTLIST "349" "End of channel exception list"
    RPL_VERSION "351" ""
    RPL_WHOREPLY "352" ""
    RPL_NAMREPLY "353" ""
    RPL_WHOSPCRPL "354" ""
    RPL_LINKS "364" ""
    RPL_ENDOFLINKS "365" "End of LINKS list"
    RPL_ENDOFNAMES "366" "End of NAMES list"
    RPL_BANLIST "367" ""
    RPL_ENDOFBANLIST "368" "End of channel ban list"
    RPL_ENDOFWHOWAS "369" "End of WHOWAS"
    RPL_INFO "371" ""
    RPL_MOTD "372" ""
    RPL_ENDOFINFO "374" "End of INFO list"
    RPL_MOTDSTART "375" ""
    RPL_ENDOFMOTD "376" "End of MOTD command"
    RPL_WHOISHOST "378" ""
    RPL_WHOISMODES "379" ""
    RPL_YOUREOPER "381" "You are now an IRC operator"
    RPL_REHASHING "382" "Rehashing"
    RPL_TIME "391" ""
    ERR_NOSUCHNICK "401" "No such nick"
    ERR_NOSUCHCHANNEL "403" "No such channel"
    ERR_CANNOTSENDTOCHAN "404" "Cannot send to channel"
    ERR_TOOMANYCHANNELS "405" "You have joined too many channels"
    ERR_WASNOSUCHNICK "406" "There was no such nickname"
    ERR_NOORIGIN "409" "No origin specified"
    ERR_INVALIDCAPCMD "410" "Invalid CAP command"
    ERR_NORECIPIENT "411" "No recipient given (PRIVMSG)"
    ERR_NOTEXTTOSEND "412" "No text to send"
    ERR_INPUTTOOLONG "417" "Input line was too long"
    ERR_UNKNOWNCOMMAND "421" "Unknown command"
    ERR_NOMOTD "422" "MOTD File is missing"
    ERR_NOADMININFO "423" "No administrative info available"
    ERR_NONICKNAMEGIVEN "431" "No nickname given"
    ERR_ERRONEUSNICKNAME "432" "Erroneous nickname"
    ERR_NICKNAMEINUSE "433" "Nickname is already in use"
    ERR_BANONCHAN "435" "Cannot change nickname while banned on channel"
    ERR_USERNOTINCHANNEL "441" "They aren't on that channel"
    ERR_NOTONCHANNEL "442" "You're not on that channel"
    ERR_USERONCHANNEL "443" "is already on channel"
    ERR_NOTREGISTERED "451" "You have not registered"
    ERR_NEEDMOREPARAMS "461" "Not enough parameters"
    ERR_ALREADYREGISTERED "462" "You may not reregister"
    ERR_PASSWDMISMATCH "464" "Password incorrect"
    ERR_CHANNELISFULL "471" "Cannot join channel (+l)"
    ERR_UNKNOWNMODE "472" "is unknown mode char to me"
    ERR_INVITEONLYCHAN "473" "Cannot join channel (+i)"
    ERR_BANNEDFROMCHAN "474" "Cannot join channel (+b)"
    ERR_BADCHANNELKEY "475" "Cannot join channel (+k)"
    ERR_BANLISTFULL "478" "Channel list is full"
    ERR_NOPRIVILEGES "481" "Permission Denied- You're not an IRC operator"
    ERR_CHANOPRIVSNEEDED "482" "You're not channel operator"
    ERR_NOOPERHOST "491" "No operators are known here"
    ERR_UMODEUNKNOWNFLAG "501" "Unknown MODE flag"
    ERR_USERSDONTMATCH "502" "Cannot change mode for other users"
    ERR_HELPNOTFOUND "524" "No help available on this topic"
    ERR_INVALIDMODEPARAM "696" "Invalid mode parameter"
    RPL_HELPSTART "704" ""
    RPL_HELPTXT "705" ""
    RPL_ENDOFHELP "706" "End of HELP"
    RPL_MONONLINE "730" ""
    RPL_MONOFFLINE "731" ""
    RPL_MONLIST "732" ""
    RPL_ENDOFMONLIST "733" "End of MONITOR list"
    ERR_MONLISTFULL "734" "MONITOR list is full"
}

/// Adds one line to `bytes`: the parts as they are, without a space between, cut off where the line
/// would be too long. No part holds CR, LF or NUL: those never come past [`super::Hub::line`].
pub(super) fn add_line(bytes: &mut Vec<u8>, parts: &[&[u8]]) {
    let start = bytes.len();
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes.truncate(start + names::clip(&bytes[start..], Reply::LINE).len());
    bytes.extend_from_slice(b"\r\n");
}

/// What the server says to the one whose line it is handling: all of it becomes one message.
pub(super) struct Reply {
    server: Box<[u8]>,
    bytes: Vec<u8>,
    limit: usize,
    /// The bytes below the limit that are kept for what ends the answer.
    kept: usize,
    /// Whether something was left out of the list being told.
    cut_short: bool,
}

impl Reply {
    /// Where a line ends at the latest, its CRLF not counted.
    pub(super) const LINE: usize = Limits::CHAT_LINE - 2;

    /// The room that is kept from one reply to the next.
    const KEPT: usize = 16 << 10;

    /// `server` is the source of all replies.
    pub(super) fn new(server: Box<[u8]>) -> Reply {
        Reply { server, bytes: Vec::new(), limit: 0, kept: 0, cut_short: false }
    }

    /// Makes the reply to one line full at `limit` bytes, its end included.
    pub(super) fn set_limit(&mut self, limit: usize) {
        (self.limit, self.cut_short) = (limit, false);
        self.keep_room_for_ends(1);
    }

    /// Keeps room below the limit for as many lines that end an answer.
    pub(super) fn keep_room_for_ends(&mut self, ends: usize) {
        self.kept = ends * Limits::CHAT_LINE;
    }

    /// Makes room for the next reply.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(Reply::KEPT);
    }

    /// Whether an answer that has no bound of its own may go on with a line; if not, its end will
    /// say so. What is short is said all the same.
    pub(super) fn has_room(&mut self) -> bool {
        let room = self.bytes.len() + Limits::CHAT_LINE + self.kept <= self.limit;
        self.cut_short |= !room;
        room
    }

    /// What has been written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a line that has its own source.
    pub(super) fn line(&mut self, parts: &[&[u8]]) {
        add_line(&mut self.bytes, parts);
    }

    /// Adds what others get as well.
    pub(super) fn echo(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
    }

    /// Makes of what has been written the response to a line with this label (IRCv3
    /// "labeled-response"): one line has it as a tag, several become a batch that has it, and
    /// nothing becomes an ACK.
    pub(super) fn put_label(&mut self, label: &[u8], batch: u64) {
        let said = core::mem::take(&mut self.bytes);
        let (label, batch) = ([b"label=", label].concat(), format!("{batch:x}"));
        let lines = || said.split_inclusive(|&byte| byte == b'\n');
        match lines().count() {
            0 => self.line(&[b"@", &label, b" :", &self.server.clone(), b" ACK"]),
            1 => self.tagged(&label, &said),
            _ => {
                let start = [&*self.server, b" BATCH +", batch.as_bytes()].concat();
                let start = [b":", &*start, b" labeled-response\r\n"].concat();
                self.tagged(&label, &start);
                let tag = [b"batch=", batch.as_bytes()].concat();
                lines().for_each(|line| self.tagged(&tag, line));
                self.line(&[b":", &self.server.clone(), b" BATCH -", batch.as_bytes()]);
            }
        }
    }

    /// Adds a whole line with a tag more.
    fn tagged(&mut self, tag: &[u8], line: &[u8]) {
        let (between, line) = match line {
            [b'@', after @ ..] => (&b";"[..], after),
            line => (&b" "[..], line),
        };
        for part in [b"@", tag, between, line] {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Adds a numeric with its usual text after `params`. In a line that is too short for both
    /// the text yields, and a parameter only where there is no text left: clients look for it.
    pub(super) fn numeric(&mut self, to: &Member, numeric: Numeric, params: &[&[u8]]) {
        let start = self.head(to, numeric);
        for param in params {
            let room = (start + Reply::LINE).saturating_sub(self.bytes.len() + " :".len());
            self.bytes.extend_from_slice(names::clip(param, room));
            self.bytes.push(b' ');
        }
        self.bytes.push(b':');
        self.bytes.extend_from_slice(numeric.text.as_bytes());
        self.end(start);
    }

    /// Adds a numeric with a text of its own: the parts as they are, without a space between.
    pub(super) fn text(&mut self, to: &Member, numeric: Numeric, parts: &[&[u8]]) {
        let start = self.head(to, numeric);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.end(start);
    }

    /// Adds as many numerics as it takes to tell all `items`, each with `parts` before them; one
    /// with no items where there are none. Stops when the reply is full.
    ///
    /// Each item is given as its parts.
    pub(super) fn list<'a, const N: usize>(
        &mut self,
        to: &Member,
        numeric: Numeric,
        parts: &[&[u8]],
        items: impl Iterator<Item = [&'a [u8]; N]>,
    ) {
        self.list_between(b' ', to, numeric, parts, items);
    }

    /// As [`Reply::list`], with this byte between two items.
    pub(super) fn list_between<'a, const N: usize>(
        &mut self,
        between: u8,
        to: &Member,
        numeric: Numeric,
        parts: &[&[u8]],
        items: impl Iterator<Item = [&'a [u8]; N]>,
    ) {
        let mut start = self.head(to, numeric);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        let head = self.bytes.len() - start;
        for item in items {
            let empty = self.bytes.len() == start + head;
            let len: usize = item.iter().map(|part| part.len()).sum();
            if !empty && self.bytes.len() - start + 1 + len > Reply::LINE {
                self.end(start);
                if !self.has_room() {
                    return;
                }
                let next = self.bytes.len();
                self.bytes.extend_from_within(start..start + head);
                start = next;
            } else if !empty {
                self.bytes.push(between);
            }
            for part in item {
                self.bytes.extend_from_slice(part);
            }
        }
        self.end(start);
    }

    /// Adds the numeric that ends a list, and says so when the list is not whole.
    pub(super) fn end_of_list(&mut self, to: &Member, numeric: Numeric, params: &[&[u8]]) {
        let short = Numeric { text: "End of list, cut short to fit your send queue", ..numeric };
        let whole = !core::mem::take(&mut self.cut_short);
        self.numeric(to, if whole { numeric } else { short }, params);
    }

    fn head(&mut self, to: &Member, numeric: Numeric) -> usize {
        let start = self.bytes.len();
        let code = numeric.code.as_bytes();
        for part in [b":", &*self.server, b" ", code, b" ", to.name(), b" "] {
            self.bytes.extend_from_slice(part);
        }
        start
    }

    fn end(&mut self, start: usize) {
        self.bytes.truncate(start + names::clip(&self.bytes[start..], Reply::LINE).len());
        self.bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(limit: usize) -> Reply {
        let mut reply = Reply::new(b"s"[..].into());
        reply.set_limit(limit);
        reply
    }

    fn me() -> Member {
        Member::new(crate::ConnId::from_bits(0), "host", crate::Time::ZERO)
    }

    fn text(reply: &Reply) -> String {
        String::from_utf8(reply.bytes().to_vec()).unwrap()
    }

    #[test]
    fn no_line_is_too_long() {
        let mut reply = reply(0);
        reply.line(&[b"short"]);
        reply.line(&[b":x PRIVMSG #c :", "é".repeat(300).as_bytes()]);
        reply.text(&me(), RPL_MOTD, &[b":- ", "é".repeat(300).as_bytes()]);
        let text = text(&reply);
        let lengths: Vec<_> = text.split_inclusive("\r\n").map(str::len).collect();
        assert_eq!(lengths, [7, 511, 512]);
    }

    #[test]
    fn a_list_takes_the_lines_it_needs() {
        let names: Vec<_> = (0..200).map(|n| format!("member{n}")).collect();
        let mut reply = reply(usize::MAX);
        reply.list(&me(), RPL_NAMREPLY, &[b"= #c :"], names.iter().map(|name| [name.as_bytes()]));
        reply.end_of_list(&me(), RPL_ENDOFNAMES, &[b"#c"]);
        let text = text(&reply);
        let mut lines: Vec<_> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.pop(), Some(":s 366 * #c :End of NAMES list"));
        assert!(lines.iter().all(|line| line.len() <= 510));
        assert_eq!(lines.len(), 4);
        let told =
            lines.iter().flat_map(|line| line.strip_prefix(":s 353 * = #c :").unwrap().split(' '));
        assert_eq!(told.collect::<Vec<_>>(), names);
    }

    #[test]
    fn a_line_of_a_list_is_filled_to_its_end() {
        let first = "a".repeat(250);
        for (second, lines) in [(249, 1), (250, 2)] {
            let second = "b".repeat(second);
            let mut reply = reply(usize::MAX);
            let items = [[first.as_bytes()], [second.as_bytes()]];
            reply.list(&me(), RPL_ISON, &[b":"], items.into_iter());
            let text = text(&reply);
            assert_eq!(text.lines().count(), lines);
            assert_eq!(text.lines().map(str::len).max(), Some(if lines == 1 { 510 } else { 260 }));
        }
    }

    #[test]
    fn a_label_is_on_the_line_or_on_a_batch() {
        for (said, expected) in [
            (&[][..], "@label=x :s ACK\r\n"),
            (&["a"][..], "@label=x a\r\n"),
            (&["@t=1 a"][..], "@label=x;t=1 a\r\n"),
            (
                &["a", "@t=1 b"][..],
                "@label=x :s BATCH +f labeled-response\r\n@batch=f a\r\n@batch=f;t=1 b\r\n\
                 :s BATCH -f\r\n",
            ),
        ] {
            let mut reply = reply(0);
            said.iter().for_each(|line| reply.line(&[line.as_bytes()]));
            reply.put_label(b"x", 15);
            assert_eq!(text(&reply), expected);
        }
    }

    #[test]
    fn an_empty_list_is_a_line() {
        let mut reply = reply(0);
        reply.list(&me(), RPL_ISON, &[b":"], core::iter::empty::<[&[u8]; 1]>());
        assert_eq!(text(&reply), ":s 303 * :\r\n");
    }

    #[test]
    fn what_ends_an_answer_fits_below_its_limit() {
        let name = ["#", &"c".repeat(380)].concat();
        for (ends, limit) in [1, 3].into_iter().flat_map(|ends| (0..512).map(move |n| (ends, n))) {
            // Room for a line of the list before the ends, and for a part of others.
            let limit = Limits::CHAT_LINE * (3 + ends) + limit;
            let mut reply = reply(limit);
            reply.keep_room_for_ends(ends);
            reply.list(&me(), RPL_NAMREPLY, &[b"= #c :"], (0..1_000).map(|_| [&b"member"[..]]));
            for _ in 0..ends {
                reply.end_of_list(&me(), RPL_ENDOFNAMES, &[name.as_bytes()]);
            }
            assert!(reply.bytes().len() <= limit, "{} of {limit}", reply.bytes().len());
        }
    }

    #[test]
    fn a_full_reply_ends_its_list_and_says_so() {
        let mut reply = reply(1_000);
        reply.list(&me(), RPL_NAMREPLY, &[b"= #c :"], (0..1_000).map(|_| [&b"member"[..]]));
        reply.end_of_list(&me(), RPL_ENDOFNAMES, &[b"#c"]);
        assert!(reply.bytes().len() < 1_700);
        assert!(text(&reply).ends_with("cut short to fit your send queue\r\n"));
    }
}
