//! The pace of an open loop: which message is due, who takes it, and what became of all of them.
//!
//! What can take a message, a connection in echo and a speaker in chat, is a taker here. It is
//! chosen when the message's time has come, at random among those with fewer than `depth` in
//! flight, as if each message were another user's. Where none has room, the workload says what
//! happens, and it is counted.

use std::time::Duration;

use anyhow::Result;
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::schedule::Schedule;
use super::window::{Window, thread_cpu_ns};
use super::{NAP, OpenLoop, Phase, Poller};
use crate::base::random::splitmix;
use crate::workload::{Arrivals, WhenBusy};

/// Messages sent in one go while answers wait to be read; a longer burst takes turns with them.
pub(super) const BURST: u32 = 16;

/// One thread's share of an open loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Messages a second of all threads together.
    pub(super) rate: f64,
    /// This thread's part of them.
    pub(super) part: Part,
    /// How their times are drawn.
    pub(super) arrivals: Arrivals,
    /// This thread's place among equally distant messages, from 0 to 1.
    pub(super) offset: f64,
    /// What happens when no taker has room.
    pub(super) when_busy: WhenBusy,
    /// Messages in flight of a taker that has no room.
    pub(super) depth: u32,
    /// Seed of the times and of the choice of takers.
    pub(super) seed: u64,
    /// Whether to wait without sleeping.
    pub(super) spins: bool,
}

/// Those from `from` to `to` of `whole` equal parts of all messages. Each message belongs to
/// exactly one of the parts that cover the whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) whole: u32,
}

impl Part {
    /// How many of `all` messages it has.
    fn of(self, all: u64) -> u64 {
        let before = |n| u128::from(all) * u128::from(n) / u128::from(self.whole.max(1));
        (before(self.to) - before(self.from)) as u64
    }
}

/// What is to be done with a message that is due.
pub(super) enum Due {
    /// This taker sends it.
    Send(u32),
    /// No taker does: it is dropped, and counted.
    Dropped,
    /// It waits until a taker has room.
    Wait,
}

/// The messages of the phase that runs.
pub(super) struct Pacer {
    pace: Pace,
    alarm: Alarm,
    takers: Vec<u32>,
    /// Those of them that have room, and those that have died with room.
    free: Vec<u32>,
    /// State of the choice among them.
    choice: u64,
    schedule: Schedule,
    /// Nanoseconds of all windows that were recorded, and the messages of all threads in them.
    recorded: (u64, u64),
    /// Length of the window in nanoseconds.
    end: u64,
    /// Messages that will never be due, because the window ended before its time.
    later: u64,
    counts: OpenLoop,
    /// Whether the next message has found no room, and waits for an answer.
    blocked: bool,
    /// When it was last seen that there was no room: what was due by then has had to queue.
    busy_until: Option<u64>,
    /// When the last message was sent.
    last: u64,
    /// Processor time of this thread when it last found nothing to do; `None` once it has done
    /// something since.
    idle: Option<u64>,
}

impl Pacer {
    pub(super) fn new(pace: Pace, poller: &Poller) -> Result<Self> {
        Ok(Self {
            alarm: Alarm::new(poller)?,
            takers: Vec::new(),
            free: Vec::new(),
            choice: pace.seed,
            schedule: Schedule::new(pace.arrivals, 0, 0, 0.0, 0),
            recorded: (0, 0),
            end: 0,
            later: 0,
            counts: OpenLoop::default(),
            blocked: false,
            busy_until: None,
            last: 0,
            idle: None,
            pace,
        })
    }

    /// Who can take messages, once that is known.
    pub(super) fn takers(&mut self, takers: impl Iterator<Item = u32>) {
        self.takers.extend(takers);
        self.free.reserve(self.takers.len());
    }

    /// A new window with a schedule of its own; nothing is in flight.
    pub(super) fn begin(&mut self, phase: Phase) {
        let Pace { arrivals, part, offset, .. } = self.pace;
        self.end = phase.duration().as_nanos() as u64;
        let all = part.of(self.messages(phase));
        let seed = splitmix(&mut self.pace.seed);
        self.schedule = Schedule::new(arrivals, all, self.end, offset, seed);
        self.counts = OpenLoop { scheduled: self.schedule.all(), ..OpenLoop::default() };
        (self.blocked, self.busy_until, self.last) = (false, None, 0);
        (self.idle, self.later) = (None, 0);
        self.alarm.set = None;
        self.free.clone_from(&self.takers);
    }

    /// Messages of all threads in a phase. It is rounded to whole ones before it is shared out, and
    /// for all windows that are recorded together: neither the number of threads nor that of
    /// windows changes how many there are.
    fn messages(&mut self, phase: Phase) -> u64 {
        let whole = |nanoseconds: u64| (self.pace.rate * nanoseconds as f64 / 1e9).round() as u64;
        if !matches!(phase, Phase::Load { record: true, .. }) {
            return whole(self.end);
        }
        let lasted = self.recorded.0 + self.end;
        let (before, all) = (self.recorded.1, whole(lasted));
        self.recorded = (lasted, all);
        all - before
    }

