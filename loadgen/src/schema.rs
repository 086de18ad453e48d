//! What `--json` prints, as types, and the JSON Schema that is made from them.
//!
//! `docs/schema/loadgen.schema.json` is what `loadgen schema` prints; a test holds the two
//! together and checks real output against it.

use std::process::ExitCode;

use anyhow::Result;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;

use crate::command::{Calibration, Found};
use crate::compare::Comparison;
use crate::host::Host;
use crate::report::against::Against;
use crate::run::Report;
use crate::table;
use crate::verify::Finding;
use crate::workload::Mode;

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
    /// Of `list`.
    List {
        /// Every server of the models file.
        models: Vec<Listed>,
        /// Every workload.
        workloads: Vec<crate::workload::Listed>,
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
}

impl Document {
    /// A document of this version.
    pub fn new(body: Body) -> Self {
        Self { schema: SCHEMA, body }
    }

    /// Prints it on standard output.
    pub fn print(&self) -> Result<()> {
        table::print(&(serde_json::to_string_pretty(self)? + "\n"))
    }
}

/// The schema of everything that `--json` prints.
pub fn schema() -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<Document>();
    schema.insert("title".into(), "What loadgen --json prints".into());
    format!("{:#}\n", schema.to_value())
}

/// `loadgen schema`.
pub fn command() -> Result<ExitCode> {
    table::print(&schema())?;
    Ok(ExitCode::SUCCESS)
}
