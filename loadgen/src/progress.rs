//! What is shown while it runs: one moving line on a terminal, plain lines into a pipe.
//!
//! Everything here goes to standard error; standard output holds results only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a command.
pub struct Progress {
    bar: Option<ProgressBar>,
    step: String,
}

impl Progress {
    /// A moving line if standard error is a terminal, else plain lines.
    pub fn start() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
            let bar = ProgressBar::new_spinner();
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        Self { bar, step: String::new() }
    }

    /// A new step begins.
    pub fn step(&mut self, step: String) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(step.clone());
                bar.tick();
            }
            None => eprintln!("{step}"),
        }
        self.step = step;
    }

    /// Something to be kept: it stays on the terminal above the moving line.
    pub fn note(&self, note: &str) {
        match &self.bar {
            Some(bar) => bar.println(note),
            None => eprintln!("{note}"),
        }
    }

    /// Called several times a second; drawn only here, never by a thread of its own that would
    /// disturb the measurement.
    pub fn tick(&self, messages: u64, elapsed: Duration) {
        if let Some(bar) = &self.bar {
            let rate = messages as f64 / elapsed.as_secs_f64().max(1e-3);
            bar.set_message(format!("{}  {:.0} messages/s", self.step, rate));
            bar.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
