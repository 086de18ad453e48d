//! What is shown while it runs: one moving line on a terminal, plain lines into a pipe.
//!
//! Everything here goes to standard error; standard output holds results only.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Gauges;
use crate::base::output::say;
use crate::base::text;
use crate::drive::Seen;

/// From when on a rate is shown: what came before says little.
const SOON: Duration = Duration::from_millis(200);

/// The progress of a command.
pub struct Progress {
    bar: Option<ProgressBar>,
    step: String,
    /// When the run that is under way will be done, as far as that is known.
    end: Option<Instant>,
    /// When all runs of the command will be done, where it has many and can tell.
    all: Option<Instant>,
    /// Where others read how far it is.
    gauges: Option<Arc<Gauges>>,
}

impl Progress {
    /// A moving line if standard error is a terminal, else plain lines.
    pub fn start() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
            let bar = ProgressBar::new_spinner();
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        Self { bar, step: String::new(), end: None, all: None, gauges: None }
    }

    /// Tells these gauges too.
    pub fn tell(&mut self, gauges: Arc<Gauges>) {
        self.gauges = Some(gauges);
    }

    /// A new step begins.
    pub fn step(&mut self, step: String) {
        if let Some(gauges) = &self.gauges {
            gauges.step(&step);
        }
        match &self.bar {
            Some(bar) => {
                bar.set_message(step.clone());
                bar.tick();
            }
            None => say(&step),
        }
        self.step = step;
    }

    /// What is under way will take so long from now on.
    pub fn expect(&mut self, left: Duration) {
        self.end = Instant::now().checked_add(left);
    }

    /// All that the command still has to do will take so long from now on, about.
    pub fn expect_all(&mut self, left: Duration) {
        self.all = Instant::now().checked_add(left);
    }

    /// Something to be kept: it stays on the terminal above the moving line.
    pub fn note(&self, note: &str) {
        match &self.bar {
            Some(bar) => bar.println(note),
            None => say(note),
        }
    }

    /// Called several times a second; drawn only here, never by a thread of its own that would
    /// disturb the measurement.
    pub fn tick(&self, seen: Seen, elapsed: Duration) {
        let left = self.all.or(self.end).map(|end| end.saturating_duration_since(Instant::now()));
        if let Some(gauges) = &self.gauges {
            gauges.look(seen, elapsed, left);
        }
        if let Some(bar) = &self.bar {
            bar.set_message(line(&self.step, seen, elapsed, left));
            bar.tick();
        }
    }
}

/// The moving line: the time left, the step, its rate, and the latency of its last second. A narrow
/// terminal cuts off its end.
fn line(step: &str, seen: Seen, elapsed: Duration, left: Option<Duration>) -> String {
    // Half a second more or less is not worth showing, nor is what was expected to be over.
    let seconds = left.map_or(0, |left| left.as_secs_f64().round() as u64);
    let mut line = match seconds {
        0 => step.to_owned(),
        _ => format!("{} left  {step}", humantime::format_duration(Duration::from_secs(seconds))),
    };
    if elapsed >= SOON {
        let rate = seen.messages as f64 / elapsed.as_secs_f64();
        line.push_str(&format!("  {} messages/s", text::number(rate)));
    }
    if let Some(p99) = seen.p99 {
        line.push_str(&format!("  p99 {}", text::time(p99.as_nanos() as f64)));
    }
    line
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known() {
        let second = Duration::from_secs(1);
        let seen = |messages, p99| Seen { messages, p99 };
        let p99 = Some(Duration::from_micros(1500));
        let full = line("one", seen(90_000, p99), 2 * second, Some(61 * second));
        assert_eq!(full, "1m 1s left  one  45,000 messages/s  p99 1.50 ms");
        let begun = line("one", seen(9, None), second / 100, Some(second / 4));
        assert_eq!(begun, "one", "neither a rate of nothing nor a time that is over");
    }
}
