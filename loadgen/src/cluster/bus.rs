//! The connection to NATS, for callers that wait. What is asynchronous ends here.
//!
//! The client connects again by itself when it was cut off. What is said meanwhile is kept and sent
//! then, but what was on its way may be lost: who needs an answer asks again.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use async_nats::{Client, Event};
use futures_lite::StreamExt;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::Access;

/// How long the first connection may take, and a flush.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to connect again: an agent must be back before it counts as lost.
const AGAIN: Duration = Duration::from_millis(250);

/// A connection to NATS.
#[derive(Debug)]
pub struct Bus {
    client: Client,
    link: Arc<Mutex<Link>>,
    /// Its one thread; dropped last.
    runtime: Runtime,
}

/// Whether the connection stands.
#[derive(Debug, Default)]
struct Link {
    down: Option<Instant>,
    /// When it came back the last time.
    back: Option<Instant>,
    /// How long it was down in all, until it came back.
    outage: Duration,
}

/// What repeats itself until it is dropped.
#[derive(Debug)]
pub(super) struct Repeated(JoinHandle<()>);

impl Drop for Repeated {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bus {
    /// Connects; `name` is what the NATS server calls this client.
    pub fn connect(access: &Access, name: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nats")
            .enable_all()
            .build()?;
        let link: Arc<Mutex<Link>> = Arc::default();
        let heard = link.clone();
        let connecting = async {
            let options = access.options().await?;
            let options = options
                .name(name)
                .connection_timeout(PATIENCE)
                .max_reconnects(None)
                .reconnect_delay_callback(|_| AGAIN)
                .event_callback(move |event| {
                    note(&heard, &event);
                    std::future::ready(())
                });
            // Its text has that of its causes already.
            let connected = options.connect(access.address()?).await;
            connected.map_err(|e| {
                anyhow!("cannot connect to {}; is nats-server running there? {e}", access.shown())
            })
        };
        let client = runtime.block_on(connecting)?;
        Ok(Self { client, link, runtime })
    }

    /// Says something to all who hear the subject.
    pub(super) fn say(&self, subject: String, bytes: Vec<u8>) -> Result<()> {
        let saying = self.client.publish(subject, bytes.into());
        let said = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, saying).await });
        said.map_err(|_| anyhow!("the connection to NATS takes no more"))?.context("NATS")
    }

    /// Waits until what was said is on its way.
    pub(super) fn flush(&self) -> Result<()> {
        let flushing = self.client.flush();
        let done = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, flushing).await });
        done.map_err(|_| anyhow!("the connection to NATS stands still"))?.context("NATS")
    }

    /// What is said on these subjects from now on.
    pub(super) fn hear(&self, subjects: &[String]) -> Result<Receiver<Vec<u8>>> {
        let (sender, receiver) = channel();
        for subject in subjects {
            let subscribing = self.client.subscribe(subject.clone());
            let mut heard = self.runtime.block_on(subscribing).context("NATS")?;
            let sender = sender.clone();
            self.runtime.spawn(async move {
                while let Some(message) = heard.next().await {
                    if sender.send(message.payload.to_vec()).is_err() {
                        return;
                    }
                }
            });
        }
        self.flush()?;
        Ok(receiver)
    }

    /// Answers questions on a subject at once, on the connection's own thread.
    pub(super) fn answer(
        &self,
        subject: String,
        answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Result<Repeated> {
        let client = self.client.clone();
        let mut asked = self.runtime.block_on(client.subscribe(subject)).context("NATS")?;
        self.flush()?;
        Ok(Repeated(self.runtime.spawn(async move {
            while let Some(message) = asked.next().await {
                if let Some(reply) = message.reply {
                    let answer = answer(&message.payload);
                    // One that is not heard is asked for again.
                    let _ = client.publish(reply, answer.into()).await;
                }
            }
        })))
    }

    /// Asks whom the subject belongs to, and waits for the answer. `question` is made as late as
    /// possible.
    pub(super) fn ask(
        &self,
        subject: String,
        question: impl FnOnce() -> Vec<u8>,
        patience: Duration,
    ) -> Result<Vec<u8>> {
        self.runtime.block_on(async {
            let asking = self.client.request(subject, question().into());
            let answer = tokio::time::timeout(patience, asking).await;
            Ok(answer.context("no answer")?.context("NATS")?.payload.to_vec())
        })
    }

    /// Says what `say` makes, on its subject, once in a period.
    pub(super) fn repeat(
        &self,
        period: Duration,
        say: impl Fn() -> (String, Vec<u8>) + Send + 'static,
    ) -> Repeated {
        let client = self.client.clone();
        Repeated(self.runtime.spawn(async move {
            let mut ticks = tokio::time::interval(period);
            loop {
                ticks.tick().await;
                let (subject, bytes) = say();
                let _ = client.publish(subject, bytes.into()).await;
            }
        }))
    }

    /// How long the connection was down since it was first there, until now.
    pub(super) fn outage(&self) -> Duration {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.outage + link.down.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Since when the connection has stood after it had been down: `Err` while it is down.
    pub(super) fn back(&self) -> Result<Option<Instant>, ()> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.down.is_some() { Err(()) } else { Ok(link.back) }
    }
}

fn note(link: &Mutex<Link>, event: &Event) {
    let mut link = link.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        Event::Disconnected => {
            link.down.get_or_insert_with(Instant::now);
        }
        Event::Connected => {
            if let Some(since) = link.down.take() {
                link.outage += since.elapsed();
                link.back = Some(Instant::now());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_from_the_cut_to_the_connection() {
        let link = Mutex::new(Link::default());
        note(&link, &Event::Connected);
        assert!(link.lock().unwrap().back.is_none(), "the first connection ends no outage");
        note(&link, &Event::Disconnected);
        let since = link.lock().unwrap().down;
        note(&link, &Event::Disconnected);
        assert_eq!(link.lock().unwrap().down, since);
        note(&link, &Event::Connected);
        let link = link.lock().unwrap();
        assert!(link.down.is_none() && link.back >= since);
    }
}
