//! `loadgen`: no number without proof that the server answered rightly, and no number that is
//! really the generator's own.
//!
//! It is a library so that its own tests can reach it; nothing else is meant to.
//!
//! # The rooms
//!
//! Each uses those before it and none after; a test of the project holds that. The header of a
//! room says what lives there and what it must not know.
//!
//! | room | question | read first |
//! |---|---|---|
//! | [`base`] | what could stand in any program? | `text.rs` |
//! | [`workload`] | what is asked? | `mod.rs` |
//! | [`drive`] | how is it asked, and is every byte right? | `echo.rs`, then `check.rs` |
//! | [`target`] | of which server? | `mod.rs`, then `server.rs` |
//! | [`measure`] | what did a run bring, and can it be believed? | `run.rs`, then `verdict.rs` |
//! | [`results`] | what was found, and what follows from it? | `section.rs`, then `stats.rs` |
//! | [`record`] | where is it kept? | `mod.rs` |
//! | [`compare`] | how do many runs make one result? | `course.rs` |
//! | [`cluster`] | how do many machines make one run? | `conductor.rs` |
//! | [`show`] | how does it look? | `comparison.rs` |
//! | [`command`] | what was the command line? | `cli.rs` |
//!
//! # Words
//!
//! One word for one thing, in the code, in the output and in the documents.
//!
//! **What is asked**
//! - *workload*: what is asked of a server, with every number settled. Its file is a *sheet*, and
//!   the flags that change it are *changes*.
//! - *point*: a workload with the numbers that a grid changes: connections, size, depth, rate.
//! - *line*: what is sent in one piece and comes back. A *message* is what counts: in echo a line,
//!   in chat one delivery. In churn a *visit* is one connection from its beginning to its end.
//! - *closed loop*, *open loop*: an answer makes room for the next message, or a schedule says when
//!   it leaves.
//! - *disturbers* behave badly on purpose; the other connections are then *bystanders*.
//!
//! **Who is asked**
//! - *model*: an entry of the models file. A *target* is any server that can be driven, and how to
//!   get it. A *server* is one that runs. An *entrant* is a server as a record describes it.
//! - *gate*: what a server must get right before it is worth a number. Its *contract* is what more
//!   the protocol asks; a *lack* is a part of the contract that a server does not keep.
//! - *null reference*: the cheapest server there can be, for comparison. A *bare* model is the I/O
//!   model alone.
//!
//! **What is measured**
//! - *run*: one server under one workload, from its start to its end. A *report* is all that is
//!   known of a run.
//! - *phase*: what the generator's threads do from a moment with nothing in flight to the next such
//!   moment. A *window* is the time of a phase in which messages are sent.
//! - *lane*: one server under load with its connections, among others that rest meanwhile.
//! - *turn*: the few milliseconds in which one lane is driven and the others rest.
//! - *round*: every server once at one point, in turns.
//! - *lap*: one workload after the other against a server that goes on running, in a *soak*.
//! - *fault*: something that the server did wrong. *Interference* is what the machine did to a run.
//! - *verdict*: whether a run can be believed: VALID, SUSPECT or INVALID, with its *reasons*.
//! - *doubt*: a rule that finds such a reason. A row is *doubted* as often as it had a round that
//!   was not VALID.
//!
//! - *agent*: a machine's loadgen that drives its *part* of a run when a *conductor* tells it to.
//!
//! **What is found**
//! - *section*: what a comparison found at one point. It has a *row* for each server and a *pair*
//!   for each two.
//! - *shown*: a difference that is not chance, as far as the statistics can tell. A *rank* follows
//!   from what is shown.
//! - *flip*: two servers whose order is shown to be one way at a point and the other way at
//!   another.
//! - *control*: every server entered twice, to see that no difference is found where there is none.
//! - *outcome*: what became of a server between two records: better, worse, the same, or gone.
//! - *claim*: what is said of a model, in a file, with the *experiments* that try it. An
//!   experiment has points too, and its result a *ruling*: holds, fails, depends, not shown or
//!   cannot run.
//! - *sample*: what a calibration takes of one run: rate, cost, and how busy the generator was.
//! - *probe*: one run of a search for the highest rate.
//! - *record*: the folder that keeps runs and result. Its *page* is `report.html`.

pub mod base;
pub mod cluster;
pub mod command;
pub mod compare;
pub mod drive;
pub mod measure;
pub mod record;
pub mod results;
pub mod show;
pub mod target;
pub mod workload;
