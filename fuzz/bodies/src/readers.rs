//! The files that the generator reads: whatever they hold, it says what is wrong with them, and it
//! can use what it accepts.

use std::time::Duration;

use loadgen::record::{Record, Stored};
use loadgen::target::Models;
use loadgen::workload::{Changes, Workload};

const SECOND: Duration = Duration::from_secs(1);

/// The bytes are one line of the file of runs.
pub fn record(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok((round, report)) = Stored::run(text) else { return };
    // What is kept of a run that was read is that run.
    let kept = Record::line(round, &report).expect("JSON");
    let (round_again, again) = Stored::run(&kept).expect("a line that was written is read");
    assert_eq!(round, round_again);
    assert_eq!(kept, Record::line(round, &again).expect("JSON"));
}

/// The bytes are a models file.
pub fn models(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(models) = Models::read("models.toml", text) else { return };
    for (name, entry) in models.entries() {
        let _ = models.missing(entry);
        if let Ok(target) = models.find(name) {
            let _ = target.entrant();
        }
        let _ = models.bare(name);
    }
}

/// The bytes are a workload file.
pub fn workload(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let read = Workload::read("w.toml", text, &Changes::default(), SECOND, SECOND);
    let Ok(workload) = read else { return };
    assert!(!workload.point().is_empty() || workload.connections > 0);
    assert!(workload.longest() > 0, "a line of no bytes");
    let _ = (workload.places(), workload.lasts(), workload.admitted(), workload.in_flight());
    let _ = (workload.loop_kind(), workload.size_kind(), workload.slows_the_handler());
}