    /// The time of the next message, if that has come.
    #[inline]
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        self.schedule.due(now)
    }

    /// Takes the next message, which was due at `intended`. `in_flight` says how many messages a
    /// taker has in flight, or `None` once it is dead; `most` is a bound on that when pipelining.
    pub(super) fn take(
        &mut self,
        intended: u64,
        now: u64,
        most: u32,
        in_flight: impl Fn(u32) -> Option<u32>,
    ) -> Due {
        if self.blocked {
            self.busy_until = Some(now);
        }
        let mut taker = self.choose(&in_flight);
        if taker.is_none() {
            match self.pace.when_busy {
                WhenBusy::Queue => {}
                WhenBusy::Pipeline => {
                    taker = self.any().filter(|&any| in_flight(any).is_some_and(|n| n < most));
                    self.counts.pipelined += u64::from(taker.is_some());
                }
                WhenBusy::Drop => {
                    self.idle = None;
                    self.counts.dropped += 1;
                    self.schedule.take();
                    return Due::Dropped;
                }
            }
        }
        let Some(taker) = taker else {
            (self.blocked, self.busy_until) = (true, Some(now));
            return Due::Wait;
        };
        (self.blocked, self.idle) = (false, None);
        self.counts.queued += u64::from(self.busy_until.is_some_and(|until| intended <= until));
        self.counts.sent += 1;
        self.last = now;
        self.schedule.take();
        Due::Send(taker)
    }

    /// A taker with room, chosen at random; with one more message it may have none.
    fn choose(&mut self, in_flight: &impl Fn(u32) -> Option<u32>) -> Option<u32> {
        while !self.free.is_empty() {
            let place = splitmix(&mut self.choice) as usize % self.free.len();
            let taker = self.free[place];
            let in_flight = in_flight(taker);
            if in_flight.is_none_or(|n| n + 1 >= self.pace.depth) {
                self.free.swap_remove(place);
            }
            if in_flight.is_some() {
                return Some(taker);
            }
        }
        None
    }

    /// Any taker, busy or not.
    fn any(&mut self) -> Option<u32> {
        let place = splitmix(&mut self.choice) as usize % self.takers.len().max(1);
        self.takers.get(place).copied()
    }

    /// A taker that had `before` messages in flight has `left` of them; it may have room again.
    #[inline]
    pub(super) fn answered(&mut self, taker: u32, before: u32, left: u32) {
        if left < self.pace.depth && before >= self.pace.depth {
            self.free.push(taker);
        }
    }

    /// Waits for events, or until the next message is due, if it can be sent then, or the window
    /// ends. Returns how many events there are.
    ///
    /// With a processor to itself it does not sleep: waking up, on a virtual machine tens of
    /// microseconds, would be in the lateness of the messages and in the latency of the answers.
    pub(super) fn wait(&mut self, poller: &mut Poller, window: &mut Window) -> Result<usize> {
        if !self.pace.spins {
            return poller.wait(self.patience(window)?);
        }
        // From one wait to the next, all that is between two of them included: looking at the
        // clocks and for what is due is waiting too.
        let from = self.idle.take().unwrap_or_else(thread_cpu_ns);
        let events = poller.wait(Duration::ZERO)?;
        if events == 0 {
            // What the kernel has to do on this processor, delivering packets above all, must not
            // wait for the end of our time slice.
            std::thread::yield_now();
            self.idle = Some(window.has_spun(from));
        }
        Ok(events)
    }

    /// How long to sleep; the alarm may end it.
    fn patience(&mut self, window: &Window) -> Result<Duration> {
        if !window.sending || self.blocked {
            return Ok(NAP);
        }
        let (next, now) = (self.schedule.next().unwrap_or(self.end), window.now());
        if next <= now {
            return Ok(Duration::ZERO);
        }
        self.alarm.set(now, next)?;
        Ok(NAP)
    }

    /// The window ends `now`, before its time. What would have been due later is taken out of the
    /// schedule.
    pub(super) fn cut(&mut self, now: u64) {
        let mut later = self.schedule.clone();
        while later.due(now).is_some() {
            later.take();
        }
        self.counts.scheduled -= later.left();
        self.later = later.left();
        self.end = now;
    }

    /// What became of the schedule, once the window has ended.
    pub(super) fn counts(&self) -> OpenLoop {
        let lasted = self.last.max(self.end).max(1) as f64 / 1e9;
        let sent_per_second = self.counts.sent as f64 / lasted;
        let unsent = self.schedule.left() - self.later;
        OpenLoop { unsent, sent_per_second, ..self.counts }
    }
}

/// Wakes a poller at a given time, to the precision of the kernel's timers. The timeout of a wait
/// would be rounded to milliseconds, or be late by the thread's timer slack (50 us).
struct Alarm {
    timer: OwnedFd,
    /// For when it is set, in nanoseconds since the window began.
    set: Option<u64>,
}

