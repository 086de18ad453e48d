//! Verdicts on claims, for people: a paragraph for each, and a line for each of its experiments.

use super::table::wrap;
use crate::base::text::number;
use crate::results::{ClaimPoint, ExperimentResult, Ruling, Tried};
use crate::workload::{Experiment, Kind, Quantity};

/// All of them.
pub fn claims(tried: &[Tried]) -> String {
    tried.iter().map(one).collect()
}

fn one(one: &Tried) -> String {
    let claim = &one.claim;
    let (verdict, sentence) = (one.ruling.word(), sentence(one));
    let head = format!("{}: {verdict}. {}. {sentence}", claim.name, claim.claim);
    let lines = claim.experiments.iter().zip(&one.results).map(|(experiment, result)| {
        wrap(&format!("{}: {}", result.ruling.word(), found(experiment, result)), "  ")
    });
    wrap(&head, "") + &lines.collect::<String>()
}

/// What explains a verdict, or what would help.
pub(super) fn sentence(one: &Tried) -> &str {
    match one.ruling {
        Ruling::NotShown => "A quieter machine or more rounds would help.",
        Ruling::CannotRun => "None of its experiments can be made here.",
        _ => &one.claim.because,
    }
}

/// What an experiment has found, in words.
pub(super) fn found(experiment: &Experiment, result: &ExperimentResult) -> String {
    let what = asked(experiment);
    if let Some(why) = &result.cannot {
        return format!("{what}: {why}");
    }
    if let (true, [point]) = (experiment.is_counted(), &result.points[..]) {
        return format!("{what}: {} to {}", number(point.server[0]), number(point.to[0]));
    }
    let points: Vec<String> = result.points.iter().map(point).collect();
    let along = experiment.along.word();
    let crossing = match result.crossing {
        Some((low, high)) => format!(". It changes between {low} and {high} {along}"),
        None => String::new(),
    };
    let doubt = match result.points.iter().map(|point| point.doubted).sum::<u32>() {
        0 => String::new(),
        n => format!(" ({n} rounds were SUSPECT)"),
    };
    format!("{what}, by {along}: {}{crossing}{doubt}", points.join(", "))
}

/// What is compared, and what the claim expects of it.
pub(super) fn asked(experiment: &Experiment) -> String {
    let Experiment { server, args, workload, workers, margin, .. } = experiment;
    let quantity = quantity(experiment.quantity);
    let server = [std::slice::from_ref(server), args].concat().join(" ");
    let to = match (&experiment.to, experiment.limit) {
        (Some(to), _) => format!("to {to}"),
        (None, Some(limit)) => format!("to a limit of {}", number(limit)),
        (None, None) => {
            let first = experiment.values.first().copied().unwrap_or_default();
            let grown = if experiment.proportional { ", grown as these" } else { "" };
            format!("to itself at {first} {}{grown}", experiment.along.word())
        }
    };
    let workers = if *workers > 1 { format!(", {workers} workers") } else { String::new() };
    let expected = match experiment.kind {
        Kind::Less => "less",
        Kind::More => "more",
        Kind::Equal => "equal",
        Kind::Differ => "unequal",
    };
    let margin = margin * 100.0;
    let workload = match workload.as_str() {
        "" => String::new(),
        name => format!(", {name}"),
    };
    format!("{quantity} of {server} {to}{workload}{workers}, expected {expected} (±{margin:.0} %)")
}

fn quantity(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Cpu => "CPU per message",
        Quantity::CpuOfSecond => "CPU per second",
        Quantity::Calls => "system calls per message",
        Quantity::Switches => "context switches per message",
        Quantity::IdleMemory => "resident memory per idle connection",
        Quantity::AllMemory => "memory per idle connection, the kernel's included",
        Quantity::P50 => "median latency",
        Quantity::P99 => "p99 latency",
        Quantity::Rate => "messages per second",
        Quantity::Sharing => "lines that share or hand over",
        Quantity::Lines => "lines of code",
        Quantity::Unsafe => "unsafe blocks",
        Quantity::WaitsInTransfer => "waiting in the call that brings the bytes",
        Quantity::CopiesItself => "fetching the bytes itself",
        Quantity::Unanswered => "unanswered bytes of a loop that reads once for each event",
    }
}

fn point(point: &ClaimPoint) -> String {
    match point.ratio {
        Some(ratio) => format!("{}: {ratio}", point.value),
        None => format!("{}: too few rounds", point.value),
    }
}
