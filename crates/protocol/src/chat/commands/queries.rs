//! Questions about the server: LUSERS, MOTD, VERSION, TIME, INFO, ADMIN, STATS, LINKS; and the
//! small ones about members: ISON, USERHOST.

use super::Request;
use super::registration::VERSION;
use crate::chat::Hub;
use crate::chat::members::{MemberKey, UserMode};
use crate::chat::names;
use crate::chat::reply::{
    ERR_NOADMININFO, ERR_NOMOTD, RPL_ADMINEMAIL, RPL_ADMINLOC1, RPL_ADMINLOC2, RPL_ADMINME,
    RPL_ENDOFINFO, RPL_ENDOFLINKS, RPL_ENDOFMOTD, RPL_ENDOFSTATS, RPL_GLOBALUSERS, RPL_INFO,
    RPL_ISON, RPL_ISUPPORT, RPL_LINKS, RPL_LOCALUSERS, RPL_LUSERCHANNELS, RPL_LUSERCLIENT,
    RPL_LUSERME, RPL_LUSEROP, RPL_LUSERUNKNOWN, RPL_MOTD, RPL_MOTDSTART, RPL_STATSUPTIME, RPL_TIME,
    RPL_USERHOST, RPL_VERSION,
};

/// The most nicknames that USERHOST takes (RFC 2812, 4.8).
const MAX_USERHOST: usize = 5;

impl Hub {
    /// LUSERS (RFC 2812, 3.4.2).
    pub(super) fn lusers(&mut self, request: &Request<'_>) {
        self.tell_users(request.from);
    }

    pub(super) fn tell_users(&mut self, to: MemberKey) {
        let to = &self.members[to];
        let registered = self.members.registered();
        let (invisible, most) = (self.members.invisible(), self.members.most());
        let visible = registered - invisible;
        let all = format!(":There are {visible} users and {invisible} invisible on 1 server");
        let here = format!(":I have {registered} clients and 0 servers");
        let operators = self.members.operators().to_string();
        let unregistered = self.members.unregistered().to_string();
        let channels = self.channels.len().to_string();
        self.reply.text(to, RPL_LUSERCLIENT, &[all.as_bytes()]);
        self.reply.numeric(to, RPL_LUSEROP, &[operators.as_bytes()]);
        self.reply.numeric(to, RPL_LUSERUNKNOWN, &[unregistered.as_bytes()]);
        self.reply.numeric(to, RPL_LUSERCHANNELS, &[channels.as_bytes()]);
        self.reply.text(to, RPL_LUSERME, &[here.as_bytes()]);
        // One server is the whole network.
        for (numeric, which) in [(RPL_LOCALUSERS, "local"), (RPL_GLOBALUSERS, "global")] {
            let now =
                format!("{registered} {most} :Current {which} users {registered}, max {most}");
            self.reply.text(to, numeric, &[now.as_bytes()]);
        }
    }

    /// MOTD (RFC 2812, 3.4.1).
    pub(super) fn motd(&mut self, request: &Request<'_>) {
        self.tell_motd(request.from);
    }

    pub(super) fn tell_motd(&mut self, to: MemberKey) {
        let Hub { settings, server, members, reply, .. } = self;
        let to = &members[to];
        let texts = settings.chat.texts();
        let Some(motd) = texts.motd() else {
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
        let description = self.settings.chat.description.as_bytes();
        let parts = [VERSION, b" ", &self.server, b" :", description];
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
        let there = wanted.filter_map(|nick| members.named(nick)).map(|key| [&*members[key].nick]);
        // No more than was asked for, and there is no end that could say that it is cut short.
        reply.set_limit(usize::MAX);
        reply.list(&members[request.from], RPL_ISON, &[b":"], there);
    }

    /// USERHOST (RFC 2812, 4.8): `*` for operators; `+` for who is here, `-` for who is away.
    pub(super) fn userhost(&mut self, request: &Request<'_>) {
        let Hub { members, reply, .. } = self;
        let wanted = request.params.iter().take(MAX_USERHOST);
        let there: Vec<_> = wanted
            .filter_map(|nick| members.named(nick))
            .map(|key| &members[key])
            .map(|member| {
                let operator = member.modes.has(UserMode::Operator);
                let star: &[u8] = if operator { b"*=" } else { b"=" };
                let here: &[u8] = if member.away.is_some() { b"-" } else { b"+" };
                [&*member.nick, star, here, &member.user, b"@", &member.host].concat()
            })
            .collect();
        let there = there.iter().map(|item| [item.as_slice()]);
        reply.list(&members[request.from], RPL_USERHOST, &[b":"], there);
    }

    /// TIME (RFC 2812, 3.4.6).
    pub(super) fn time(&mut self, request: &Request<'_>) {
        let unix = self.settings.chat.unix(request.now);
        let to = &self.members[request.from];
        self.reply.text(to, RPL_TIME, &[&self.server, b" :", names::date(unix).as_bytes()]);
    }

    /// INFO (RFC 2812, 3.4.10).
    pub(super) fn info(&mut self, request: &Request<'_>) {
        let to = &self.members[request.from];
        let started = names::date(self.settings.chat.started_unix);
        let description = self.settings.chat.description.as_bytes();
        self.reply.text(to, RPL_INFO, &[b":", VERSION, b": ", description]);
        self.reply.text(to, RPL_INFO, &[b":This server was started ", started.as_bytes()]);
        self.reply.numeric(to, RPL_ENDOFINFO, &[]);
    }

    /// ADMIN (RFC 2812, 3.4.9).
    pub(super) fn admin(&mut self, request: &Request<'_>) {
        let to = &self.members[request.from];
        let Some(admin) = &self.settings.chat.admin else {
            return self.reply.numeric(to, ERR_NOADMININFO, &[&self.server]);
        };
        self.reply.numeric(to, RPL_ADMINME, &[&self.server]);
        self.reply.text(to, RPL_ADMINLOC1, &[b":", self.settings.chat.network.as_bytes()]);
        self.reply.text(to, RPL_ADMINLOC2, &[b":", VERSION]);
        self.reply.text(to, RPL_ADMINEMAIL, &[b":", admin.as_bytes()]);
    }

    /// STATS (RFC 2812, 3.4.4): `u` tells how long the server has been up, and others nothing.
    pub(super) fn stats(&mut self, request: &Request<'_>) {
        let (to, letter) = (&self.members[request.from], request.params.at(0));
        if letter == b"u" {
            let up = request.now.as_nanos() / 1_000_000_000;
            let (days, hours, minutes) = (up / 86_400, up / 3_600 % 24, up / 60 % 60);
            let up = format!(":Server Up {days} days {hours}:{minutes:02}:{:02}", up % 60);
            self.reply.text(to, RPL_STATSUPTIME, &[up.as_bytes()]);
        }
        self.reply.numeric(to, RPL_ENDOFSTATS, &[names::shown(letter)]);
    }

    /// LINKS (RFC 2812, 3.4.5): this server alone, whatever the mask, before which a server may be
    /// named.
    pub(super) fn links(&mut self, request: &Request<'_>) {
        let to = &self.members[request.from];
        let description = self.settings.chat.description.as_bytes();
        let parts = [&*self.server, b" ", &self.server, b" :0 ", description];
        self.reply.text(to, RPL_LINKS, &parts);
        let mask = request.params.at(request.params.len().saturating_sub(1).min(1));
        self.reply.numeric(to, RPL_ENDOFLINKS, &[names::shown(mask)]);
    }
}
