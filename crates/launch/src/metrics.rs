//! `--metrics ADDR`: the counters over HTTP, in the text format of OpenMetrics.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Failure, Launch, is_shortage};

/// How long one request may take. Only one is answered at a time.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest head of a request, in bytes.
const MOST_HEAD: usize = 8 << 10;

/// How long to leave the socket alone when there are no descriptors left.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// # Errors
/// When the address may not be had.
pub(crate) fn listen(addr: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(addr);
    listener.map_err(|error| Failure::Failed(format!("cannot listen on --metrics {addr}: {error}")))
}

impl<E: Send + Sync + 'static> Launch<E> {
    /// Answers requests on a thread of its own, where that is asked for.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start_metrics(&'static self) -> Result<(), Failure> {
        let Some(listener) = &self.metrics else { return Ok(()) };
        self.tell_metrics(listener);
        let thread = thread::Builder::new().name("metrics".into()).stack_size(128 << 10);
        let answer = move || {
            // A socket that was handed over may be non-blocking.
            let _ = listener.set_nonblocking(false);
            loop {
                self.answer_one(listener);
            }
        };
        thread.spawn(answer).map_err(Failure::of("cannot start the thread of --metrics"))?;
        Ok(())
    }
}

impl<E> Launch<E> {
    pub(crate) fn tell_metrics(&self, listener: &TcpListener) {
        if let Ok(addr) = listener.local_addr() {
            self.log.info(&format!("metrics are on http://{addr}/metrics"));
        }
    }

    /// Waits for a request and answers it.
    pub(crate) fn answer_one(&self, listener: &TcpListener) {
        match listener.accept() {
            Ok((client, _)) => {
                let _ = self.answer(client); // What becomes of the client is its own matter.
            }
            Err(error) if is_shortage(&error) => thread::sleep(SHORTAGE_PAUSE),
            Err(_) => {}
        }
    }

    fn answer(&self, mut client: TcpStream) -> io::Result<()> {
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
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let (status, kind, body) = match (method, path) {
            (b"GET" | b"HEAD", b"/metrics") => ("200 OK", OPEN_METRICS, self.metrics_text()),
            (b"GET" | b"HEAD", _) => ("404 Not Found", "text/plain", "see /metrics\n".to_owned()),
            _ => ("405 Method Not Allowed", "text/plain", "GET or HEAD\n".to_owned()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        let body = if method == b"HEAD" { "" } else { &body };
        client.write_all(format!("{head}{body}").as_bytes())
    }
}
