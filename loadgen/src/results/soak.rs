//! What a soak found: servers under changing load for a long time, and what of them grew.

use schemars::JsonSchema;
use serde::Serialize;

use super::stats::Spread;
use crate::workload::Mode;

/// Laps that are left out at the beginning: what is made once and kept is not growth.
const FIRST: usize = 1;
/// The fewest laps that can show growth: after those, more than one in each third.
pub const FEWEST_LAPS: usize = FIRST + 6;
/// Bytes that a server may keep more without having grown: less than allocators keep now and then.
const SPARE: f64 = 256.0 * 1024.0;

/// A server at the end of a lap, when all clients have left.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Lap {
    /// Seconds since the server was started.
    pub seconds: f64,
    /// Messages of the lap.
    pub messages: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Median latency in nanoseconds of the lap's first workload.
    pub p50_ns: u64,
}

/// What is watched from lap to lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Watched {
    /// Open descriptors.
    Descriptors,
    /// Threads.
    Threads,
    /// Resident memory in bytes.
    Memory,
    /// Median latency in nanoseconds.
    Latency,
}

/// What became of one of those.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Growth {
    /// Which.
    pub what: Watched,
    /// In the first third of the laps.
    pub early: Spread,
    /// In the middle third.
    pub middle: Spread,
    /// In the last third.
    pub late: Spread,
    /// Whether it grew, and whether it still did at the end.
    pub course: Course,
}

/// Whether something grew from lap to lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Course {
    /// The laps of the last third are not all above those of the first, or by less than is spared.
    Flat,
    /// They are, but the median of the last third is not above that of the middle third. Said of
    /// memory only: an allocator keeps what was freed, up to what was once in use.
    Levelled,
    /// They are, and so is the median.
    Grew,
}

/// A server in one mode.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Soaked {
    /// Its name.
    pub server: String,
    /// What it spoke.
    pub mode: Mode,
    /// Every lap that was driven to its end.
    pub laps: Vec<Lap>,
    /// What grew and what did not; nothing if there were too few laps to tell.
    pub growth: Vec<Growth>,
    /// What went wrong, in words: wrong answers, an end that was not asked for.
    pub problems: Vec<String>,
}

impl Watched {
    /// All of them.
    pub const ALL: [Watched; 4] =
        [Watched::Descriptors, Watched::Threads, Watched::Memory, Watched::Latency];

    /// Its number in a lap.
    pub fn of(self, lap: &Lap) -> f64 {
        let number = match self {
            Self::Descriptors => lap.descriptors,
            Self::Threads => lap.threads,
            Self::Memory => lap.resident_bytes,
            Self::Latency => lap.p50_ns,
        };
        number as f64
    }

    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Threads => "threads",
            Self::Memory => "memory",
            Self::Latency => "latency",
        }
    }

    /// How much above an earlier value a later one may be without growth.
    fn spared(self, earlier: f64) -> f64 {
        match self {
            Self::Descriptors | Self::Threads => 0.0,
            Self::Memory => SPARE.max(earlier * 0.02),
            // What a machine of many guests does to a median by itself.
            Self::Latency => earlier * 0.25,
        }
    }

    /// Whether a later value is more than an earlier one by more than is spared.
    fn above(self, later: f64, earlier: f64) -> bool {
        later > earlier + self.spared(earlier)
    }
}

impl Soaked {
    /// Before the first lap.
    pub fn new(server: String, mode: Mode) -> Self {
        let (laps, growth, problems) = Default::default();
        Self { server, mode, laps, growth, problems }
    }

    /// Compares the last third of the laps with the others.
    pub fn judge(&mut self) {
        if self.laps.len() < FEWEST_LAPS {
            return;
        }
        let laps = &self.laps[FIRST..];
        let third = laps.len() / 3;
        for what in Watched::ALL {
            let of =
                |laps: &[Lap]| Spread::of(&laps.iter().map(|lap| what.of(lap)).collect::<Vec<_>>());
            let (first, rest) = laps.split_at(third);
            let (middle, last) = rest.split_at(rest.len() - third);
            if let (Some(early), Some(middle), Some(late)) = (of(first), of(middle), of(last)) {
                let grows = what.above(late.median, middle.median);
                let course = match what {
                    _ if !what.above(late.low, early.high) => Course::Flat,
                    Watched::Memory if !grows => Course::Levelled,
                    _ => Course::Grew,
                };
                self.growth.push(Growth { what, early, middle, late, course });
            }
        }
    }

    /// What took this course, in words.
    pub fn that(&self, course: Course) -> Vec<&'static str> {
        let such = self.growth.iter().filter(|growth| growth.course == course);
        such.map(|growth| growth.what.word()).collect()
    }

    /// Whether nothing grew and nothing went wrong, as far as can be told.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && self.that(Course::Grew).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soaked(memory: impl Fn(u64) -> u64, laps: u64) -> Soaked {
        let mut soaked = Soaked::new("s".into(), Mode::Echo);
        let lap = |n: u64| Lap {
            seconds: n as f64,
            messages: 1000,
            descriptors: 9,
            threads: 2,
            resident_bytes: memory(n),
            p50_ns: 20_000 + n % 3 * 4000,
        };
        soaked.laps = (0..laps).map(lap).collect();
        soaked.judge();
        soaked
    }

    /// A leak of 40 KiB a lap is seen in thirty laps, and so is one more descriptor.
    #[test]
    fn what_grows_is_told_from_what_goes_up_and_down() {
        let up_and_down = soaked(|n| (4 << 20) + n % 5 * 400_000, 30);
        assert_eq!(up_and_down.that(Course::Flat).len(), 4);
        assert!(up_and_down.is_sound());
        let mut leaks = soaked(|n| (4 << 20) + n * 40_960, 30);
        assert_eq!(leaks.that(Course::Grew), ["memory"]);
        assert!(!leaks.is_sound());
        leaks.growth.clear();
        for lap in &mut leaks.laps[15..] {
            lap.descriptors += 1;
        }
        leaks.judge();
        assert_eq!(leaks.that(Course::Grew), ["descriptors", "memory"]);
    }

    /// What an allocator keeps of many threads comes up to a level, and then stays there.
    #[test]
    fn what_comes_up_to_a_level_has_not_grown() {
        let filled = soaked(|n| n.min(15) << 20, 40);
        assert_eq!(filled.that(Course::Levelled), ["memory"]);
        assert!(filled.is_sound());
    }

    #[test]
    fn the_first_lap_and_too_few_laps_show_nothing() {
        let once = soaked(|n| if n == 0 { 1 << 20 } else { 64 << 20 }, 7);
        assert_eq!(once.that(Course::Flat).len(), 4);
        assert!(soaked(|n| n << 30, 6).growth.is_empty());
    }
}
