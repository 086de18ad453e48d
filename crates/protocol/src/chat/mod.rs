//! Chat: an IRC subset as pure state. Lines in, mail out.
//!
//! What a line leads to is decided by [`commands`]; who is there and where, by [`members`] and
//! [`channels`]; what a name may be, by [`names`]; how a line is written, by [`reply`]; how it
//! reaches its receivers, by [`post`].
//!
//! # How a line is handled
//!
//! What its sender is told gathers in one [`Reply`], the sender's own JOIN or PART included, and
//! becomes one message. What others are told is encoded once and mailed to each while the line is
//! handled.
//!
//! # Bounds
//!
//! A member may have [`crate::Limits::sendq`] bytes mailed and not taken. What would run over is
//! not mailed, and the owner is told to cut the member. Mail that is not taken says nothing of
//! the member, who may read it the moment it gets it: it is the worker that has not come to it.
//! So from a quarter of that on no member is asked for lines until it has ([`Hub::line`]): speakers
//! wait for workers, and never for a slow member, whose mail is taken like all others'.
//!
//! An answer that grows with the server (LIST, NAMES, WHO, WHOIS, MOTD) ends early, and says so in
//! its last line, when half of the send queue is used up: by the answer itself, by mail that is
//! not taken, and by what waits to be read ([`Hub::note_queue`]). Room is kept for that last line.
//! So a big server does not cut a client by answering it, as long as an owner says no line of a
//! member that has more than [`crate::Limits::high_water`] to read. Every other answer has a bound:
//! what one line can ask for. A sweep over all members (WHO or NAMES without a name) is not offered
//! and gets its end alone; LIST is, because it is how people find a channel.

mod caps;
mod channels;
mod commands;
mod letter;
mod masks;
mod members;
mod modes;
mod names;
mod parse;
mod past;
mod post;
mod reply;
mod slab;
#[cfg(test)]
mod tests;
mod watchers;

use std::sync::Arc;

use self::caps::{Cap, Caps};
use self::channels::{ChannelKey, Channels};
use self::letter::Letter;
use self::members::{Member, MemberKey, Members, Membership};
use self::past::Past;
use self::post::Post;
use self::reply::{ERR_INPUTTOOLONG, Numeric, RPL_MONOFFLINE, Reply};
use self::watchers::Watchers;
use crate::{ConnId, Done, Gone, Limits, Line, Message, Posted, SENDQ_EXCEEDED, Settings, Time};

/// One thing for one connection, in the order in which the hub decided it.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Whom it is for.
    pub to: ConnId,
    /// What it is.
    pub parcel: Parcel,
}

/// What [`Mail`] brings.
#[derive(Clone, Debug)]
pub enum Parcel {
    /// Bytes to send: one or more whole lines, shared by all their receivers.
    Text(Message),
    /// The member has registered: its registration deadline is off.
    Welcome,
    /// There is room again for the lines of this member, who was told that there was none.
    Resume,
    /// More was mailed to this member than it may have, and has been thrown away.
    Overrun,
    /// The last parcel of this connection: these last words, which may be empty, go behind what
    /// is queued, or instead of it when it ran over; then close.
    Close(Message),
}

/// What a member still gets when it goes.
#[derive(Clone, Copy)]
enum Farewell {
    /// [`Parcel::Close`] with the reason as its last words.
    Told,
    /// [`Parcel::Close`] without a word.
    Closed,
    /// Nothing: the connection is no more.
    Gone,
}

/// Members, channels and nicknames.
pub struct Hub {
    settings: Arc<Settings>,
    /// The server's name: the source of what it says itself.
    server: Box<[u8]>,
    /// The parameters of 005, a line each.
    features: Vec<Box<[u8]>>,
    members: Members,
    channels: Channels,
    watchers: Watchers,
    reply: Reply,
    post: Post,
    past: Past,
    /// What the member wants the response to its line to be labelled with.
    label: Option<Box<[u8]>>,
    /// How many batches there have been.
    batches: u64,
    /// The latest that the hub has been told.
    now: Time,
    stopping: bool,
}

