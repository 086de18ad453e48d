//! What `--json` prints, as types, and the JSON Schema that is made from them.
//!
//! `docs/schema/loadgen.schema.json` is what `loadgen schema` prints; a test holds the two
//! together and checks real output against it.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;

use super::{Against, Calibration, Comparison, Found, Host, Soaked, Tried};
use crate::measure::Report;
use crate::target::gate::Finding;
use crate::workload::{self, Mode};

/// Version of the JSON that `--json` prints and records hold. It grows when a field goes or
/// changes its meaning; new fields may come without it.
pub const SCHEMA: u32 = 2;

/// What `--json` prints, and what a record keeps as `result.json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Document {
    /// Version of this form.
    pub schema: u32,
    /// What was asked for.
    #[serde(flatten)]
    pub body: Body,
}

/// One kind of document for each command.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Body {
    /// Of `run`.
    Run {
        /// Where it was measured.
        host: Box<Host>,
        /// The one run.
        run: Box<Report>,
    },
    /// Of `compare`.
    Comparison {
        /// Where it was measured.
        host: Box<Host>,
        /// All of it.
        comparison: Box<Comparison>,
    },
    /// Of `calibrate`.
    Calibration {
        /// Where it was measured.
        host: Box<Host>,
        /// All of it.
        calibration: Box<Calibration>,
    },
    /// Of `claims`.
    Claims {
        /// Where it was measured.
        host: Box<Host>,
        /// Whether Ctrl-C ended it: then these are the claims that were tried to their end.
        interrupted: bool,
        /// One entry for each claim.
        claims: Vec<Tried>,
    },
    /// Of `soak`.
    Soak {
        /// Where it was measured.
        host: Box<Host>,
        /// Whether Ctrl-C ended it: then the last server was driven for a part of its time.
        interrupted: bool,
        /// One entry for each server and mode.
        soaked: Vec<Soaked>,
    },
    /// Of `find-max`.
    FindMax {
        /// Where it was measured.
        host: Box<Host>,
        /// What response times had to keep to.
        objective: String,
        /// One entry for each server.
        found: Vec<Found>,
    },
    /// Of `report --against`.
    Against {
        /// All of it.
        against: Box<Against>,
    },
    /// Of `verify`.
    Verification {
        /// The server's name.
        server: String,
        /// One finding for each case.
        findings: Vec<Finding>,
    },
    /// Of any command that has failed, instead of its result.
    Failure {
        /// What was wrong, in words.
        error: String,
    },
    /// Of `doctor`.
    Doctor {
        /// The machine.
        host: Box<Host>,
        /// What was looked at.
        doctor: Vec<super::DoctorFinding>,
    },
    /// Of `list`.
    List {
        /// Every server of the models file, or, with `--others`, of other projects.
        models: Vec<Listed>,
        /// Every workload.
        workloads: Vec<workload::Listed>,
    },
}

/// One model as `list` shows it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The model in one sentence.
    pub summary: String,
    /// What it speaks.
    pub modes: Vec<Mode>,
    /// Conformance cases that it cannot pass, each with the reason.
    pub unsupported: std::collections::BTreeMap<String, String>,
    /// Why it cannot run here, if it cannot.
    pub missing: Option<String>,
    /// The command that gets it, if it does not come with this project.
    pub setup: Option<String>,
    /// The name of the same model bare, if it has one.
    pub bare: Option<String>,
}

impl Document {
    /// A document of this version.
    pub fn new(body: Body) -> Self {
        Self { schema: SCHEMA, body }
    }
}

/// The schema of everything that `--json` prints.
pub fn schema() -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<Document>();
    schema.insert("title".into(), "What loadgen --json prints".into());
    format!("{:#}\n", schema.to_value())
}
