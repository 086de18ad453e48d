//! The course of one phase: when to keep sending, when to stop, when to give up waiting.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::faults::FaultLog;
use super::{Phase, PhaseResult, Second, Shared, histogram};

/// After a first fault the phase goes on this long, so that its fellows are seen and named.
const AFTER_FAULT: Duration = Duration::from_millis(200);
/// After a fault or a stop, how long answers in flight are waited for.
const IMPATIENT: Duration = Duration::from_millis(500);
/// Parts of a window between which the rate may not drift.
const SLICES: u64 = 10;
/// A second in nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// What a driver is to do after a batch of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Go,
    StopSending,
    Finish,
}

/// The state of a phase. Times are nanoseconds since it began.
pub(super) struct Window {
    began: Instant,
    duration: u64,
    pub(super) sending: bool,
    pub(super) record: bool,
    /// Whether it was stopped before its time: then what has not come by its end is no fault.
    pub(super) cut: bool,
    stall: Duration,
    pub(super) total: u64,
    pub(super) sent: u64,
    published: u64,
    progress_at: u64,
    window_ns: u64,
    cpu_at_start: u64,
    /// Processor time spent waiting without sleep.
    spun_ns: u64,
    slices: Vec<u64>,
    sliced: u64,
    /// What was noted before the second that is running.
    histograms: Vec<(&'static str, Histogram<u64>)>,
    /// What was noted in the second that is running.
    running: Vec<Histogram<u64>>,
    seconds: Vec<Second>,
    counted: u64,
    pub(super) faults: FaultLog,
}

impl Window {
    pub(super) fn new(phase: Phase, stall: Duration, names: &[&'static str]) -> Self {
        let (duration, record, sending) = match phase {
            Phase::Load { duration, record } => (duration, record, true),
            Phase::Touch => (Duration::ZERO, false, false),
        };
        Self {
            began: Instant::now(),
            duration: duration.as_nanos() as u64,
            sending,
            record,
            cut: false,
            stall,
            total: 0,
            sent: 0,
            published: 0,
            progress_at: 0,
            window_ns: 0,
            cpu_at_start: thread_cpu_ns(),
            spun_ns: 0,
            slices: Vec::with_capacity(SLICES as usize + 1),
            sliced: 0,
            histograms: names.iter().map(|&name| (name, histogram())).collect(),
            running: names.iter().map(|_| histogram()).collect(),
            seconds: Vec::with_capacity((duration.as_secs() + 2) as usize),
            counted: 0,
            faults: FaultLog::default(),
        }
    }

    /// Nanoseconds since the phase began.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Since this thread had used `from` of processor time there was nothing to do, and it did not
    /// sleep. Returns what it has used by now.
    #[inline]
    pub(super) fn has_spun(&mut self, from: u64) -> u64 {
        let now = thread_cpu_ns();
        self.spun_ns += now - from;
        now
    }

    /// Records a value (ns) in the `n`th histogram.
    #[inline]
    pub(super) fn note(&mut self, n: usize, value: u64) {
        self.running[n].saturating_record(value);
    }

    /// To be called after every batch of events, with what is still unanswered.
    pub(super) fn batch(&mut self, outstanding: u64, shared: &Shared) -> Step {
        let now = self.now();
        while self.record && now >= (self.seconds.len() as u64 + 1) * SECOND {
            self.end_second();
            let p99 = self.seconds.last().and_then(|second| second.p99(0));
            shared.finished(self.seconds.len() as u64, p99.unwrap_or(0));
        }
        if outstanding == 0 {
            // No answer is waited for: in an open loop that is no stall.
            self.progress_at = now;
        }
        if self.total != self.published {
            shared.messages.fetch_add(self.total - self.published, Relaxed);
            self.published = self.total;
            self.progress_at = now;
        }
        let fault = self.faults.first().map(|at| at.elapsed());
        let stop = shared.stop.load(Relaxed);
        self.cut |= stop;
        if self.sending {
            self.slice(now);
            let stalled = now - self.progress_at > self.stall.as_nanos() as u64;
            let faulty = fault.is_some_and(|age| age > AFTER_FAULT);
            if now < self.duration && !stalled && !faulty && !stop {
                return Step::Go;
            }
            self.sending = false;
            self.window_ns = now;
            return Step::StopSending;
        }
        let hurry = stop || fault.is_some();
        let patience = if hurry { IMPATIENT.min(self.stall) } else { self.stall };
        let waited = now - self.progress_at.max(self.window_ns);
        // A stall while sending has used up the patience already.
        let stalled = now - self.progress_at > self.stall.as_nanos() as u64;
        if outstanding == 0 || stalled || waited > patience.as_nanos() as u64 {
            return Step::Finish;
        }
        Step::Go
    }

    fn slice(&mut self, now: u64) {
        let done = now.saturating_mul(SLICES) / self.duration.max(1);
        if (self.slices.len() as u64) < done.min(SLICES) {
            self.slices.push(self.total - self.sliced);
            self.sliced = self.total;
        }
    }

    /// Books what was noted since the last second ended. A batch of events that spans the end of
    /// a second counts for the second in which it began.
    fn end_second(&mut self) {
        let mut counts = Vec::with_capacity(self.running.len());
        for ((_, sum), running) in self.histograms.iter_mut().zip(&mut self.running) {
            let recorded = running.iter_recorded();
            counts.push(recorded.map(|v| (v.value_iterated_to(), v.count_at_value())).collect());
            sum.add(&*running).expect("histograms of one shape");
            running.reset();
        }
        self.seconds.push(Second { messages: self.total - self.counted, counts });
        self.counted = self.total;
    }

    pub(super) fn finish(mut self) -> PhaseResult {
        // The end of a visit is noted after its last message.
        let noted = self.running.iter().any(|running| !running.is_empty());
        if self.record && (noted || self.total > self.counted) {
            self.end_second();
        }
        PhaseResult {
            phases: 1,
            total: self.total,
            sent: self.sent,
            window_ns: self.window_ns,
            busy_ns: self.window_ns.max(self.progress_at),
            cpu_ns: (thread_cpu_ns() - self.cpu_at_start).saturating_sub(self.spun_ns),
            slices: self.slices,
            histograms: self.histograms,
            seconds: self.seconds,
            open_loop: None,
            cut: self.cut,
            faults: self.faults,
        }
    }
}

/// Processor time of the calling thread in nanoseconds.
pub(super) fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
