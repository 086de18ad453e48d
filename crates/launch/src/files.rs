//! The files that flags name.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Failure, Log};

/// The largest message of the day, and the largest file of flags, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// The longest password, in bytes: PASS must fit into a line (`Limits::CHAT_LINE`).
const MAX_PASSWORD: u64 = 500;

/// What the password is called among the credentials of a service.
const CREDENTIAL: &str = "password";

/// The whole of a file. One that never ends, such as `/dev/zero`, must not fill the memory.
pub(crate) fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    read(path, MAX_TEXT)
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut text)?;
    if text.len() as u64 > most {
        let size =
            if most < 1024 { format!("{most} bytes") } else { format!("{} KiB", most >> 10) };
        let reason = format!("it has more than {size}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

/// The message of the day, line by line.
pub(crate) fn motd(path: &Path) -> Result<Vec<String>, Failure> {
    let text = read_text(path).map_err(|error| unreadable("--motd", path, &error))?;
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

/// Where the password is, where no flag says: in a file that a service manager gives to the server
/// alone, if it does.
pub(crate) fn credential() -> Option<PathBuf> {
    let path = Path::new(&env::var_os("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL);
    path.exists().then_some(path)
}

/// The password: the one line of this file.
pub(crate) fn password(path: &Path, log: &Log) -> Result<String, Failure> {
    let wrong = |reason: &str| {
        let error = io::Error::new(io::ErrorKind::InvalidData, reason);
        unreadable("--password-file", path, &error)
    };
    let text = read(path, MAX_PASSWORD);
    let text = text.map_err(|error| unreadable("--password-file", path, &error))?;
    let text = String::from_utf8(text).map_err(|_| wrong("it is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\0', '\r', '\n']) {
        return Err(wrong("expected one line, the password"));
    }
    warn_if_all_can_read(path, log);
    Ok(line.to_owned())
}

pub(crate) fn warn_if_all_can_read(path: &Path, log: &Log) {
    if std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0) {
        log.warn(&format!("all users of this machine can read {}: chmod o-r", path.display()));
    }
}

fn unreadable(flag: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Usage(format!("cannot read {flag} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() {
        let error = read_text(Path::new("/dev/zero")).expect_err("it never ends");
        assert!(error.to_string().contains("1024 KiB"), "{error}");
        let error = read(Path::new("/dev/zero"), MAX_PASSWORD).expect_err("it never ends");
        assert!(error.to_string().contains("500 bytes"), "{error}");
    }
}
