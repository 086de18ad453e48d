//! `--oper-file`: the operators of the server, and the thread that looks whether their passwords
//! are right. A hash takes a processor for as long as it is meant to, and no loop may wait for it.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use protocol::Verdict;

use crate::{Failure, Log, files};

/// The most questions that wait for the thread.
const QUEUE: usize = 16;

/// The most memory that a hash may ask for, in KiB, and the most rounds: a file with a wrong digit
/// must not stop the server.
const MOST_MEMORY: u32 = 256 << 10;
const MOST_ROUNDS: u32 = 64;

/// Names and hashes, and who looks at them.
pub(crate) struct Operators {
    path: PathBuf,
    known: Arc<RwLock<Known>>,
    log: Log,
    /// To the thread, which is started when it is first needed: in a model of several processes,
    /// in the one that has the hub.
    jobs: OnceLock<Option<SyncSender<Job>>>,
}

/// The list is changed as a whole, so that no lock is held while a hash is made.
type Known = Arc<Vec<Operator>>;

#[derive(Debug)]
struct Operator {
    name: String,
    /// In the PHC format: the parameters, the salt and the hash.
    hash: PasswordHash,
}

/// What the thread is asked to do.
pub(crate) enum Job {
    Verify(Question),
    Run(Box<dyn FnOnce() + Send>),
}

/// Whether an operator has this password.
pub(crate) struct Question {
    pub(crate) name: Vec<u8>,
    pub(crate) password: Vec<u8>,
    pub(crate) answer: Arc<Answer>,
    /// Called when the password is wrong.
    pub(crate) refused: Box<dyn FnOnce() + Send>,
}

/// The answer, for the hub to look at.
#[derive(Debug, Default)]
pub(crate) struct Answer(AtomicU8);

const WRONG: u8 = 1;
const RIGHT: u8 = 2;

impl Verdict for Answer {
    fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            WRONG => Some(false),
            RIGHT => Some(true),
            _ => None,
        }
    }
}

impl Operators {
    /// # Errors
    /// When the file cannot be read, or has a line that is not a name and a hash.
    pub(crate) fn new(path: PathBuf, log: Log) -> Result<Operators, Failure> {
        let known = Arc::new(RwLock::new(Arc::new(read(&path, &log)?)));
        Ok(Operators { path, known, log, jobs: OnceLock::new() })
    }

    /// Reads the file anew. Where it cannot be read, all stays as it was.
    pub(crate) fn reload(&self) -> Result<(), Failure> {
        let known = Arc::new(read(&self.path, &self.log)?);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// Asks the thread to do something. False when too much waits, or no thread can be had.
    pub(crate) fn ask(&self, job: Job) -> bool {
        let jobs = self.jobs.get_or_init(|| {
            let (jobs, asked) = sync_channel(QUEUE);
            let known = Arc::clone(&self.known);
            let thread = thread::Builder::new().name("operators".into());
            thread.spawn(move || work(&known, &asked)).is_ok().then_some(jobs)
        });
        jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }
}

/// The life of the thread.
fn work(known: &RwLock<Known>, jobs: &Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Run(run) => run(),
            Job::Verify(question) => {
                let known = Arc::clone(&known.read().unwrap_or_else(PoisonError::into_inner));
                let right = is_right(&known, &question.name, &question.password);
                if !right {
                    (question.refused)();
                }
                question.answer.0.store(if right { RIGHT } else { WRONG }, Ordering::Release);
            }
        }
    }
}

/// Whether this is the password of the operator of that name. What is compared is compared in
/// constant time, and a name that is not known costs as much as one that is.
fn is_right(known: &[Operator], name: &[u8], password: &[u8]) -> bool {
    let found = known.iter().find(|operator| operator.name.as_bytes() == name);
    let Some(operator) = found.or(known.first()) else { return false };
    let matches = Argon2::default().verify_password(password, &operator.hash).is_ok();
    matches && found.is_some()
}

/// A line for the file: the hash of the first line of standard input.
pub(crate) fn hash_of_input() -> Result<String, Failure> {
    let mut password = String::new();
    io::stdin().lock().read_line(&mut password).map_err(Failure::of("standard input"))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.contains('\0') {
        let text = "--hash-password: expected one line, the password, on standard input";
        return Err(Failure::Usage(text.to_owned()));
    }
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(Failure::of("--hash-password"))?.to_string())
}

fn read(path: &Path, log: &Log) -> Result<Vec<Operator>, Failure> {
    let wrong = |error: &str| {
        Failure::Usage(format!("cannot read --oper-file {}: {error}", path.display()))
    };
    let text = files::read_text(path).map_err(|error| wrong(&error.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| wrong("it is not UTF-8"))?;
    let mut known: Vec<Operator> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let operator = operator(line).map_err(|error| wrong(&format!("line {number}: {error}")))?;
        if known.iter().any(|other| other.name == operator.name) {
            return Err(wrong(&format!("line {number}: a second {}", operator.name)));
        }
        known.push(operator);
    }
    files::warn_if_all_can_read(path, log);
    Ok(known)
}

/// One line of the file. An error does not show the line.
fn operator(line: &str) -> Result<Operator, &'static str> {
    let expected = "expected a name and a hash, as --hash-password prints it";
    let (name, hash) = line.split_once(char::is_whitespace).ok_or(expected)?;
    let hash = PasswordHash::new(hash.trim()).map_err(|_| expected)?;
    let params = Params::try_from(&hash).map_err(|_| expected)?;
    let algorithm = argon2::Algorithm::try_from(hash.algorithm.as_str());
    if algorithm.is_err() || hash.salt.is_none() || hash.hash.is_none() {
        return Err(expected);
    }
    if params.m_cost() > MOST_MEMORY || params.t_cost() > MOST_ROUNDS {
        return Err("the hash would take more than 256 MiB or 64 rounds");
    }
    Ok(Operator { name: name.to_owned(), hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `sesame`, at a cost that a test can pay.
    fn cheap_hash() -> String {
        let argon2 = Argon2::from(Params::new(8, 1, 1, None).expect("good parameters"));
        argon2.hash_password(b"sesame").expect("a hash").to_string()
    }

    #[test]
    fn only_the_right_password_of_the_right_name_is_right() {
        let known = [operator(&format!("ann {}", cheap_hash())).expect("a good line")];
        assert!(is_right(&known, b"ann", b"sesame"));
        for (name, password) in [("ann", "Sesame"), ("ann", ""), ("Ann", "sesame"), ("", "sesame")]
        {
            assert!(!is_right(&known, name.as_bytes(), password.as_bytes()), "{name} {password}");
        }
        assert!(!is_right(&[], b"ann", b"sesame"));
    }

    #[test]
    fn what_is_no_hash_or_too_dear_is_refused() {
        let dear = cheap_hash().replace("m=8", "m=4000000000");
        for hash in ["sesame", "", "$argon2id$v=19$m=8,t=1,p=1", "$md5$abc$def", &dear] {
            assert!(operator(&format!("ann {hash}")).is_err(), "{hash}");
        }
        assert!(operator("ann").is_err());
    }
}
