//! Questions: WHO, WHOIS, LUSERS, MOTD, VERSION, ISON, USERHOST.

use super::Request;
use super::registration::VERSION;
use crate::chat::Hub;
use crate::chat::members::{Member, MemberKey};
use crate::chat::names;
use crate::chat::reply::{
    ERR_NOMOTD, ERR_NONICKNAMEGIVEN, ERR_NOSUCHNICK, RPL_ENDOFMOTD, RPL_ENDOFWHO, RPL_ENDOFWHOIS,
    RPL_ISON, RPL_ISUPPORT, RPL_LUSERCHANNELS, RPL_LUSERCLIENT, RPL_LUSERME, RPL_LUSEROP,
    RPL_LUSERUNKNOWN, RPL_MOTD, RPL_MOTDSTART, RPL_USERHOST, RPL_VERSION, RPL_WHOISCHANNELS,
    RPL_WHOISIDLE, RPL_WHOISSERVER, RPL_WHOISUSER, RPL_WHOREPLY, Reply,
};

/// The most nicknames that USERHOST takes (RFC 2812, 4.8).
const MAX_USERHOST: usize = 5;

impl Hub {
    /// WHO (RFC 2812, 3.6.1), of a channel or a nickname. A mask matches nobody, and so does
    /// none: nobody needs to see all members at once.
    pub(super) fn who(&mut self, request: &Request<'_>) {
        let (mask, only) = (request.params.at(0), request.params.at(1));
        let Hub { server, members, channels, reply, .. } = self;
        let to = &members[request.from];
        // "o" asks for operators only: there are none.
        if only != b"o" {
            if let Some(key) = channels.find(mask) {
                let channel = &channels[key];
                for &key in &channel.members {
                    if !reply.has_room() {
                        break;
                    }
                    tell_who(reply, to, &channel.name, &members[key], server);
                }
            } else if let Some(key) = members.named(mask) {
                tell_who(reply, to, b"*", &members[key], server);
            }
        }
        reply.end_of_list(to, RPL_ENDOFWHO, &[names::shown(mask)]);
    }

    /// WHOIS (RFC 2812, 3.6.2), of one nickname; a server may be named before it.
    pub(super) fn whois(&mut self, request: &Request<'_>) {
        let nick = request.params.at(request.params.len().saturating_sub(1).min(1));
        let Hub { settings, server, members, channels, reply, .. } = self;
        let to = &members[request.from];
        if nick.is_empty() {
            return reply.numeric(to, ERR_NONICKNAMEGIVEN, &[]);
        }
        let shown = names::shown(nick);
        let Some(key) = members.named(nick) else {
            reply.numeric(to, ERR_NOSUCHNICK, &[shown]);
            return reply.numeric(to, RPL_ENDOFWHOIS, &[shown]);
        };
        let Member { nick, user, host, real_name, since, spoke, .. } = &members[key];
        let parts = [nick, &b" "[..], user, b" ", host, b" * :", real_name];
        reply.text(to, RPL_WHOISUSER, &parts);
        let joined = &members[key].channels;
        if !joined.is_empty() {
            let joined = joined.iter().map(|&key| &*channels[key].name);
            reply.list(to, RPL_WHOISCHANNELS, &[nick, b" :"], joined);
        }
        let network = settings.chat.network.as_bytes();
        reply.text(to, RPL_WHOISSERVER, &[nick, b" ", server, b" :", network]);
        let idle = (request.now - *spoke).as_secs().to_string();
        let since = settings.chat.unix(*since).to_string();
        reply.numeric(to, RPL_WHOISIDLE, &[nick, idle.as_bytes(), since.as_bytes()]);
        reply.numeric(to, RPL_ENDOFWHOIS, &[nick]);
    }

    /// LUSERS (RFC 2812, 3.4.2).
    pub(super) fn lusers(&mut self, request: &Request<'_>) {
        self.tell_users(request.from);
    }

    pub(super) fn tell_users(&mut self, to: MemberKey) {
        let to = &self.members[to];
        let registered = self.members.registered();
        let all = format!(":There are {registered} users and 0 invisible on 1 server");
        let here = format!(":I have {registered} clients and 0 servers");
        let unregistered = self.members.unregistered().to_string();
        let channels = self.channels.len().to_string();
        self.reply.text(to, RPL_LUSERCLIENT, &[all.as_bytes()]);
        self.reply.numeric(to, RPL_LUSEROP, &[b"0"]);
        self.reply.numeric(to, RPL_LUSERUNKNOWN, &[unregistered.as_bytes()]);
        self.reply.numeric(to, RPL_LUSERCHANNELS, &[channels.as_bytes()]);
        self.reply.text(to, RPL_LUSERME, &[here.as_bytes()]);
    }

    /// MOTD (RFC 2812, 3.4.1).
    pub(super) fn motd(&mut self, request: &Request<'_>) {
        self.tell_motd(request.from);
    }

    pub(super) fn tell_motd(&mut self, to: MemberKey) {
        let Hub { settings, server, members, reply, .. } = self;
        let to = &members[to];
        let Some(motd) = &settings.chat.motd else {
            return reply.numeric(to, ERR_NOMOTD, &[]);
        };
        reply.text(to, RPL_MOTDSTART, &[b":- ", server, b" Message of the day -"]);
        for line in motd {
            if !reply.has_room() {
                break;
            }
            reply.text(to, RPL_MOTD, &[b":- ", line.as_bytes()]);
        }
        reply.end_of_list(to, RPL_ENDOFMOTD, &[]);
    }

    /// VERSION (RFC 2812, 3.4.3), and what 005 tells (Modern IRC).
    pub(super) fn version(&mut self, request: &Request<'_>) {
        let to = &self.members[request.from];
        let parts = [VERSION, b" ", &self.server, b" :one protocol, every I/O model"];
        self.reply.text(to, RPL_VERSION, &parts);
        self.tell_features(request.from);
    }

    pub(super) fn tell_features(&mut self, to: MemberKey) {
        for line in &self.features {
            self.reply.numeric(&self.members[to], RPL_ISUPPORT, &[line]);
        }
    }

    /// ISON (RFC 2812, 4.9). Some clients put all nicknames into one last parameter.
    pub(super) fn ison(&mut self, request: &Request<'_>) {
        let Hub { members, reply, .. } = self;
        let wanted = request.params.iter().flat_map(|param| param.split(|&byte| byte == b' '));
        let there = wanted.filter_map(|nick| members.named(nick)).map(|key| &*members[key].nick);
        reply.list(&members[request.from], RPL_ISON, &[b":"], there);
    }

    /// USERHOST (RFC 2812, 4.8). `+` says that a member is not away: nobody can be.
    pub(super) fn userhost(&mut self, request: &Request<'_>) {
        let Hub { members, reply, .. } = self;
        let wanted = request.params.iter().take(MAX_USERHOST);
        let there: Vec<_> = wanted
            .filter_map(|nick| members.named(nick))
            .map(|key| &members[key])
            .map(|member| [&*member.nick, b"=+", &member.user, b"@", &member.host].concat())
            .collect();
        let there = there.iter().map(Vec::as_slice);
        reply.list(&members[request.from], RPL_USERHOST, &[b":"], there);
    }
}

/// Adds a 352. `H` says that a member is here, not away; 0, that no other server lies between.
fn tell_who(reply: &mut Reply, to: &Member, channel: &[u8], about: &Member, server: &[u8]) {
    let Member { nick, user, host, real_name, .. } = about;
    let parts = [channel, b" ", user, b" ", host, b" ", server, b" ", nick, b" H :0 ", real_name];
    reply.text(to, RPL_WHOREPLY, &parts);
}
