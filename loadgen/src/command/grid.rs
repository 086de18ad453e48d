//! The grid of a comparison: flags of which some may be lists.

use clap::{Args, FromArgMatches};

use crate::workload::Changes;

/// The changes to a workload, of which some may be lists: each combination is a point.
#[derive(Debug)]
pub struct Grid {
    changes: Changes,
    lists: [Vec<u32>; 3],
    rates: Vec<f64>,
}

/// The flags that may be lists in a comparison: whole numbers, and the rate.
const LISTS: [&str; 3] = ["connections", "size", "depth"];
const RATE: &str = "rate";

impl Args for Grid {
    fn augment_args(command: clap::Command) -> clap::Command {
        let list = |arg: clap::Arg| {
            let help = format!("{}; a list makes a grid", arg.get_help().unwrap_or_default());
            arg.value_delimiter(',').help(help)
        };
        let command = Changes::augment_args(command);
        LISTS.iter().chain([&RATE]).fold(command, |command, name| command.mut_arg(name, list))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Grid {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let list = |name| matches.get_many(name).unwrap_or_default().copied().collect();
        let rates = matches.get_many(RATE).unwrap_or_default().copied().collect();
        Ok(Self { changes: Changes::from_arg_matches(matches)?, lists: LISTS.map(list), rates })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Grid {
    /// Whether any of the lists was given.
    pub fn is_asked(&self) -> bool {
        self.lists.iter().any(|list| !list.is_empty()) || !self.rates.is_empty()
    }

    /// The points of a workload; so many connections where no flag says others.
    pub fn points(&self, name: &str, usual: &[u32]) -> Vec<(String, Changes)> {
        let connections = if self.lists[0].is_empty() { usual } else { &self.lists[0] };
        let [connections, sizes, depths] =
            [connections, &self.lists[1], &self.lists[2]].map(each::<u32>);
        let rates = each(&self.rates);
        let mut points = Vec::new();
        for &connections in &connections {
            for &size in &sizes {
                for &depth in &depths {
                    points.extend(rates.iter().map(|&rate| {
                        let own = self.changes.clone();
                        (name.to_owned(), Changes { connections, size, depth, rate, ..own })
                    }));
                }
            }
        }
        points
    }
}

/// The values of a list; an empty one leaves the workload's own number.
fn each<T: Copy>(list: &[T]) -> Vec<Option<T>> {
    match list {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    }
}
