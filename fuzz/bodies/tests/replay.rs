//! The seeds of every target, and some thousand inputs made of them, as a plain test.
//!
//! The inputs follow from two seeds: one is always the same, the other is drawn and printed.
//!
//! ```text
//! cargo test -p bodies                                    a few seconds
//! FUZZ_SEED=7 FUZZ_INPUTS=1000000 cargo test --release -p bodies --test replay hub
//! ```

use std::env;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use bodies::TARGETS;
use fastrand::Rng;

/// Inputs that are made for a target from each of the two seeds.
const INPUTS: u64 = 1_500;
const FIXED_SEED: u64 = 1;
/// The most bytes of an input that is made.
const LONGEST: usize = 2_048;

fn main() -> std::process::ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    let inputs = number("FUZZ_INPUTS").unwrap_or(INPUTS);
    let drawn = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    if !arguments.list {
        eprintln!("replay: seed {drawn} (FUZZ_SEED={drawn} repeats it)");
    }
    let trials = TARGETS.map(|(name, body)| {
        libtest_mimic::Trial::test(name, move || {
            let seeds = seeds(name)?;
            for (file, bytes) in &seeds {
                try_input(body, bytes).map_err(|it| format!("{}: {it}", file.display()))?;
            }
            for seed in [FIXED_SEED, drawn] {
                let mut rng = Rng::with_seed(seed);
                for at in 0..inputs {
                    let bytes = made(&mut rng, &seeds);
                    try_input(body, &bytes).map_err(|it| format!("seed {seed}, {at}: {it}"))?;
                }
            }
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// The corpus of a target: each file is an input.
fn seeds(target: &str) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut seeds = Vec::new();
    for entry in fs::read_dir(&folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let bytes = fs::read(&path).map_err(fail)?;
        seeds.push((path, bytes));
    }
    if seeds.is_empty() {
        return Err(format!("{} has no seed", folder.display()));
    }
    // The order of a folder is not always the same, and what is made depends on it.
    seeds.sort();
    Ok(seeds)
}

/// Runs the target. If it panics, the input is kept, so that it can become a case.
fn try_input(body: fn(&[u8]), bytes: &[u8]) -> Result<(), String> {
    if catch_unwind(|| body(bytes)).is_ok() {
        return Ok(());
    }
    let path = env::temp_dir().join(format!("fuzz-input-{:016x}", fastrand::u64(..)));
    let kept = match fs::write(&path, bytes) {
        Ok(()) => format!("kept as {}", path.display()),
        Err(error) => format!("which cannot be kept: {error}"),
    };
    Err(format!("fails with {} bytes, {kept}: \"{}\"", bytes.len(), bytes.escape_ascii()))
}

/// A seed that is changed in some places, two that are joined, or any bytes.
fn made(rng: &mut Rng, seeds: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = if rng.u8(..4) == 0 {
        (0..rng.usize(..LONGEST)).map(|_| rng.u8(..)).collect()
    } else {
        seeds[rng.usize(..seeds.len())].1.clone()
    };
    for _ in 0..rng.usize(..8) {
        let (from, to) = (rng.usize(..=bytes.len()), rng.usize(..=bytes.len()));
        let part = from.min(to)..from.max(to).min(from.min(to) + 64);
        match rng.u8(..6) {
            0 => bytes[part].iter_mut().for_each(|byte| *byte = rng.u8(..)),
            1 => drop(bytes.drain(part)),
            2 => {
                let copy = bytes[part.clone()].to_vec();
                bytes.splice(part.start..part.start, copy);
            }
            3 => {
                let other = &seeds[rng.usize(..seeds.len())].1;
                let cut = rng.usize(..=other.len());
                bytes.truncate(from);
                bytes.extend_from_slice(&other[cut..]);
            }
            4 if from < bytes.len() => bytes[from] ^= 1 << rng.u8(..8),
            _ => bytes.insert(from, *rng.choice(b"\n\r @:#\0x").unwrap_or(&b'x')),
        }
        bytes.truncate(4 * LONGEST);
    }
    bytes
}
