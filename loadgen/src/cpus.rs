//! Which processors the server and the generator get: apart from each other where possible.

use anyhow::{Result, bail};

use crate::server::format_cpus;

/// Who runs where. Empty lists mean that the kernel decides.
#[derive(Clone, Debug, Default)]
pub struct Pinning {
    /// The server's processors.
    pub server: Vec<usize>,
    /// The generator's processors.
    pub generator: Vec<usize>,
    /// What the user should know about it.
    pub note: Option<String>,
}

/// Processors that this process may use.
fn available() -> Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Divides the processors for `workers` of a server and `threads` of the generator; lists that
/// are not empty are the user's wish.
pub fn plan(workers: u32, threads: u32, server: &[usize], generator: &[usize]) -> Result<Pinning> {
    divide(&available()?, (workers as usize, threads as usize), server, generator)
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
    Ok(Pinning { server, generator, note })
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
    fn one_processor_is_not_divided() {
        let pinning = divide(&[5], (1, 1), &[], &[]).unwrap();
        assert!(pinning.server.is_empty() && pinning.note.is_some());
        assert!(divide(&[0, 1], (1, 1), &[7], &[]).is_err());
    }
}