impl Alarm {
    /// An alarm that wakes `poller`; its events have the index `TIMER`.
    fn new(poller: &Poller) -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        poller.add_timer(&timer)?;
        Ok(Self { timer, set: None })
    }

    /// It is `now`; wakes the poller at `at`, which is later. The last call counts.
    fn set(&mut self, now: u64, at: u64) -> Result<()> {
        if self.set != Some(at) {
            let left = at.saturating_sub(now).max(1);
            let value = Timespec {
                tv_sec: (left / 1_000_000_000) as i64,
                tv_nsec: (left % 1_000_000_000) as i64,
            };
            let once =
                Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.set = Some(at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Two takers of depth 1 and ten messages, one each millisecond.
    fn pacer(when_busy: WhenBusy) -> Pacer {
        let arrivals = Arrivals::Uniform;
        let (rate, part) = (1000.0, Part { from: 0, to: 1, whole: 1 });
        let pace =
            Pace { rate, part, arrivals, offset: 0.0, when_busy, depth: 1, seed: 1, spins: true };
        let mut pacer = Pacer::new(pace, &Poller::new().unwrap()).unwrap();
        pacer.takers(0..2);
        pacer.begin(Phase::Load { duration: Duration::from_millis(10), record: true });
        pacer
    }

    /// Takes all that is due, by takers who never answer; says how often each was chosen.
    fn take_due(pacer: &mut Pacer, now: u64, busy: &mut [u32; 2]) {
        while let Some(intended) = pacer.due(now) {
            match pacer.take(intended, now, 3, |taker| Some(busy[taker as usize])) {
                Due::Send(taker) => busy[taker as usize] += 1,
                Due::Dropped => {}
                Due::Wait => break,
            }
        }
    }

    #[test]
    fn what_finds_no_room_queues_in_order() {
        let (mut pacer, mut busy) = (pacer(WhenBusy::Queue), [0; 2]);
        take_due(&mut pacer, 4 * MS, &mut busy);
        assert_eq!((busy, pacer.counts.sent, pacer.counts.queued), ([1, 1], 2, 0));
        assert_eq!(pacer.due(4 * MS), Some(2 * MS), "the third waits");
        busy[0] = 0;
        pacer.answered(0, 1, 0);
        take_due(&mut pacer, 5 * MS, &mut busy);
        assert_eq!((busy, pacer.counts.sent, pacer.counts.queued), ([1, 1], 3, 1));
        assert_eq!((pacer.counts().scheduled, pacer.counts().unsent), (10, 7));
    }

    #[test]
    fn what_finds_no_room_is_dropped_or_pipelined() {
        let (mut drop, mut busy) = (pacer(WhenBusy::Drop), [0; 2]);
        take_due(&mut drop, 9 * MS, &mut busy);
        let counts = drop.counts();
        assert_eq!((counts.sent, counts.dropped, counts.queued, drop.due(9 * MS)), (2, 8, 0, None));
        let (mut pipeline, mut busy) = (pacer(WhenBusy::Pipeline), [0; 2]);
        take_due(&mut pipeline, 4 * MS, &mut busy);
        let counts = pipeline.counts();
        assert_eq!(counts.sent, counts.pipelined + 2);
        assert!(counts.pipelined > 0 && busy.iter().all(|&n| n <= 3), "{busy:?}");
    }

    #[test]
    fn what_was_not_yet_due_is_not_missing_from_a_window_that_was_cut() {
        let (mut pacer, mut busy) = (pacer(WhenBusy::Queue), [0; 2]);
        take_due(&mut pacer, 4 * MS, &mut busy);
        pacer.cut(4 * MS);
        let counts = pacer.counts();
        assert_eq!((counts.scheduled, counts.sent, counts.unsent), (5, 2, 3), "0 to 4 ms");
        assert_eq!(counts.sent_per_second, 2.0 / 0.004);
    }

    #[test]
    fn the_dead_are_not_chosen() {
        let mut pacer = pacer(WhenBusy::Queue);
        let taker = |taker| (taker == 1).then_some(0);
        assert!(matches!(pacer.take(0, 0, 1, taker), Due::Send(1)));
        assert!(matches!(pacer.take(MS, MS, 1, |_| None), Due::Wait));
    }

    #[test]
    fn an_alarm_wakes_at_its_time_and_again() {
        let mut poller = Poller::new().unwrap();
        let mut alarm = Alarm::new(&poller).unwrap();
        let long = std::time::Duration::from_secs(60);
        for round in 1..=3u64 {
            let began = std::time::Instant::now();
            alarm.set(0, round * 1_000_000).unwrap();
            assert_eq!(poller.wait(long).unwrap(), 1);
            assert_eq!(poller.event(0).0, super::super::poller::TIMER);
            assert!(began.elapsed().as_millis() as u64 >= round);
        }
    }
}
