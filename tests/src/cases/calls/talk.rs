//! The same in chat, where what one member says is for others.

use std::collections::BTreeMap;
use std::slice;
use std::time::Duration;

use nix::errno::Errno;
use rustix::process::Signal;

use super::Attempt;
use super::rows::Promise::{self, May};
use crate::client::{Client, End, excerpt, pump, pump_for};
use crate::member::{Member, gather, introduction};
use crate::traced::Traced;
use crate::tracer::Fault;

/// Lines that each of them says in a round.
const LINES: usize = 20;

/// A chat through which rounds go, and two who are there from the first to the last.
pub(super) struct Talk {
    traced: Traced,
    ann: Member,
    bob: Member,
    rounds: usize,
}

impl Talk {
    #[track_caller]
    pub(super) fn new(traced: Traced) -> Self {
        let (mut ann, mut bob) = (traced.server.member("ann"), traced.server.member("bob"));
        gather("#c", &mut [&mut ann, &mut bob]);
        Self { traced, ann, bob, rounds: 0 }
    }

    /// A round in which nothing fails: what is called in it.
    #[track_caller]
    pub(super) fn passes(&mut self) -> BTreeMap<String, u64> {
        self.traced.tracer.watch(None);
        self.converse(Client::poised(self.traced.server.watch()), Promise::Whole, "nothing");
        self.traced.tracer.report().seen
    }

    /// Lets a call fail that was seen in a round, and looks at what is promised.
    #[track_caller]
    pub(super) fn errs(&mut self, fault: &Fault, promise: Promise) -> Attempt {
        Attempt::of(|| {
            let what = format!("{} {} {}", fault.call, fault.kind, Errno::from_raw(fault.errno));
            let victim = Client::poised(self.traced.server.watch());
            let port = if fault.kind == "client" { victim.addr().port() } else { 0 };
            self.traced.tracer.watch(Some(Fault { port, ..fault.clone() }));
            self.converse(victim, promise, &what);
            let attempt = Attempt::told(&self.traced.tracer.report(), fault);
            self.traced.tracer.watch(None);
            attempt
        })
    }

    /// A member comes, speaks and goes, while another speaks, and a third hears both.
    #[track_caller]
    fn converse(&mut self, mut victim: Client, promise: Promise, what: &str) {
        self.rounds += 1;
        let nick = format!("v{}", self.rounds);
        victim.dial_from_here(self.traced.server.addr());
        victim.queue(format!("{}JOIN #c\r\nPING :done\r\n", introduction(&nick)).as_bytes());
        let is_in = |client: &Client| client.incoming.windows(5).any(|it| it == b"PONG ");
        while !is_in(&victim) && victim.end().is_none() {
            if self.traced.tracer.report().struck {
                break;
            }
            pump_for(what, slice::from_mut(&mut victim), Duration::from_millis(2));
        }
        let says = |n: usize| format!("PRIVMSG #c :line {n}\r\n");
        let lines: String = (0..LINES).map(says).collect();
        victim.queue(format!("{lines}QUIT\r\n").as_bytes());
        self.ann.say(lines.trim_end());
        pump(what, slice::from_mut(&mut victim), |it| it[0].end().is_some());

        // Bob hears all of ann's lines, and of the other's the first so many.
        let mut heard = [0, 0];
        let mut gone = false;
        while heard[0] < LINES || promise != May && !gone {
            let message = self.bob.next();
            gone |= message.command == "QUIT" && message.from() == nick;
            if message.command == "PRIVMSG" {
                let from = usize::from(message.from() == nick);
                let line = format!("line {}", heard[from]);
                assert_eq!(message.text(), line, "{what}: what bob hears: {message:?}");
                heard[from] += 1;
            }
        }
        let [text, end] =
            [excerpt(&victim.incoming, victim.incoming.len()), format!("{:?}", victim.end())];
        if promise != May {
            assert_eq!(heard[1], LINES, "{what}: what bob hears of {nick}, which got {text} {end}");
            assert_eq!(victim.end(), Some(End::Closed), "{what}: how it ended for {nick}");
        }
        // A newcomer is welcome, and when it has gone the others have missed nothing.
        self.traced.server.member(&format!("w{}", self.rounds));
        for member in [&mut self.ann, &mut self.bob] {
            let missed = member.sync().into_iter().filter(|it| it.command == "PRIVMSG");
            let missed: Vec<_> = missed.filter(|it| it.from() != nick).collect();
            assert!(missed.is_empty(), "{what}: once more: {missed:?}");
        }
    }

    /// It stops when it is told to.
    #[track_caller]
    pub(super) fn over(mut self) {
        self.traced.server.signal(Signal::TERM);
        for member in [&mut self.ann, &mut self.bob] {
            member.is_cut();
        }
        drop((self.ann, self.bob));
        assert_eq!(self.traced.server.wait().code(), Some(0), "the exit code");
        let said = self.traced.server.last_words();
        assert!(!said.iter().any(|line| line.contains("panicked")), "a panic: {said:?}");
    }
}
