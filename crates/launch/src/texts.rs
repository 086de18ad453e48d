//! What the chat reads anew on SIGHUP or REHASH: the message of the day, the password, and who is
//! an operator of the server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use protocol::{Changing, ChatTexts, Verdict};

use crate::counters::Tally;
use crate::operators::{Answer, Job, Operators, Question};
use crate::{Failure, Log, files};

/// Where they come from, and what they are now. The thread of the operators has them as well.
pub(crate) struct Texts(Arc<Files>);

struct Files {
    motd: Option<PathBuf>,
    password: Password,
    operators: Option<Operators>,
    log: Log,
    tally: Arc<Tally>,
    now: RwLock<Now>,
}

/// Where the password comes from.
pub(crate) enum Password {
    None,
    Word(String),
    File(PathBuf),
}

struct Now {
    /// How many reloads it includes, of those that are counted.
    reloads: u64,
    texts: Arc<ChatTexts>,
}

impl Texts {
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn new(
        motd: Option<PathBuf>,
        password: Password,
        operators: Option<Operators>,
        log: Log,
        tally: Arc<Tally>,
    ) -> Result<Texts, Failure> {
        let texts = Arc::new(read(motd.as_deref(), &password, &log)?);
        let now = RwLock::new(Now { reloads: 0, texts });
        Ok(Texts(Arc::new(Files { motd, password, operators, log, tally, now })))
    }

    /// Whether there is anything that may have changed.
    pub(crate) fn are_in_files(&self) -> bool {
        let Files { motd, password, operators, .. } = &*self.0;
        motd.is_some() || matches!(password, Password::File(_)) || operators.is_some()
    }

    /// Reads the files anew, here and, where the hub is in another process, there. What cannot be
    /// read stays as it was.
    pub(crate) fn reload(&self) -> Result<(), Failure> {
        self.0.reload()
    }
}

impl Files {
    fn reload(&self) -> Result<(), Failure> {
        let texts = Arc::new(self.read()?);
        let reloads = self.tally.sum(|counters| &counters.reloads) + 1;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Now { reloads, texts };
        self.tally.all()[0].reloads.add(1);
        Ok(())
    }

    fn read(&self) -> Result<ChatTexts, Failure> {
        let texts = read(self.motd.as_deref(), &self.password, &self.log)?;
        self.operators.as_ref().map(Operators::reload).transpose()?;
        Ok(texts)
    }

    fn texts(&self) -> Arc<ChatTexts> {
        let reloads = self.tally.sum(|counters| &counters.reloads);
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        if now.reloads >= reloads {
            return Arc::clone(&now.texts);
        }
        drop(now);
        // Another process has read them anew: this one is the hub's, and waits for no other thread.
        let read = self.read();
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        now.reloads = reloads;
        if let Ok(texts) = read {
            now.texts = Arc::new(texts);
        }
        Arc::clone(&now.texts)
    }
}

impl Changing for Texts {
    fn texts(&self) -> Arc<ChatTexts> {
        self.0.texts()
    }

    fn refused(&self, host: &[u8]) {
        let host = String::from_utf8_lossy(host);
        self.0.tally.all()[0].wrong_passwords.add(1);
        self.0.log.warn(&format!("a wrong password, or none, from {host}"));
    }

    fn has_operators(&self) -> bool {
        self.0.operators.is_some()
    }

    fn verify(&self, name: &[u8], password: &[u8], host: &[u8]) -> Option<Arc<dyn Verdict>> {
        let operators = self.0.operators.as_ref()?;
        // Where another process has read the files anew, so does this one now.
        self.0.texts();
        let answer = Arc::new(Answer::default());
        let (files, host) = (Arc::clone(&self.0), String::from_utf8_lossy(host).into_owned());
        let refused = move || {
            files.tally.all()[0].wrong_passwords.add(1);
            files.log.warn(&format!("a wrong password for OPER from {host}"));
        };
        let question = Question {
            name: name.to_vec(),
            password: password.to_vec(),
            answer: Arc::clone(&answer),
            refused: Box::new(refused),
        };
        operators.ask(Job::Verify(question)).then_some(answer as Arc<dyn Verdict>)
    }

    fn reload(&self) {
        let Some(operators) = &self.0.operators else { return };
        let files = Arc::clone(&self.0);
        let log = files.log;
        let asked = operators.ask(Job::Run(Box::new(move || tell(&log, files.reload()))));
        if !asked {
            log.warn("REHASH: too much waits: all stays as it was");
        }
    }
}

/// Says what a reload has come to.
pub(crate) fn tell(log: &Log, reloaded: Result<(), Failure>) {
    match reloaded {
        Ok(()) => log.info("the message of the day and the passwords are read anew"),
        Err(failure) => log.warn(&format!("{}: stays with what it has", failure.text())),
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password is never shown.
        f.debug_struct("Texts").field("motd", &self.0.motd).finish_non_exhaustive()
    }
}

fn read(motd: Option<&Path>, password: &Password, log: &Log) -> Result<ChatTexts, Failure> {
    Ok(ChatTexts {
        motd: motd.map(files::motd).transpose()?,
        password: match password {
            Password::None => None,
            Password::Word(word) => Some(word.clone()),
            Password::File(path) => Some(files::password(path, log)?),
        },
    })
}
