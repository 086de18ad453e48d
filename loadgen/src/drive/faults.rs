//! What can be wrong with an answer, counted and told.

use std::collections::HashSet;
use std::time::Instant;

use serde::Serialize;

use crate::base::text::quoted;

/// Faults described in words; the rest are only counted.
const EXAMPLES: usize = 5;

/// What a server did wrong with one line or one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// An error line of the server's own (`ERR ...`) came instead of an answer.
    Refused,
    /// A later line arrived and this one never did.
    Lost,
    /// The line arrived again.
    Repeated,
    /// The line arrived after a later one.
    Reordered,
    /// Only a beginning of the line arrived.
    Truncated,
    /// The line has the wrong content.
    Altered,
    /// The line belongs to another connection or channel.
    Crossed,
    /// The answer came before the question had been sent.
    Early,
    /// A speaker was sent what it had said itself.
    ToSpeaker,
    /// Nothing came back in time.
    Unanswered,
    /// The server closed or reset the connection.
    Closed,
}

impl Fault {
    /// All kinds, in the order in which they are reported.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Lost,
        Self::Repeated,
        Self::Reordered,
        Self::Truncated,
        Self::Altered,
        Self::Crossed,
        Self::Early,
        Self::ToSpeaker,
        Self::Unanswered,
        Self::Closed,
    ];

    /// The word used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Repeated => "repeated",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::Altered => "altered",
            Self::Crossed => "crossed",
            Self::Early => "early",
            Self::ToSpeaker => "to-speaker",
            Self::Unanswered => "unanswered",
            Self::Closed => "closed",
        }
    }
}

/// The faults of one driver, counted by kind, the first few in words.
#[derive(Debug, Default)]
pub struct FaultLog {
    counts: [u64; Fault::ALL.len()],
    examples: Vec<String>,
    refusal: Option<String>,
    gaps: HashSet<(u64, u32)>,
    first: Option<Instant>,
}

impl FaultLog {
    /// Counts `n` faults of a kind; `describe` is called only while examples are still collected.
    pub fn add(&mut self, fault: Fault, n: u64, describe: impl FnOnce() -> String) {
        if n == 0 {
            return;
        }
        self.counts[fault as usize] += n;
        self.first.get_or_insert_with(Instant::now);
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{}: {}", fault.name(), describe()));
        }
    }

    /// The server says by an error line of its own why it does not serve a connection or a line.
    pub fn refused(&mut self, connection: u32, line: &[u8]) {
        let said = quoted(line.trim_ascii_end());
        self.add(Fault::Refused, 1, || format!("connection {connection}: the server said {said}"));
        self.refusal.get_or_insert(said);
    }

    /// Sequence numbers `from..to` of a stream were passed over: lost, until one turns up late.
    pub fn gap(&mut self, stream: u64, from: u32, to: u32, describe: impl FnOnce() -> String) {
        self.add(Fault::Lost, u64::from(to - from), describe);
        // A bound on memory: past it a late line is called repeated, and the run is INVALID anyway.
        if self.gaps.len() < 100_000 {
            self.gaps.extend((from..to).map(|seq| (stream, seq)));
        }
    }

    /// A sequence number below the expected one: late if it was missing, else a repetition.
    pub fn behind(&mut self, stream: u64, seq: u32, describe: impl FnOnce() -> String) {
        if self.gaps.remove(&(stream, seq)) {
            self.counts[Fault::Lost as usize] -= 1;
            self.add(Fault::Reordered, 1, describe);
        } else {
            self.add(Fault::Repeated, 1, describe);
        }
    }

    /// When the first fault was seen.
    pub fn first(&self) -> Option<Instant> {
        self.first
    }

    /// Whether nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The kinds seen, with their counts.
    pub fn counts(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.into_iter().map(|f| (f, self.counts[f as usize])).filter(|&(_, n)| n > 0)
    }

    /// Why the verdict is INVALID: each kind with its count, and of a refusal what the server said
    /// first.
    pub fn reasons(&self) -> Vec<String> {
        let reason = |(fault, n): (Fault, u64)| match &self.refusal {
            Some(said) if fault == Fault::Refused => {
                format!("{n} refused: the server said {said}")
            }
            _ => format!("{n} {}", fault.name()),
        };
        self.counts().map(reason).collect()
    }

    /// The first few faults in words.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    /// Adds another driver's faults.
    pub fn merge(&mut self, other: Self) {
        for (sum, n) in self.counts.iter_mut().zip(other.counts) {
            *sum += n;
        }
        self.refusal = self.refusal.take().or(other.refusal);
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
        self.first = self.first.or(other.first);
    }
}

/// The faults that were seen while connections were opened: the run is INVALID before it began.
#[derive(Debug)]
pub struct FaultyOpening(pub FaultLog);

impl std::fmt::Display for FaultyOpening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "while opening connections: {}", self.0.examples().join("; "))
    }
}

impl std::error::Error for FaultyOpening {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let mut log = FaultLog::default();
        let mut other = FaultLog::default();
        other.refused(7, b"ERR the server is full\r");
        other.refused(8, b"ERR too many connections from your address\r");
        log.add(Fault::Closed, 1, String::new);
        log.merge(other);
        let expected = ["2 refused: the server said \"ERR the server is full\"", "1 closed"];
        assert_eq!(log.reasons(), expected);
        assert!(log.examples()[1].starts_with("refused: connection 7: the server said"));
    }

    #[test]
    fn a_late_line_turns_lost_into_reordered() {
        let mut log = FaultLog::default();
        log.gap(1, 4, 6, String::new);
        log.behind(1, 4, String::new);
        log.behind(1, 4, String::new);
        let counts: Vec<_> = log.counts().collect();
        let expected = [(Fault::Lost, 1), (Fault::Repeated, 1), (Fault::Reordered, 1)];
        assert_eq!(counts, expected);
    }
}