impl Hub {
    /// An empty hub whose mail goes to `workers` workers.
    #[must_use]
    pub fn new(settings: Arc<Settings>, workers: usize) -> Hub {
        let workers = workers.min(ConnId::MAX_WORKERS);
        let server = names::host(&settings.chat.server_name);
        Hub {
            features: commands::features(&settings),
            members: Members::new(workers),
            channels: Channels::new(),
            watchers: Watchers::default(),
            reply: Reply::new(server.clone()),
            post: Post::new(workers, &settings.limits, settings.chat.started_unix),
            past: Past::default(),
            label: None,
            batches: 0,
            now: Time::ZERO,
            stopping: false,
            server,
            settings,
        }
    }

    /// Whether a line asks for what is not known at once. Its answer comes with the first line that
    /// is heard after [`Limits::OPER_DELAY`], an empty one if there is no other; until then the
    /// session hears none.
    pub(crate) fn is_question(line: &[u8]) -> bool {
        parse::is_oper(line)
    }

    /// Whether a line only speaks to others, or keeps its connection alive. Its sender is answered
    /// with a few lines at most, whatever has gathered on the server.
    #[must_use]
    pub fn only_speaks(line: &[u8]) -> bool {
        parse::only_speaks(line)
    }

    /// A connection has come. `host` is what others see behind the `@`: an address as text.
    pub fn open(&mut self, id: ConnId, host: &str, now: Time) {
        self.note_time(now);
        // A tenant whose leave was forgotten must not be mistaken for its successor.
        if let Some(former) = self.members.seated(id) {
            self.sever(former, Farewell::Gone, b"Connection closed");
        }
        if let Some(key) = self.members.insert(Member::new(id, host, now)) {
            self.post.open(key, id);
            if self.stopping {
                self.sever(key, Farewell::Told, SHUTTING_DOWN);
            }
        }
        self.post.clock = None;
    }

    /// Says how many bytes wait for that connection's peer to read them, beyond what is mailed and
    /// not taken: the answer to its next line is the shorter for it.
    pub fn note_queue(&mut self, id: ConnId, bytes: usize) {
        let Some(key) = self.members.find(id) else { return };
        self.members[key].queued = bytes;
    }

    /// One line of that connection. A connection that is unknown or on its way out is ignored.
    ///
    /// Returns whether there is room for more, as [`Hub::has_room`] does. This line was heard all
    /// the same; the next should wait for [`Parcel::Resume`].
    pub fn line(&mut self, id: ConnId, line: Line<'_>, now: Time) -> bool {
        let Some(from) = self.members.find(id) else { return true };
        self.note_time(now);
        self.reply.set_limit(self.post.room(from).saturating_sub(self.members[from].queued));
        if self.members[from].asked.is_some() {
            self.answer_oper(from);
            if self.members.find(id).is_none() {
                // It was one attempt too many.
                self.post.clock = None;
                return true;
            }
        }
        match line {
            Line::Whole(bytes) if is_too_long(bytes) => self.answer(from, ERR_INPUTTOOLONG, &[]),
            Line::Whole(bytes) => self.command(from, &parse::without_breaks(bytes), now),
            Line::TooLong => self.answer(from, ERR_INPUTTOOLONG, &[]),
            Line::Refused(reason) => self.sever(from, Farewell::Told, reason.as_bytes()),
            Line::End => self.sever(from, Farewell::Closed, b"Connection closed"),
        }
        if self.members.find(id).is_some() {
            self.label_reply();
        }
        self.label = None;
        self.send_reply(from);
        self.post.clock = None;
        self.has_room(id)
    }

    /// Whether there is room for a line of that connection. If not, workers have mail to take
    /// first: a speaker that is too quick for them would get members cut who read, and one that
    /// asks and asks would get short answers. [`Parcel::Resume`] tells the speaker when there is
    /// room.
    pub fn has_room(&mut self, id: ConnId) -> bool {
        let Some(key) = self.members.find(id) else { return true };
        self.post.has_room(key, self.members[key].queued)
    }

    /// Asks a silent member for a sign of life.
    pub fn ping(&mut self, id: ConnId) {
        let Some(key) = self.members.find(id) else { return };
        // Like ERROR it has no source: a client that looks at the first word alone must know it.
        let message = self.post.encode_plain(&[b"PING :", &self.server]);
        self.post.mail(key, &message);
    }

    /// Ends a member: tells it why (`ERROR :Closing link: REASON`), then closes, and tells those
    /// who share a channel with it.
    pub fn cut(&mut self, id: ConnId, reason: &str) {
        let Some(key) = self.members.find(id) else { return };
        self.sever(key, Farewell::Told, reason.as_bytes());
    }

