//! One record against an older one: whether the two can be compared at all.

use anyhow::{Result, bail, ensure};

use crate::measure::Settings;
use crate::record::Stored;
use crate::results::{Against, Comparison, Host};

/// What changed from `old` to `new`. Fails where the two cannot be compared.
pub(crate) fn against(new: &Stored, old: &Stored) -> Result<Against> {
    comparable(new, old)?;
    let folder = |record: &Stored| record.dir.display().to_string();
    let mut changed = Against::between(comparison(new)?, comparison(old)?)?;
    changed.notes.splice(..0, other_programs(&new.host, &old.host));
    Ok(Against { old: folder(old), new: folder(new), ..changed })
}

/// Another machine, or another way of measuring on it, would be taken for a change.
fn comparable(new: &Stored, old: &Stored) -> Result<()> {
    let differences = new.host.differences(&old.host);
    if !differences.is_empty() {
        bail!(
            "{} and {} were made on different machines, whose numbers say nothing about each \
             other ({}); make the older one again here",
            new.dir.display(),
            old.dir.display(),
            differences.join("; ")
        );
    }
    let how = |record: &Stored| {
        let first = record.runs.first();
        first.map(|(_, run)| {
            let Settings { threads, workers, server_cpus, generator_cpus, .. } = &run.settings;
            format!(
                "--workers {workers} --threads {threads} on processors {server_cpus:?} and \
                 {generator_cpus:?}"
            )
        })
    };
    let (how_new, how_old) = (how(new).unwrap_or_default(), how(old).unwrap_or_default());
    ensure!(
        how_new == how_old,
        "the two records were not measured in the same way: {how_new} against {how_old}"
    );
    Ok(())
}

fn comparison(record: &Stored) -> Result<&Comparison> {
    match &record.comparison {
        Some(comparison) => Ok(comparison),
        None => bail!(
            "{} is not the record of a comparison: one run shows no noise, and so no change \
             beyond it (use loadgen compare --models NAME)",
            record.dir.display()
        ),
    }
}

/// What the null reference does not cancel, because it was built with it: loadgen itself and the
/// compiler. No reason to refuse, since a change of the servers is a new revision too.
fn other_programs(new: &Host, old: &Host) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let pairs = [
        ("version of loadgen", old.loadgen.clone(), new.loadgen.clone()),
        ("revision", text(&old.revision), text(&new.revision)),
        ("compiler", text(&old.compiler), text(&new.compiler)),
    ];
    let other = pairs.into_iter().filter(|(_, old, new)| old != new);
    let words: Vec<_> =
        other.map(|(what, old, new)| format!("{what} {old} before, {new} now")).collect();
    match &words[..] {
        [] => Vec::new(),
        words => vec![format!(
            "the records were made by different programs, so that what changed need not be the \
             servers alone: {}",
            words.join("; ")
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_programs_are_said() {
        let host = Host::look();
        assert!(other_programs(&host, &host).is_empty());
        let older = Host { loadgen: "0.0.1".into(), ..host.clone() };
        let notes = other_programs(&host, &older);
        assert!(notes.len() == 1 && notes[0].contains("loadgen 0.0.1 before"), "{notes:?}");
    }
}
