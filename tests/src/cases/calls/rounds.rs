//! Rounds through a server, in each of which a call may fail, and what is seen of that outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use std::{slice, thread};

use nix::errno::Errno;
use rustix::process::Signal;

use super::Attempt;
use super::rows::Promise::{self, May, Waits, Whole};
use crate::cases::exhaustion::{does_not_spin, is_one_of};
use crate::client::{Client, End, excerpt, pump, pump_for};
use crate::traced::Traced;
use crate::tracer::Fault;
use crate::watchdog::Ctx;

/// A server through which rounds go, and who is there from the first to the last.
pub(super) struct Rounds {
    traced: Traced,
    /// Whom no error concerns. `None` where the model serves one at a time.
    inside: Option<Client>,
    /// The descriptors it has when no other client is there; at first not known.
    descriptors: usize,
    /// How many processes had them: a pool may grow, and each of it has some of its own.
    processes: usize,
}

/// What each client says, in two parts: the second is more than one read takes.
fn lines() -> [Vec<u8>; 2] {
    let more = (0..800).map(|n| format!("{n:99}\n")).collect::<String>();
    [b"first\n".to_vec(), more.into_bytes()]
}

impl Rounds {
    #[track_caller]
    pub(super) fn new(ctx: &Ctx, traced: Traced) -> Self {
        let inside = (!is_one_of(ctx, &["serve-iterative"])).then(|| traced.server.client());
        let mut rounds = Self { traced, inside, descriptors: usize::MAX, processes: 0 };
        if let Some(client) = &mut rounds.inside {
            client.round_trip("inside");
        }
        rounds
    }

    /// A round in which nothing fails: what is called in it.
    #[track_caller]
    pub(super) fn passes(&mut self) -> BTreeMap<String, u64> {
        self.traced.tracer.watch(None);
        self.converse(Client::poised(self.traced.server.watch()), Whole, "nothing");
        let seen = self.traced.tracer.report().seen;
        self.descriptors = self.few_descriptors();
        self.processes = self.traced.server.usage().processes;
        seen
    }

    /// Whether a call has failed that was to fail from the start.
    #[track_caller]
    pub(super) fn has_struck(&mut self) -> bool {
        self.traced.tracer.report().struck
    }

    /// Lets a call fail that was seen in a round, and looks at what is promised.
    #[track_caller]
    pub(super) fn errs(&mut self, fault: &Fault, promise: Promise) -> Attempt {
        Attempt::of(|| self.fails(fault, promise))
    }

    #[track_caller]
    fn fails(&mut self, fault: &Fault, promise: Promise) -> Attempt {
        let what = format!("{} {} {}", fault.call, fault.kind, Errno::from_raw(fault.errno));
        let shortages = self.traced.server.shortages();
        let victim = Client::poised(self.traced.server.watch());
        let port = if fault.kind == "client" { victim.addr().port() } else { 0 };
        self.traced.tracer.watch(Some(Fault { port, ..fault.clone() }));
        self.converse(victim, promise, &what);
        let attempt = Attempt::told(&self.traced.tracer.report(), fault);
        if attempt.struck && promise == Waits {
            let more = self.traced.server.shortages();
            assert!(more > shortages, "{what}: no shortage was counted");
        }
        self.traced.tracer.watch(None);
        let (most, processes) = (self.descriptors, self.processes);
        let server = &self.traced.server;
        server.watch().until(&format!("{what}: the descriptors that there were"), || {
            let usage = server.usage();
            usage.descriptors <= most || usage.processes > processes
        });
        attempt
    }

    /// A client says its lines, while another comes, and one that was there speaks as well.
    #[track_caller]
    fn converse(&mut self, mut victim: Client, promise: Promise, what: &str) {
        let [first, more] = lines();
        victim.dial_from_here(self.traced.server.addr());
        victim.queue(&first);
        // Until it is served or has ended, or the error that puts it off has come.
        while *victim.incoming != *first && victim.end().is_none() {
            if self.traced.tracer.report().struck {
                break;
            }
            pump_for(what, slice::from_mut(&mut victim), Duration::from_millis(2));
        }
        self.is_calm(what);
        // The next event brings what was put off.
        let mut clients = vec![victim, self.traced.server.client()];
        clients.extend(self.inside.take());
        let mut talking = [true; 2];
        clients.iter_mut().for_each(|client| client.queue(&more));
        pump(what, &mut clients, |clients| {
            for (client, talks) in clients.iter().zip(&mut talking) {
                if *talks && client.unsent() == 0 {
                    *talks = false;
                    client.half_close();
                }
            }
            let has_all = |client: &Client| client.incoming.len() >= more.len();
            let (leaving, inside) = clients.split_at(2);
            leaving.iter().all(|client| client.end().is_some())
                && inside.iter().all(|client| has_all(client) || client.end().is_some())
        });
        if let Some(mut inside) = clients.drain(2..).next() {
            inside.expect(&more);
            self.inside = Some(inside);
        }
        let is_whole = |client: &Client, all: &[u8]| {
            client.end() == Some(End::Closed) && *client.incoming == *all
        };
        assert!(is_whole(&clients[1], &more), "{what}: another client got {}", got(&clients[1]));
        let all = [first, more].concat();
        let begins = promise == May && all.starts_with(&clients[0].incoming);
        assert!(
            begins || is_whole(&clients[0], &all),
            "{what}: its client got {}",
            got(&clients[0])
        );
    }

    /// Nothing is there to be done, whatever has failed: so hardly anything is called.
    #[track_caller]
    fn is_calm(&mut self, what: &str) {
        let (before, started) = (self.traced.tracer.report().calls(), Instant::now());
        thread::sleep(Duration::from_millis(15));
        let calls = self.traced.tracer.report().calls() - before;
        // A model that asks every millisecond makes several calls in each.
        let most = 100 + started.elapsed().as_millis() * 10;
        assert!(u128::from(calls) < most, "{what}: {calls} calls with nothing to do");
    }

    /// The descriptors that it has when those have gone who were there for a round.
    fn few_descriptors(&self) -> usize {
        let mut descriptors = self.traced.server.usage().descriptors;
        let mut same = 0;
        self.traced.server.watch().until("the number of descriptors to stay", || {
            let now = self.traced.server.usage().descriptors;
            same = if now == descriptors { same + 1 } else { 0 };
            descriptors = now;
            same == 4
        });
        descriptors
    }

    /// It is well, and stops when it is told to.
    #[track_caller]
    pub(super) fn over(mut self) {
        does_not_spin(&self.traced.server);
        self.traced.server.signal(Signal::TERM);
        drop(self.inside);
        assert_eq!(self.traced.server.wait().code(), Some(0), "the exit code");
        let said = self.traced.server.last_words();
        let panics = said.iter().filter(|line| line.contains("panicked")).collect::<Vec<_>>();
        assert!(panics.is_empty(), "a panic: {panics:?}");
    }
}

/// What a client got, in few words.
fn got(client: &Client) -> String {
    let incoming = excerpt(&client.incoming, client.incoming.len());
    format!(
        "{} bytes, the last of them {incoming}, and then {:?}",
        client.incoming.len(),
        client.end()
    )
}
