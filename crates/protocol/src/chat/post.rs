//! The mail: one queue for each worker, in the order of the hub's decisions.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::caps::{Cap, Caps};
use super::letter::Letter;
use super::members::MemberKey;
use super::reply::add_line;
use super::{Mail, Parcel};
use crate::{ConnId, Limits, Message};

/// Marks a mailbox that ran over: nothing fits any more.
const CONDEMNED: usize = usize::MAX;

/// The most mail for which a worker keeps room: a thousand members that join at once would leave
/// room for a quarter of a million behind, and never again need it.
const KEPT_WHEN_EMPTY: usize = 8192;

/// What a delivery has to know of a member: two to a cache line, because a message to a channel
/// touches one for each receiver and nothing else of it.
struct Mailbox {
    id: ConnId,
    /// The bytes mailed but not taken: good while `epoch` is the queue's, else zero.
    untaken: usize,
    epoch: u64,
    /// The last round that has been here.
    round: u32,
    /// What the member has asked for.
    caps: Caps,
}

/// The mail for one worker.
struct Queue {
    mail: Vec<Mail>,
    /// How often the mail was taken. It makes all `untaken` of the worker's members zero at once.
    epoch: u64,
}

/// A set of workers.
#[derive(Clone, Copy, Default)]
struct Workers([u64; ConnId::MAX_WORKERS / 64]);

impl Workers {
    fn insert(&mut self, worker: usize) {
        self.0[worker / 64] |= 1 << (worker % 64);
    }

    fn remove(&mut self, worker: usize) -> bool {
        let bit = 1 << (worker % 64);
        let was = self.0[worker / 64] & bit != 0;
        self.0[worker / 64] &= !bit;
        was
    }

    fn is_empty(self) -> bool {
        self.0.iter().all(|&bits| bits == 0)
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        (0..).zip(self.0).flat_map(|(word, mut bits)| {
            core::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        })
    }
}

/// All mail on its way, bounded for each member.
pub(super) struct Post {
    /// Most bytes mailed to one member and not taken.
    sendq: usize,
    /// Bytes mailed to one member and not taken from which on no member should say more.
    mark: usize,
    queues: Vec<Queue>,
    /// By member key.
    mailboxes: Vec<Mailbox>,
    /// Workers with a mailbox over the mark.
    pressed: Workers,
    /// Connections whose owner has taken their mail, but has not come to see it.
    behind: BTreeSet<ConnId>,
    /// The members that are told when neither is left.
    waiting: Vec<ConnId>,
    /// The members that have been told, each of which is heard once more whatever has come since.
    /// Otherwise, while some speak without end, a worker would find its own mailbox over the mark
    /// each time it hears another.
    resumed: BTreeSet<ConnId>,
    round: u32,
    /// The instant of what is being said, in milliseconds since 1970, where it is known.
    pub(super) clock: Option<u64>,
    /// The number of the last message that had one.
    ids: u64,
    /// Workers whose queue has mail of which no worker was told.
    unnamed: Workers,
    scratch: Vec<u8>,
}

impl Post {
    pub(super) fn new(workers: usize, limits: &Limits, started_unix: u64) -> Post {
        Post {
            sendq: limits.sendq,
            mark: limits.high_water(),
            queues: (0..workers).map(|_| Queue { mail: Vec::new(), epoch: 0 }).collect(),
            mailboxes: Vec::new(),
            pressed: Workers::default(),
            behind: BTreeSet::new(),
            waiting: Vec::new(),
            resumed: BTreeSet::new(),
            round: 0,
            clock: None,
            // A thousand million of them in each second, before those of a later start are reached.
            ids: started_unix << 30,
            unnamed: Workers::default(),
            scratch: Vec::new(),
        }
    }

    /// Gives the member under `key` an empty mailbox. Its worker must be known.
    pub(super) fn open(&mut self, key: MemberKey, id: ConnId) {
        let epoch = self.queues[id.worker()].epoch;
        let mailbox = Mailbox { id, untaken: 0, epoch, round: 0, caps: Caps::default() };
        // Keys are dense: the next one is at most the one after the last.
        match self.mailboxes.get_mut(key.index()) {
            Some(place) => *place = mailbox,
            None => self.mailboxes.push(mailbox),
        }
    }

    /// The capabilities of a member, for what is sent to it.
    pub(super) fn set_caps(&mut self, key: MemberKey, caps: Caps) {
        self.mailboxes[key.index()].caps = caps;
    }

    /// One line for any number of receivers: encoded once, and once more for each form in which one
    /// of them wants it.
    pub(super) fn encode(&mut self, parts: &[&[u8]]) -> Letter {
        Letter::new(self.encode_plain(parts), self.clock)
    }

    /// One line that has the same form for all.
    pub(super) fn encode_plain(&mut self, parts: &[&[u8]]) -> Message {
        self.scratch.clear();
        add_line(&mut self.scratch, parts);
        Arc::from(&self.scratch[..])
    }

    /// A number that no other message of this server has or had; nor, in all likelihood, one of
    /// a server that ran before in its place.
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Mails a letter in the form that the member has asked for, as [`Post::mail`] does.
    pub(super) fn offer(&mut self, to: MemberKey, letter: &mut Letter) {
        self.mail_by(to, |caps| letter.form(caps));
    }

    /// Like [`Post::offer`], but only to a member with this capability.
    pub(super) fn offer_with(&mut self, cap: Cap, to: MemberKey, letter: &mut Letter) {
        if self.mailboxes[to.index()].caps.has(cap) {
            self.offer(to, letter);
        }
    }

    /// Mails `message`, unless the member's mail would run over: then its owner is told so, and
    /// nothing more comes to it.
    pub(super) fn mail(&mut self, to: MemberKey, message: &Message) {
        self.mail_by(to, |_| message);
    }

