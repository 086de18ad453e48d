//! The rule behind every verdict, on noise of known shape: how often it tells two equal servers
//! apart, and how often it finds a real difference. Nothing here depends on the machine.
//!
//! `cargo test -p loadgen --test verdicts -- --ignored --nocapture` prints the rates of this rule
//! beside those of others; `docs/METHODOLOGY.md` says what follows from them.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use loadgen::base::random::splitmix;
use loadgen::results::{SignedRank, shown};

/// A seeded source of noise.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        (splitmix(&mut self.0) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        // Box and Muller; the logarithm of zero is kept away.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// What a round does to the log of a server's cost. Of the machine's `state`, which it may change,
/// the servers of a round feel the same.
type Shape = fn(&mut Noise, state: &mut f64) -> f64;

/// Shapes of noise, all of about 5 % a round.
const SHAPES: [(&str, Shape); 5] = [
    ("normal", |noise, _| 0.05 * noise.normal()),
    ("heavy tail (t, 2 degrees)", |noise, _| {
        let (x, y) = (noise.normal(), noise.normal());
        0.05 * noise.normal() / ((x * x + y * y) / 2.0).sqrt()
    }),
    ("one run in ten half as dear again", |noise, _| {
        0.05 * noise.normal() + if noise.uniform() < 0.1 { 0.4 } else { 0.0 }
    }),
    ("skewed", |noise, _| 0.05 * (1.0 - (1.0 - noise.uniform()).ln())),
    ("drifting machine", |noise, state| {
        *state += 0.03 * noise.normal();
        *state + 0.05 * noise.normal()
    }),
];

/// The rounds of servers, each of which costs so much, in mirrored order.
fn rounds(costs: &[f64], rounds: usize, shape: Shape, noise: &mut Noise) -> Vec<Vec<f64>> {
    let mut state = 0.0;
    let mut all = vec![Vec::with_capacity(rounds); costs.len()];
    for round in 0..rounds {
        for n in 0..costs.len() {
            let server = if round % 2 == 0 { n } else { costs.len() - 1 - n };
            all[server].push(costs[server] * shape(noise, &mut state).exp());
        }
    }
    all
}

/// Whether two servers' rounds are told apart, and the second is the dearer.
type Verdict = fn(&[f64], &[f64]) -> Option<bool>;

fn signed_rank(a: &[f64], b: &[f64]) -> Option<bool> {
    let ratio = SignedRank::of(a.len()).ratio(b, a)?;
    (ratio.shown() > 1.0).then_some(ratio.ratio > 1.0)
}

/// Part of `trials` pairs that are told apart, and part in which the second is called dearer.
fn rates(n: usize, ratio: f64, shape: Shape, verdict: Verdict, trials: u32) -> (f64, f64) {
    let mut noise = Noise(7);
    let (mut apart, mut dearer) = (0, 0);
    for _ in 0..trials {
        let all = rounds(&[1.0, ratio], n, shape, &mut noise);
        if let Some(second) = verdict(&all[0], &all[1]) {
            apart += 1;
            dearer += u32::from(second);
        }
    }
    (f64::from(apart) / f64::from(trials), f64::from(dearer) / f64::from(trials))
}

#[test]
fn equal_servers_are_told_apart_in_one_of_twenty_at_most() {
    for (name, shape) in SHAPES {
        for n in [6, 8, 10] {
            let (apart, _) = rates(n, 1.0, shape, signed_rank, 4000);
            // Three standard errors above the level of 4,000 trials.
            assert!(apart <= 0.05 + 0.0104, "{name}, {n} rounds: {apart}");
        }
    }
}

#[test]
fn a_tenth_more_is_found_in_ten_rounds() {
    for (name, shape) in SHAPES {
        let (_, dearer) = rates(10, 1.1, shape, signed_rank, 1000);
        let gone_astray = name.starts_with("heavy") || name.starts_with("one");
        let expected = if gone_astray { 0.4 } else { 0.9 };
        assert!(dearer >= expected, "{name}: {dearer}");
    }
}

#[test]
fn the_interval_holds_the_truth() {
    for (name, shape) in SHAPES {
        let mut noise = Noise(11);
        let held = (0..2000).filter(|_| {
            let all = rounds(&[1.0, 1.3], 8, shape, &mut noise);
            let ratio = SignedRank::of(8).ratio(&all[1], &all[0]).unwrap();
            (ratio.low..=ratio.high).contains(&1.3)
        });
        let held = held.count() as f64 / 2000.0;
        assert!(held >= 0.95 - 0.015, "{name}: {held}");
    }
}

