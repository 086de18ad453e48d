//! What only select has: no use for a descriptor of 1024 or more.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Ends the server, however the test ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(addr: &str) -> BufReader<TcpStream> {
    let socket = TcpStream::connect(addr).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    BufReader::new(socket)
}

/// Says a line and gives the first that comes back. Saying it fails if the server has hung up.
fn ask(client: &mut BufReader<TcpStream>) -> String {
    let _ = client.get_mut().write_all(b"hello\n");
    let mut reply = String::new();
    client.read_line(&mut reply).expect("a reply");
    reply
}

#[test]
fn it_tells_its_limit_only_when_asked_for_more() {
    for (asked, told) in [("1000", false), ("1001", true)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serve-select"));
        command.args(["--listen", "127.0.0.1:0", "--max-connections", asked]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut server = Server(command.spawn().expect("start the server"));
        let stdout = server.0.stdout.take().expect("its standard output");
        BufReader::new(stdout).read_line(&mut String::new()).expect("where it listens");
        server.0.kill().expect("it is there");
        let mut log = String::new();
        let mut stderr = server.0.stderr.take().expect("its standard error");
        stderr.read_to_string(&mut log).expect("its log");
        assert_eq!(log.contains("below 1024"), told, "asked for {asked}: {log:?}");
    }
}

#[test]
fn those_beyond_the_sets_are_told_and_those_inside_notice_nothing() {
    // The clients' descriptors are this process's own.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a higher limit");
    let mut command = Command::new(env!("CARGO_BIN_EXE_serve-select"));
    command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Server(command.spawn().expect("start the server"));
    let mut said = String::new();
    let stdout = server.0.stdout.take().expect("its standard output");
    BufReader::new(stdout).read_line(&mut said).expect("where it listens");
    let addr = said.trim().strip_prefix("listening on ").expect("where it listens");

    let mut clients: Vec<_> = (0..1100).map(|_| connect(addr)).collect();
    let mut refused = Vec::new();
    clients.retain_mut(|client| {
        let reply = ask(client);
        let inside = reply == "hello\n";
        refused.extend((!inside).then_some(reply));
        inside
    });
    assert!(refused.iter().all(|reply| reply == "ERR the server is full\r\n"), "{refused:?}");
    assert!((1000..1024).contains(&clients.len()), "{} inside", clients.len());
    drop(clients.swap_remove(500));
    clients.push(connect(addr));
    assert!(clients.iter_mut().all(|client| ask(client) == "hello\n"));
}
