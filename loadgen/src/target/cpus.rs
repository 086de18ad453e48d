//! Which processors the server and the generator get: apart from each other where possible.

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Who runs where. Empty lists mean that the kernel decides.
#[derive(Clone, Debug, Default)]
pub struct Pinning {
    /// The server's processors.
    pub server: Vec<usize>,
    /// The generator's processors.
    pub generator: Vec<usize>,
    /// What the user should know about it.
    pub note: Option<String>,
    /// Why nothing is pinned, if the system does not allow it: then every run is SUSPECT.
    pub denied: Option<String>,
}

/// Processors that this process may use. Fails where it may not choose among them: it is asked to
/// stay on all of them, which changes nothing.
fn available() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("sched_getaffinity")?;
    sched_setaffinity(None, &set).context("sched_setaffinity")?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Divides the processors for `workers` of a server and `threads` of the generator; lists that
/// are not empty are the user's wish. Where the system does not let this process choose, there is
/// nothing to divide.
pub fn plan(workers: u32, threads: u32, server: &[usize], generator: &[usize]) -> Result<Pinning> {
    match available() {
        Ok(all) => divide(&all, (workers as usize, threads as usize), server, generator),
        Err(e) => {
            let why = format!(
                "server and generator are not pinned, and may share a processor: this system does \
                 not let a process choose its processors ({e:#})"
            );
            Ok(Pinning { note: Some(why.clone()), denied: Some(why), ..Pinning::default() })
        }
    }
}

fn divide(
    all: &[usize],
    (workers, threads): (usize, usize),
    server: &[usize],
    generator: &[usize],
) -> Result<Pinning> {
    for (flag, wish) in [("--server-cpus", server), ("--generator-cpus", generator)] {
        if let Some(cpu) = wish.iter().find(|cpu| !all.contains(cpu)) {
            bail!("{flag} {cpu}: this process may use processors {}", format_cpus(all));
        }
    }
    if all.len() == 1 {
        let note = "one processor only: nothing is pinned, and server and generator share it; \
                    compare CPU per message, not messages/s";
        return Ok(Pinning { note: Some(note.into()), ..Pinning::default() });
    }
    let rest = |taken: &[usize]| -> Vec<usize> {
        all.iter().copied().filter(|cpu| !taken.contains(cpu)).collect()
    };
    let server = match server {
        [] => {
            let free = rest(generator);
            let some =
                workers.min(free.len() - usize::from(generator.is_empty() && free.len() > 1));
            free[..some].to_vec()
        }
        wish => wish.to_vec(),
    };
    let generator = match generator {
        [] => {
            let free = rest(&server);
            free[free.len() - threads.min(free.len())..].to_vec()
        }
        wish => wish.to_vec(),
    };
    let shared = server.iter().any(|cpu| generator.contains(cpu));
    let note = if shared {
        Some("server and generator share a processor; messages/s say little".into())
    } else if workers > server.len() {
        Some(format!("{workers} workers share {} processors", server.len()))
    } else {
        None
    };
    Ok(Pinning { server, generator, note, denied: None })
}

/// The processors of a server of `workers` on a machine where no generator runs: the first ones, or
/// the user's wish. The others are left to whatever watches it.
pub fn plan_alone(workers: u32, server: &[usize]) -> Result<Pinning> {
    match available() {
        Ok(all) => alone(&all, workers as usize, server),
        Err(e) => {
            let why = format!(
                "the server is not pinned: this system does not let a process choose its \
                 processors ({e:#})"
            );
            Ok(Pinning { denied: Some(why), ..Pinning::default() })
        }
    }
}

fn alone(all: &[usize], workers: usize, server: &[usize]) -> Result<Pinning> {
    if let Some(cpu) = server.iter().find(|cpu| !all.contains(cpu)) {
        bail!("--server-cpus {cpu}: the agent beside the server may use {}", format_cpus(all));
    }
    if all.len() == 1 {
        return Ok(Pinning::default());
    }
    let server = match server {
        [] => all[..workers.min(all.len())].to_vec(),
        wish => wish.to_vec(),
    };
    let generator = all.iter().copied().filter(|cpu| !server.contains(cpu)).collect();
    Ok(Pinning { server, generator, ..Pinning::default() })
}

/// Moves the calling thread, and the threads it will start, to `cpus`.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    rustix::thread::sched_setaffinity(None, &set).with_context(|| {
        format!(
            "cannot run on processors {}, which this process could use when it was started",
            format_cpus(cpus)
        )
    })
}

/// `[0, 1]` as `0,1`.
pub fn format_cpus(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(all: &[usize], work: (usize, usize), s: &[usize], g: &[usize]) -> [Vec<usize>; 2] {
        let pinning = divide(all, work, s, g).unwrap();
        [pinning.server, pinning.generator]
    }

    #[test]
    fn servers_first_generator_last() {
        assert_eq!(cpus(&[0, 1], (1, 1), &[], &[]), [vec![0], vec![1]]);
        assert_eq!(cpus(&[0, 1], (4, 4), &[], &[]), [vec![0], vec![1]]);
        assert_eq!(cpus(&[0, 1, 2, 3], (2, 1), &[], &[]), [vec![0, 1], vec![3]]);
        assert_eq!(cpus(&[0, 1, 2, 3], (1, 1), &[3], &[]), [vec![3], vec![2]]);
        assert_eq!(cpus(&[0, 1, 2, 3], (4, 1), &[], &[0]), [vec![1, 2, 3], vec![0]]);
    }

    #[test]
    fn a_server_alone_may_have_all_processors() {
        let cpus = |all: &[usize], workers, wish: &[usize]| {
            let pinning = alone(all, workers, wish).unwrap();
            [pinning.server, pinning.generator]
        };
        assert_eq!(cpus(&[0, 1], 2, &[]), [vec![0, 1], vec![]]);
        assert_eq!(cpus(&[0, 1, 2], 1, &[]), [vec![0], vec![1, 2]]);
        assert_eq!(cpus(&[0, 1, 2], 1, &[2]), [vec![2], vec![0, 1]]);
        assert_eq!(cpus(&[4], 1, &[]), [vec![0_usize; 0], vec![]]);
        assert!(alone(&[0, 1], 1, &[7]).unwrap_err().to_string().contains("may use 0,1"));
    }

    #[test]
    fn one_processor_is_not_divided() {
        let pinning = divide(&[5], (1, 1), &[], &[]).unwrap();
        assert!(pinning.server.is_empty() && pinning.note.is_some());
        assert!(divide(&[0, 1], (1, 1), &[7], &[]).is_err());
    }
}