/// All pairs of many servers: the part of the tables of equal servers with any difference, and of
/// tables in which half of them cost a third more the part of false differences and of found ones.
fn table(n: usize, shape: Shape, tables: u32) -> [f64; 3] {
    let (mut any, mut falsely, mut found, mut real) = (0, 0.0, 0, 0);
    let mut noise = Noise(13);
    let rule = SignedRank::of(n);
    for mixed in [false, true] {
        for _ in 0..tables {
            let dear = if mixed { 1.33 } else { 1.0 };
            let costs: Vec<f64> = (0..20).map(|s| if s < 10 { 1.0 } else { dear }).collect();
            let all = rounds(&costs, n, shape, &mut noise);
            let pairs: Vec<(usize, usize)> =
                (0..20).flat_map(|a| (a + 1..20).map(move |b| (a, b))).collect();
            let chance = |&(a, b): &(usize, usize)| rule.ratio(&all[a], &all[b]).unwrap().p;
            let apart = shown(&pairs.iter().map(chance).collect::<Vec<_>>());
            let differ = |&(a, b): &(usize, usize)| mixed && (a < 10) != (b < 10);
            let count = |real: bool| {
                let of = pairs.iter().zip(&apart).filter(|(pair, _)| differ(pair) == real);
                of.filter(|(_, apart)| **apart).count()
            };
            let (right, wrong) = (count(true), count(false));
            match mixed {
                false => any += u32::from(wrong > 0),
                true => {
                    falsely += wrong as f64 / (right + wrong).max(1) as f64;
                    found += right;
                    real += 100;
                }
            }
        }
    }
    let tables = f64::from(tables);
    [f64::from(any) / tables, falsely / tables, found as f64 / f64::from(real)]
}

#[test]
fn of_the_differences_in_a_table_of_many_few_are_false() {
    for (name, shape) in SHAPES {
        let [any, falsely, found] = table(8, shape, 100);
        // Of 100 tables: three standard errors above 5 %.
        assert!(any <= 0.12 && falsely <= 0.07, "{name}: {any}, {falsely}");
        assert!(found >= 0.6, "{name}: {found}");
    }
}

/// The percentile bootstrap of the mean log ratio, which the rule replaced.
fn bootstrap(a: &[f64], b: &[f64]) -> Option<bool> {
    let logs: Vec<f64> = a.iter().zip(b).map(|(a, b)| (b / a).ln()).collect();
    let mut state = 1;
    let mut means: Vec<f64> = (0..1000)
        .map(|_| {
            let pick = |_: &f64| logs[(splitmix(&mut state) % logs.len() as u64) as usize];
            logs.iter().map(pick).sum()
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (means[25] > 0.0 || means[974] < 0.0).then_some(means[500] > 0.0)
}

/// Student's interval of the mean log ratio.
fn student(a: &[f64], b: &[f64]) -> Option<bool> {
    let logs: Vec<f64> = a.iter().zip(b).map(|(a, b)| (b / a).ln()).collect();
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let quantile = match logs.len() {
        5 => 2.776,
        6 => 2.571,
        8 => 2.365,
        10 => 2.262,
        n => panic!("no quantile for {n}"),
    };
    (mean.abs() > quantile * (variance / n).sqrt()).then_some(mean > 0.0)
}

/// Ranges without a point in common, by which ranks went before.
fn ranges(a: &[f64], b: &[f64]) -> Option<bool> {
    let max = |v: &[f64]| v.iter().copied().fold(f64::MIN, f64::max);
    let min = |v: &[f64]| v.iter().copied().fold(f64::MAX, f64::min);
    (max(a) < min(b) || max(b) < min(a)).then_some(max(a) < min(b))
}

#[test]
#[ignore = "prints a table for the docs"]
fn print_the_rates_of_all_rules() {
    let rules: [(&str, Verdict); 4] = [
        ("signed rank", signed_rank),
        ("Student", student),
        ("bootstrap", bootstrap),
        ("ranges", ranges),
    ];
    println!("| noise | rounds | rule | equal called different | 10 % more found |");
    for (name, shape) in SHAPES {
        for n in [5, 6, 8, 10] {
            for (rule, verdict) in rules {
                let apart = rates(n, 1.0, shape, verdict, 4000).0;
                let found = rates(n, 1.1, shape, verdict, 4000).1;
                let [apart, found] = [apart, found].map(|part| 100.0 * part);
                println!("| {name} | {n} | {rule} | {apart:.1} % | {found:.0} % |");
            }
        }
    }
    println!("| noise | rounds | equal tables with a difference | false of those shown | found |");
    for (name, shape) in SHAPES {
        for n in [6, 8, 10] {
            let [any, falsely, found] = table(n, shape, 200).map(|part| 100.0 * part);
            println!("| {name} | {n} | {any:.1} % | {falsely:.1} % | {found:.0} % |");
        }
    }
}