    /// For a worker that hands the mail it has taken on to others, who own the members: that of
    /// `id` has passed a quarter of [`crate::Limits::sendq`] without its owner having come to it.
    /// Until [`Hub::relieve`] there is no room for more ([`Hub::line`]). Not for a member that
    /// does not read: no speaker waits for that.
    pub fn press(&mut self, id: ConnId) {
        self.post.press(id);
    }

    /// The owner of `id` has come to its mail.
    pub fn relieve(&mut self, id: ConnId) {
        self.post.relieve(id);
    }

    /// A connection is gone: tells those who share a channel with it. Nothing when it was cut.
    pub fn leave(&mut self, id: ConnId, reason: &str) {
        self.post.forget(id);
        let Some(key) = self.members.find(id) else { return };
        self.sever(key, Farewell::Gone, reason.as_bytes());
    }

    /// The server stops: tells and closes all members, and does the same to those that still come.
    pub fn shut_down(&mut self) {
        self.stopping = true;
        // No member is told of the others: all of them go.
        let message = self.post.encode_plain(&[CLOSING_LINK, SHUTTING_DOWN]);
        let everyone: Vec<_> = self.members.keys().collect();
        for key in everyone {
            self.tell_gone(key, SHUTTING_DOWN);
            self.post.force(key, Parcel::Close(Arc::clone(&message)));
            self.members.remove(key);
        }
        self.channels = Channels::new();
        self.watchers = Watchers::default();
    }

    /// Moves the mail for connections of `worker` into `mail`, which must be empty; its room is
    /// used again, unless it is for a great deal.
    pub fn take(&mut self, worker: usize, mail: &mut Vec<Mail>) {
        self.post.take(worker, mail);
    }

    /// For a server of one worker whose threads bring mail to each other: hands every parcel to
    /// `post`, and again what comes of it. Returns what a server counts. `mail` must be empty, and
    /// is afterwards; its room is used again.
    pub fn hand_out(
        &mut self,
        mail: &mut Vec<Mail>,
        mut post: impl FnMut(ConnId, Parcel) -> Posted,
    ) -> Done {
        let mut done = Done::default();
        loop {
            self.take(0, mail);
            if mail.is_empty() {
                return done;
            }
            for Mail { to, parcel } in mail.drain(..) {
                let posted = post(to, parcel);
                if posted.full {
                    self.cut(to, SENDQ_EXCEEDED);
                    done.slow_cut += 1;
                }
                if posted.behind {
                    self.press(to);
                }
            }
        }
    }

    /// The workers other than `own` that have got mail since they were last named here: wake
    /// them once the lock is released.
    pub fn wakes(&mut self, own: usize) -> impl Iterator<Item = usize> + use<> {
        self.post.wakes(own)
    }

    /// Adds a numeric to the reply that is being written for `to`.
    fn answer(&mut self, to: MemberKey, numeric: Numeric, params: &[&[u8]]) {
        self.reply.numeric(&self.members[to], numeric, params);
    }

    /// Mails what was written for `to` while its line was handled.
    fn send_reply(&mut self, to: MemberKey) {
        if !self.reply.bytes().is_empty() {
            let message = Message::from(self.reply.bytes());
            self.post.mail(to, &message);
            self.reply.clear();
        }
    }

    /// Mails a letter to all members of a channel save one.
    fn send_to_others(&mut self, channel: ChannelKey, except: MemberKey, letter: &mut Letter) {
        for &to in &self.channels[channel].members {
            if to != except {
                self.post.offer(to, letter);
            }
        }
    }

    /// Like [`Hub::send_to_others`], to those with a capability.
    fn send_to_others_with(
        &mut self,
        cap: Cap,
        channel: ChannelKey,
        except: MemberKey,
        letter: &mut Letter,
    ) {
        for &to in &self.channels[channel].members {
            if to != except {
                self.post.offer_with(cap, to, letter);
            }
        }
    }

    /// Mails a letter once to each who shares a channel with `from`, whatever number of them.
    fn send_to_sharers(&mut self, from: MemberKey, letter: &mut Letter) {
        self.post.begin_round(from);
        for &Membership { channel, .. } in &self.members[from].channels {
            for &to in &self.channels[channel].members {
                self.post.offer_once(to, letter);
            }
        }
    }

