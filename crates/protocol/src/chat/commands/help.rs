//! HELP: the commands of this server and what they take.

use super::Request;
use crate::chat::Hub;
use crate::chat::names;
use crate::chat::parse::Name;
use crate::chat::reply::{ERR_HELPNOTFOUND, RPL_ENDOFHELP, RPL_HELPSTART, RPL_HELPTXT};

/// Each command with what it takes. What stands in brackets may be left out.
const HELP: &[(&str, &str)] = &[
    ("ADMIN", ""),
    ("AWAY", "[:text]"),
    ("CAP", "LS|LIST|REQ|END [:capabilities]"),
    ("HELP", "[command]"),
    ("HELPOP", "[command]"),
    ("INFO", ""),
    ("INVITE", "nickname #channel"),
    ("ISON", "nickname [nickname ...]"),
    ("JOIN", "#channel[,#channel ...] [key[,key ...]]"),
    ("KICK", "#channel nickname[,nickname ...] [:reason]"),
    ("KILL", "nickname [:reason] (operators of the server)"),
    ("LINKS", ""),
    (
        "LIST",
        "[#channel[,#channel ...]], or masks, !mask, >members, <members, C<minutes, T>minutes",
    ),
    ("LUSERS", ""),
    ("MODE", "#channel|nickname [changes [parameters]]"),
    ("MONITOR", "+|- nickname[,nickname ...], or C|L|S"),
    ("MOTD", ""),
    ("NAMES", "#channel[,#channel ...]"),
    ("NICK", "nickname"),
    ("NOTICE", "nickname|#channel[,...] :text"),
    ("OPER", "name password"),
    ("PART", "#channel[,#channel ...] [:reason]"),
    ("PASS", "password"),
    ("PING", "token"),
    ("PONG", "token"),
    ("PRIVMSG", "nickname|#channel[,...] :text"),
    ("QUIT", "[:reason]"),
    ("REHASH", "(operators of the server)"),
    ("SETNAME", ":real name"),
    ("STATS", "u"),
    ("TAGMSG", "nickname|#channel[,...]"),
    ("TIME", ""),
    ("TOPIC", "#channel [:text]"),
    ("USER", "user 0 * :real name"),
    ("USERHOST", "nickname [nickname ...]"),
    ("VERSION", ""),
    ("WALLOPS", ":text (operators of the server)"),
    ("WHO", "#channel|nickname|mask [o][%fields[,token]]"),
    ("WHOIS", "nickname"),
    ("WHOWAS", "nickname[,nickname ...] [count]"),
];

/// Most commands in a line.
const IN_A_LINE: usize = 10;

impl Hub {
    /// HELP (Modern IRC): of one command, or the list of all.
    pub(super) fn help(&mut self, request: &Request<'_>) {
        let (to, subject) = (&self.members[request.from], request.params.at(0));
        if subject.is_empty() {
            self.reply.text(to, RPL_HELPSTART, &[b"* :The commands of this server"]);
            for line in HELP.chunks(IN_A_LINE) {
                let names: Vec<_> = line.iter().map(|(name, _)| *name).collect();
                self.reply.text(to, RPL_HELPTXT, &[b"* :", names.join(" ").as_bytes()]);
            }
            return self.reply.numeric(to, RPL_ENDOFHELP, &[b"*"]);
        }
        let shown = names::shown(subject);
        let name = Name::new(subject);
        let name = name.as_ref().map_or(&b""[..], Name::as_bytes);
        let Some((name, takes)) = HELP.iter().find(|(other, _)| other.as_bytes() == name) else {
            return self.reply.numeric(to, ERR_HELPNOTFOUND, &[shown]);
        };
        let usage = [*name, " ", takes].concat();
        self.reply.text(to, RPL_HELPSTART, &[shown, b" :", usage.trim_end().as_bytes()]);
        self.reply.numeric(to, RPL_ENDOFHELP, &[shown]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::commands::find;

    #[test]
    fn each_command_has_its_help() {
        let known = |name: &str| find(name.as_bytes()).is_some();
        assert!(HELP.iter().all(|(name, _)| known(name)));
        assert!(HELP.is_sorted());
        // What is not in the list is not in the table of commands either.
        let words = include_str!("mod.rs").split('"').filter(|word| known(word));
        for word in words {
            assert!(HELP.iter().any(|(name, _)| *name == word), "no help for {word}");
        }
    }
}
