//! What only prefork has: processes that can stand still one by one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends the server, however the test ends.
struct Server(Child);

impl Server {
    fn start(args: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serve-prefork"));
        command.args(["--listen", "127.0.0.1:0"]).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Server(command.spawn().expect("start the server"));
        let stdout = server.0.stdout.take().expect("its standard output");
        BufReader::new(stdout).read_line(&mut String::new()).expect("where it listens");
        server
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"))
    }

    /// Any child of it.
    fn child(&self) -> Pid {
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // `ID (NAME) STATE PARENT`; the name may hold anything.
            let Some((_, after)) = stat.rsplit_once(')') else { continue };
            let mut fields = after.split_whitespace();
            if fields.nth(1) == Some(&self.0.id().to_string()) {
                let id = entry.file_name().to_string_lossy().parse().expect("a process id");
                return Pid::from_raw(id);
            }
        }
        panic!("no child");
    }

    /// How it ends, or none when that takes half a minute.
    fn exit_code(mut self) -> Option<i32> {
        let pid = self.pid();
        let (ended, end) = mpsc::channel::<()>();
        let guard = thread::spawn(move || {
            if end.recv_timeout(Duration::from_secs(30)) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let status = self.0.wait().expect("its exit code");
        drop(ended);
        guard.join().expect("the guard");
        status.code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_that_stands_still_does_not_hold_up_the_stop() {
    let server = Server::start(&["--processes", "3", "--drain-timeout", "200ms"]);
    kill(server.child(), Signal::SIGSTOP).expect("it is there");
    kill(server.pid(), Signal::SIGTERM).expect("it is there");
    assert_eq!(server.exit_code(), Some(0));
}