    /// As [`Post::mail`]; which message it is depends on the member's capabilities. What is done
    /// here is done once for each receiver of a message.
    #[inline]
    fn mail_by<'a>(&mut self, to: MemberKey, choose: impl FnOnce(Caps) -> &'a Message) {
        let mailbox = &mut self.mailboxes[to.index()];
        let message = choose(mailbox.caps);
        let worker = mailbox.id.worker();
        let queue = &mut self.queues[worker];
        if mailbox.epoch != queue.epoch {
            mailbox.epoch = queue.epoch;
            mailbox.untaken = 0;
        }
        if mailbox.untaken.saturating_add(message.len()) > self.sendq {
            if mailbox.untaken != CONDEMNED {
                mailbox.untaken = CONDEMNED;
                self.force(to, Parcel::Overrun);
            }
            return;
        }
        mailbox.untaken += message.len();
        if mailbox.untaken > self.mark {
            self.pressed.insert(worker);
        }
        if queue.mail.is_empty() {
            self.unnamed.insert(worker);
        }
        queue.mail.push(Mail { to: mailbox.id, parcel: Parcel::Text(Arc::clone(message)) });
    }

    /// Begins a round of [`Post::offer_once`] that passes `except` over.
    pub(super) fn begin_round(&mut self, except: MemberKey) {
        self.round = self.round.checked_add(1).unwrap_or_else(|| {
            // The numbers begin again: none that has been used may be taken for a new one.
            self.mailboxes.iter_mut().for_each(|mailbox| mailbox.round = 0);
            1
        });
        self.mailboxes[except.index()].round = self.round;
    }

    /// Like [`Post::offer`], but only once in a round.
    pub(super) fn offer_once(&mut self, to: MemberKey, letter: &mut Letter) {
        if self.is_first(to) {
            self.offer(to, letter);
        }
    }

    /// Whether this round has not been at a member. Now it has.
    pub(super) fn is_first(&mut self, to: MemberKey) -> bool {
        let mailbox = &mut self.mailboxes[to.index()];
        core::mem::replace(&mut mailbox.round, self.round) != self.round
    }

    /// Mails what has no bound because it comes only once, in a member's life or between two
    /// takings.
    pub(super) fn force(&mut self, to: MemberKey, parcel: Parcel) {
        self.push(self.mailboxes[to.index()].id, parcel);
    }

    fn push(&mut self, to: ConnId, parcel: Parcel) {
        let queue = &mut self.queues[to.worker()];
        if queue.mail.is_empty() {
            self.unnamed.insert(to.worker());
        }
        queue.mail.push(Mail { to, parcel });
    }

    /// Whether the member under `key` may go on speaking, in whose queue so much waits; if not, it
    /// is told when it may.
    pub(super) fn has_room(&mut self, key: MemberKey, queued: usize) -> bool {
        let id = self.mailboxes[key.index()].id;
        let its_turn = self.resumed.remove(&id);
        // What it has asked for is yet to be queued: only then can its session see how much it has
        // not read.
        let own = self.untaken(key).saturating_add(queued) > self.mark;
        let room = its_turn || !own && self.pressed.is_empty() && self.behind.is_empty();
        if !room {
            self.waiting.push(id);
        }
        room
    }

    /// As [`super::Hub::press`].
    pub(super) fn press(&mut self, id: ConnId) {
        self.behind.insert(id);
    }

    /// As [`super::Hub::relieve`].
    pub(super) fn relieve(&mut self, id: ConnId) {
        self.behind.remove(&id);
        self.resume();
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, id: ConnId) {
        self.resumed.remove(&id);
        self.waiting.retain(|waiting| *waiting != id);
        self.relieve(id);
    }

    /// Tells those who wait, once there is room.
    fn resume(&mut self) {
        if self.pressed.is_empty() && self.behind.is_empty() {
            for id in core::mem::take(&mut self.waiting) {
                // So few that what they say fits between the mark and the limit.
                if self.resumed.len() * Limits::CHAT_LINE < self.mark {
                    self.resumed.insert(id);
                }
                self.push(id, Parcel::Resume);
            }
        }
    }

    /// How long an answer may get that has no bound of its own: half the send queue, less what
    /// waits already, so that no member is cut for having asked.
    pub(super) fn room(&self, key: MemberKey) -> usize {
        (self.sendq / 2).saturating_sub(self.untaken(key))
    }

    /// The bytes that are mailed to a member and not taken.
    fn untaken(&self, key: MemberKey) -> usize {
        let mailbox = &self.mailboxes[key.index()];
        let current = self.queues[mailbox.id.worker()].epoch == mailbox.epoch;
        if current { mailbox.untaken } else { 0 }
    }

    /// As [`super::Hub::take`].
    pub(super) fn take(&mut self, worker: usize, mail: &mut Vec<Mail>) {
        debug_assert!(mail.is_empty(), "mail that was taken and not posted");
        if worker >= self.queues.len() {
            return;
        }
        self.pressed.remove(worker);
        // First, so that those of this worker who wait are told in the mail that is taken here.
        self.resume();
        let queue = &mut self.queues[worker];
        queue.epoch += 1;
        mail.shrink_to(KEPT_WHEN_EMPTY);
        core::mem::swap(&mut queue.mail, mail);
        self.unnamed.remove(worker);
    }

    /// As [`super::Hub::wakes`].
    pub(super) fn wakes(&mut self, own: usize) -> impl Iterator<Item = usize> + use<> {
        let mut named = core::mem::take(&mut self.unnamed);
        if own < ConnId::MAX_WORKERS && named.remove(own) {
            self.unnamed.insert(own);
        }
        named.iter()
    }
}
