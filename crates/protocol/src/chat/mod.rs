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
//! So from a quarter of that on nobody is asked for lines until it has ([`Hub::line`]): speakers
//! wait for workers, and never for a slow member, whose mail is taken like all others'.
//!
//! An answer that grows with the server (LIST, NAMES, WHO, MOTD) ends early, and says so in its
//! last line, when half of the send queue is used up: a big server does not cut a client by
//! answering it. A sweep over all members (WHO or NAMES without a name) is not offered and gets its
//! end alone; LIST is, because it is how people find a channel.

mod channels;
mod commands;
mod members;
mod names;
mod parse;
mod post;
mod reply;
mod slab;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use self::channels::{ChannelKey, Channels};
use self::members::{Member, MemberKey, Members};
use self::post::Post;
use self::reply::{ERR_INPUTTOOLONG, Reply};
use crate::{ConnId, Line, Message, Settings, Time};

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
    reply: Reply,
    post: Post,
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
            reply: Reply::new(server.clone()),
            post: Post::new(workers, &settings.limits),
            stopping: false,
            server,
            settings,
        }
    }

    /// A connection has come. `host` is what others see behind the `@`: an address as text.
    pub fn open(&mut self, id: ConnId, host: &str, now: Time) {
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
    }

    /// One line of that connection. A connection that is unknown or on its way out is ignored.
    ///
    /// Returns whether there is room for more. If not, workers have mail to take first: whoever
    /// is too quick for them would get members cut who read. This line was heard all the same;
    /// the next should wait for [`Parcel::Resume`].
    pub fn line(&mut self, id: ConnId, line: Line<'_>, now: Time) -> bool {
        let Some(from) = self.members.find(id) else { return true };
        self.reply.set_limit(self.post.room(from));
        match line {
            Line::Whole(bytes) => self.command(from, &without_breaks(bytes), now),
            Line::TooLong => self.reply.numeric(&self.members[from], ERR_INPUTTOOLONG, &[]),
            Line::Refused(reason) => self.sever(from, Farewell::Told, reason.as_bytes()),
            Line::End => self.sever(from, Farewell::Closed, b"Connection closed"),
            Line::Room => {}
        }
        self.send_reply(from);
        self.post.has_room(id)
    }

    /// Asks a silent member for a sign of life.
    pub fn ping(&mut self, id: ConnId) {
        let Some(key) = self.members.find(id) else { return };
        // Like ERROR it has no source: whoever looks at the first word alone must know it.
        let message = self.post.encode(&[b"PING :", &self.server]);
        self.post.offer(key, &message);
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
    /// does not read: nobody waits for that.
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

    /// The server stops: tells everyone, closes everyone, and does the same to whoever still
    /// comes.
    pub fn shut_down(&mut self) {
        self.stopping = true;
        // Nobody is told of the others: all of them go.
        let message = self.post.encode(&[CLOSING_LINK, SHUTTING_DOWN]);
        let everyone: Vec<_> = self.members.keys().collect();
        for key in everyone {
            self.post.force(key, Parcel::Close(Arc::clone(&message)));
            self.members.remove(key);
        }
        self.channels = Channels::new();
    }

    /// Moves the mail for connections of `worker` into `mail`, which must be empty; its room is
    /// used again, unless it is for a great deal.
    pub fn take(&mut self, worker: usize, mail: &mut Vec<Mail>) {
        self.post.take(worker, mail);
    }

    /// The workers other than `own` that have got mail since they were last named here: wake
    /// them once the lock is released.
    pub fn wakes(&mut self, own: usize) -> impl Iterator<Item = usize> + use<> {
        self.post.wakes(own)
    }

    /// Mails what was written for `to` while its line was handled.
    fn send_reply(&mut self, to: MemberKey) {
        if !self.reply.bytes().is_empty() {
            let message = Message::from(self.reply.bytes());
            self.post.offer(to, &message);
            self.reply.clear();
        }
    }

    /// Mails `message` to all members of a channel save one.
    fn send_to_others(&mut self, channel: ChannelKey, except: MemberKey, message: &Message) {
        for &to in &self.channels[channel].members {
            if to != except {
                self.post.offer(to, message);
            }
        }
    }

    /// Mails `message` once to each who shares a channel with `from`, whatever number of them.
    fn send_to_sharers(&mut self, from: MemberKey, message: &Message) {
        self.post.begin_round(from);
        for &channel in &self.members[from].channels {
            for &to in &self.channels[channel].members {
                self.post.offer_once(to, message);
            }
        }
    }

    /// Takes a member out of everything, after telling it and those who shared a channel with it.
    fn sever(&mut self, key: MemberKey, farewell: Farewell, reason: &[u8]) {
        let quit = self.post.encode(&[b":", &self.members[key].mask, b" QUIT :", reason]);
        self.send_to_sharers(key, &quit);
        for channel in core::mem::take(&mut self.members[key].channels) {
            self.channels.remove_member(channel, key);
        }
        self.members.remove(key);
        match farewell {
            Farewell::Told => {
                let last = self.post.encode(&[CLOSING_LINK, reason]);
                self.post.force(key, Parcel::Close(last));
            }
            Farewell::Closed => self.post.force(key, Parcel::Close(Message::default())),
            Farewell::Gone => {}
        }
    }
}

const CLOSING_LINK: &[u8] = b"ERROR :Closing link: ";
const SHUTTING_DOWN: &[u8] = b"Server shutting down";

/// `line` without CR, LF and NUL, any of which some client takes for the end of a line: nothing
/// that is relayed can forge one. A line of a well-behaved client is not copied.
fn without_breaks(line: &[u8]) -> Cow<'_, [u8]> {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n' | b'\0');
    if line.iter().any(is_break) {
        Cow::Owned(line.iter().copied().filter(|byte| !is_break(byte)).collect())
    } else {
        Cow::Borrowed(line)
    }
}
