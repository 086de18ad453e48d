//! `--metrics ADDR`: how far a run is, over HTTP, on a thread of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cli::Metrics;
use crate::base::output::say;
use crate::measure::Gauges;
use crate::show;
use crate::workload::Workload;

/// How long one request may take. Only one is answered at a time.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest head of a request, in bytes.
const MOST_HEAD: usize = 8 << 10;
/// How long to leave the socket alone when a connection cannot be accepted.
const PAUSE: Duration = Duration::from_millis(100);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `ADDRESS:PORT`, or `PORT` of this machine alone.
pub(super) fn address(text: &str) -> std::result::Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| "write ADDRESS:PORT, or PORT of this machine alone".into())
}

/// Answers requests until the program ends, where that is asked for.
pub(super) fn start(
    asked: &Metrics,
    server: &str,
    workload: &Workload,
    gauges: Arc<Gauges>,
) -> Result<()> {
    let Some(addr) = asked.metrics else { return Ok(()) };
    ensure!(
        addr.ip().is_loopback() || asked.public,
        "--metrics {addr} can be reached from other machines: say --public if that is meant"
    );
    let listener =
        TcpListener::bind(addr).with_context(|| format!("cannot listen on --metrics {addr}"))?;
    say(&format!("metrics are on http://{}/metrics", listener.local_addr()?));
    let (server, workload) = (server.to_owned(), workload.clone());
    let serve = move || loop {
        match listener.accept() {
            // What becomes of the client is its own matter.
            Ok((client, _)) => {
                let _ = answer(client, || show::metrics(&server, &workload, &gauges.now()));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    std::thread::Builder::new().name("metrics".into()).spawn(serve)?;
    Ok(())
}

fn answer(mut client: TcpStream, text: impl Fn() -> String) -> std::io::Result<()> {
    let end = Instant::now() + PATIENCE;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() > MOST_HEAD {
            return Ok(());
        }
        client.set_read_timeout(Some(left))?;
        let mut more = [0; 1024];
        let len = client.read(&mut more)?;
        if len == 0 {
            return Ok(());
        }
        head.extend_from_slice(&more[..len]);
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_ascii_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", OPEN_METRICS, text()),
        ("GET" | "HEAD", _) => ("404 Not Found", "text/plain", "see /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", "GET or HEAD\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let body = if method == "HEAD" { "" } else { &body };
    client.write_all(format!("{head}{body}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        assert_eq!(address("9100").unwrap(), SocketAddr::from(([127, 0, 0, 1], 9100)));
        assert_eq!(address("[::1]:9100").unwrap().port(), 9100);
        assert!(address("here").is_err() && address("70000").is_err());
    }
}