    /// Like [`Hub::send_to_sharers`], to those with a capability; and to those who watch for
    /// `from`, where they have asked for that as well (IRCv3 "extended-monitor").
    fn send_to_sharers_with(&mut self, cap: Cap, from: MemberKey, letter: &mut Letter) {
        self.post.begin_round(from);
        for &Membership { channel, .. } in &self.members[from].channels {
            for &to in &self.channels[channel].members {
                if self.post.is_first(to) {
                    self.post.offer_with(cap, to, letter);
                }
            }
        }
        for to in self.watchers.of(&self.members[from].nick) {
            if self.members[to].caps.has(Cap::ExtendedMonitor) && self.post.is_first(to) {
                self.post.offer_with(cap, to, letter);
            }
        }
    }

    /// Tells those who watch for `nick` that it is taken or free; `shown` is its holder's mask, or
    /// the nickname. `from` is the member whose line is handled.
    fn tell_watchers(&mut self, nick: &[u8], numeric: Numeric, shown: &[u8], from: MemberKey) {
        for to in self.watchers.of(nick) {
            let code = numeric.code.as_bytes();
            let to_nick = self.members[to].name();
            let parts = [b":", &*self.server, b" ", code, b" ", to_nick, b" :", shown];
            if to == from {
                self.reply.line(&parts);
            } else {
                let mut letter = self.post.encode(&parts);
                self.post.offer(to, &mut letter);
            }
        }
    }

    /// Adds to the reply for `to` what others get as well.
    fn echo(&mut self, to: MemberKey, letter: &mut Letter) {
        self.reply.echo(letter.form(self.members[to].caps));
    }

    /// Takes note of the time. What comes to pass without a line (a cut, a connection that is gone)
    /// has no time of its own.
    fn note_time(&mut self, now: Time) {
        self.now = now;
        let started = self.settings.chat.started_unix.saturating_mul(1_000);
        self.post.clock = Some(started.saturating_add(now.as_nanos() / 1_000_000));
    }

    fn set_caps(&mut self, key: MemberKey, caps: Caps) {
        self.members[key].caps = caps;
        self.post.set_caps(key, caps);
    }

    /// Tells the operator that a connection ends.
    fn tell_gone(&self, key: MemberKey, reason: &[u8]) {
        if let Some(watch) = &self.settings.watch {
            let member = &self.members[key];
            let (nick, host, registered) = (member.name(), &*member.host, member.registered);
            watch.gone(&Gone { nick, host, registered, reason });
        }
    }

    /// Takes a member out of everything, after telling it and those who shared a channel with it.
    fn sever(&mut self, key: MemberKey, farewell: Farewell, reason: &[u8]) {
        let mut quit = self.post.encode(&[b":", &self.members[key].mask, b" QUIT :", reason]);
        self.send_to_sharers(key, &mut quit);
        self.tell_gone(key, reason);
        for nick in core::mem::take(&mut self.members[key].watched) {
            self.watchers.remove(&nick, key);
        }
        if self.members[key].registered {
            self.past.note(&self.members[key], self.settings.chat.unix(self.now));
            let nick = self.members[key].nick.clone();
            self.tell_watchers(&nick, RPL_MONOFFLINE, &nick, key);
        }
        for membership in core::mem::take(&mut self.members[key].channels) {
            self.channels.remove_member(membership.channel, key);
        }
        self.members.remove(key);
        match farewell {
            Farewell::Told => {
                let last = self.post.encode_plain(&[CLOSING_LINK, reason]);
                self.post.force(key, Parcel::Close(last));
            }
            Farewell::Closed => self.post.force(key, Parcel::Close(Message::default())),
            Farewell::Gone => {}
        }
    }
}

const CLOSING_LINK: &[u8] = b"ERROR :Closing link: ";
const SHUTTING_DOWN: &[u8] = crate::session::SHUTTING_DOWN.as_bytes();

/// Whether the tags of a line or the rest of it are longer than they may be.
fn is_too_long(line: &[u8]) -> bool {
    let tags = parse::tags_len(line);
    // One that ends in LF alone has room for a byte more.
    tags > Limits::CHAT_TAGS || line.len() - tags >= Limits::CHAT_LINE
}
