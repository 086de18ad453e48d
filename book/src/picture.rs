//! Draws who waits where: a picture for each model, as SVG that takes its colours from the page.
//!
//! The upper half shows three clients, what the program has for each of them, and the call in which
//! it waits. The lower half shows one line that comes, from left to right in time: first nothing is
//! there yet, then the kernel copies what has come.

use anyhow::{Result, bail};
use maud::{Markup, html};

/// Where bytes come, in the lower half, and where they are copied.
const COME: u32 = 400;
const COPIED: u32 = 500;

/// How a model waits.
struct Model {
    shape: Shape,
    /// What the program has for its clients: a thread, a process, a task.
    has: &'static str,
    /// The call in which it waits.
    call: &'static str,
    /// What the picture says, in words.
    words: &'static str,
}

enum Shape {
    /// One client is served, the others are in a queue.
    Queue,
    /// A thread or process for each client, which waits in the kernel.
    Each,
    /// No call waits.
    Asks,
    /// One call waits for all clients, and then others read and write.
    Loop,
    /// The kernel works, and one call waits for its results.
    Completions,
    /// Each client has a task; below them one call waits for all.
    Tasks,
    /// Each client has a task; below them the kernel works, and one call waits for its results.
    TaskCompletions,
}

const MODELS: [(&str, Model); 18] = [
    (
        "iterative",
        Model {
            shape: Shape::Queue,
            has: "the only thread",
            call: "read",
            words: "One client is served. The others wait in the backlog, a queue in the kernel.",
        },
    ),
    (
        "threads",
        Model {
            shape: Shape::Each,
            has: "thread",
            call: "read",
            words: "Each client has a thread, and each thread waits for its own client.",
        },
    ),
    (
        "prefork",
        Model {
            shape: Shape::Each,
            has: "process",
            call: "read",
            words: "Each client has a process, and each process waits for its own client.",
        },
    ),
    (
        "nonblocking",
        Model {
            shape: Shape::Asks,
            has: "the only thread",
            call: "read",
            words: "No call waits. The thread asks each socket, and most answer that there is nothing yet.",
        },
    ),
    (
        "select",
        Model {
            shape: Shape::Loop,
            has: "the only thread",
            call: "select",
            words: "One call waits for all clients. The sets of all sockets are handed over each time.",
        },
    ),
    (
        "poll",
        Model {
            shape: Shape::Loop,
            has: "the only thread",
            call: "poll",
            words: "One call waits for all clients. The list of all sockets is handed over each time.",
        },
    ),
    (
        "epoll-level",
        Model {
            shape: Shape::Loop,
            has: "the only thread",
            call: "epoll_wait",
            words: "One call waits for all clients. The kernel keeps the list of sockets, and tells each turn which are ready.",
        },
    ),
    (
        "epoll-edge",
        Model {
            shape: Shape::Loop,
            has: "the only thread",
            call: "epoll_wait",
            words: "One call waits for all clients. The kernel tells once that a socket became ready, and the program remembers it.",
        },
    ),
    (
        "sigio",
        Model {
            shape: Shape::Loop,
            has: "the only thread",
            call: "sigtimedwait",
            words: "One call waits for a signal, which names the socket that became ready.",
        },
    ),
    (
        "uring",
        Model {
            shape: Shape::Completions,
            has: "the only thread",
            call: "io_uring_enter",
            words: "The kernel has a request for each client, and a buffer with it. One call waits until something is done.",
        },
    ),
    (
        "mio",
        Model {
            shape: Shape::Loop,
            has: "the only thread",
            call: "mio::Poll",
            words: "One call of the library waits for all clients; below it is epoll_wait. It tells once.",
        },
    ),
    (
        "polling",
        Model {
            shape: Shape::Loop,
            has: "the only thread",
            call: "Poller::wait",
            words: "One call of the library waits for all clients; below it is epoll_wait. A socket that was told must be asked for again.",
        },
    ),
    (
        "calloop",
        Model {
            shape: Shape::Loop,
            has: "handlers",
            call: "EventLoop::run",
            words: "The library's loop waits for all clients, and calls the handler of the one that is ready.",
        },
    ),
    (
        "may",
        Model {
            shape: Shape::Tasks,
            has: "coroutine",
            call: "epoll_wait",
            words: "Each client has a coroutine with a stack of its own. Where it would block, it yields, and the thread below waits for all.",
        },
    ),
    (
        "tokio",
        Model {
            shape: Shape::Tasks,
            has: "task",
            call: "epoll_wait",
            words: "Each client has a task. Where it would block, it yields, and the runtime's thread waits for all.",
        },
    ),
    (
        "smol",
        Model {
            shape: Shape::Tasks,
            has: "task",
            call: "epoll_wait",
            words: "Each client has a task. Where it would block, it yields, and the thread that runs the executor waits for all.",
        },
    ),
    (
        "async-std",
        Model {
            shape: Shape::Tasks,
            has: "task",
            call: "epoll_wait",
            words: "Each client has a task. Where it would block, it yields, and one of the runtime's threads waits for all.",
        },
    ),
    (
        "compio",
        Model {
            shape: Shape::TaskCompletions,
            has: "task",
            call: "io_uring_enter",
            words: "Each client has a task, which lends its buffer to the kernel. The runtime's thread waits until something is done.",
        },
    ),
];

/// The picture of a model, with what it says in words below it.
///
/// # Errors
///
/// When there is no model of that name.
pub fn draw(name: &str) -> Result<String> {
    let model = model(name)?;
    let label = format!("Who waits where in {name}: {}", model.words);
    let picture = html! {
        figure.waits tabindex="0" {
            svg viewBox="0 0 720 310" role="img" aria-label=(label) {
                (heading(18, "Who waits where"))
                (waiters(model))
                (heading(196, "One line comes"))
                (phases(model))
            }
            figcaption { (model.words) }
        }
    };
    Ok(picture.into_string())
}

fn model(name: &str) -> Result<&'static Model> {
    let found = MODELS.iter().find(|(known, _)| *known == name);
    match found {
        Some((_, model)) => Ok(model),
        None => bail!("no model is called {name}"),
    }
}

/// The upper half: three clients, what serves them, where that waits.
fn waiters(model: &Model) -> Markup {
    let numbered = |at: usize| format!("{} {}", model.has, ["1", "2", "3"][at]);
    html! {
        @for (at, client) in ["client A", "client B", "client C"].into_iter().enumerate() {
            (block("client", 10, row(at), 90, 32, client))
        }
        @match model.shape {
            Shape::Queue => {
                (arrow(100, middle(0), 190, middle(0)))
                (block("own", 190, row(0), 180, 32, model.has))
                (arrow(370, middle(0), 460, middle(0)))
                (block("kernel", 460, row(0), 250, 32, "read: waits for A"))
                @for at in 1..3 { (arrow(100, middle(at), 460, middle(at))) }
                (block("kernel", 460, row(1), 250, 74, "backlog: B and C wait"))
            }
            Shape::Each => {
                @for at in 0..3 {
                    (arrow(100, middle(at), 190, middle(at)))
                    (block("own", 190, row(at), 180, 32, &numbered(at)))
                    (arrow(370, middle(at), 460, middle(at)))
                    (block("kernel", 460, row(at), 250, 32, &format!("{}: waits", model.call)))
                }
            }
            Shape::Asks => {
                @for at in 0..3 { (arrow(100, middle(at), 190, middle(at))) }
                (block("own", 190, row(0), 180, 116, model.has))
                @for at in 0..3 {
                    (arrow(370, middle(at), 460, middle(at)))
                    (block("kernel", 460, row(at), 250, 32, "read: nothing yet"))
                }
            }
            Shape::Loop => {
                @for at in 0..3 { (arrow(100, middle(at), 190, middle(at))) }
                (block("own", 190, row(0), 180, 116, model.has))
                (arrow(370, middle(1), 460, middle(1)))
                (block("kernel", 460, row(0), 250, 116, &format!("{}: waits for all", model.call)))
            }
            Shape::Completions => {
                @for at in 0..3 { (arrow(100, middle(at), 190, middle(at))) }
                (block("own", 190, row(0), 180, 116, model.has))
                (arrow(370, middle(1), 460, middle(1)))
                (block("kernel", 460, row(0), 250, 52, &format!("{}: waits", model.call)))
                (block("kernel", 460, row(1) + 22, 250, 52, "has a request for each"))
            }
            Shape::Tasks | Shape::TaskCompletions => {
                @for at in 0..3 {
                    (arrow(100, middle(at), 130, middle(at)))
                    (block("own", 130, row(at), 110, 32, &numbered(at)))
                    (arrow(240, middle(at), 270, middle(at)))
                }
                (block("own", 270, row(0), 140, 116, "the thread below"))
                (arrow(410, middle(1), 460, middle(1)))
                (block("kernel", 460, row(0), 250, 116, &format!("{}: waits for all", model.call)))
            }
        }
    }
}

/// The lower half: what the program and the kernel do while a line comes, and who copies it.
fn phases(model: &Model) -> Markup {
    let asks = [(120, 170), (190, 240), (260, 310), (330, 380)];
    let call = model.call;
    html! {
        line.moment x1=(COME) y1="206" x2=(COME) y2="290" {}
        text.lane x="10" y="232" { "the thread" }
        text.lane x="10" y="272" { "the kernel" }
        (span("idle", 1, 120, COME, "nothing there yet"))
        (span("work", 1, COME, COPIED, "copies"))
        @match model.shape {
            Shape::Queue | Shape::Each => {
                (span("wait", 0, 120, COPIED, &format!("waits in {call}, through both phases")))
                (span("work", 0, COPIED + 10, 600, "write"))
            }
            Shape::Asks => {
                @for (from, to) in asks { (span("work", 0, from, to, "read")) }
                (span("wait", 0, COME, COPIED, "read"))
                (span("work", 0, COPIED + 10, 600, "write"))
            }
            Shape::Loop | Shape::Tasks => {
                (span("wait", 0, 120, COME - 10, &format!("waits in {call}, for all")))
                (span("wait", 0, COME, COPIED, "read"))
                (span("work", 0, COPIED + 10, 600, "write"))
            }
            Shape::Completions | Shape::TaskCompletions => {
                (span("wait", 0, 120, COPIED, &format!("waits in {call}, for all")))
                (span("work", 0, COPIED + 10, 600, "asks: send"))
                (span("work", 1, 620, 710, "sends"))
            }
        }
        text.moment x=(COME) y="304" text-anchor="middle" { "the line comes" }
        text.moment x="240" y="304" text-anchor="middle" { "phase 1: wait" }
        text.moment x="530" y="304" text-anchor="middle" { "phase 2: copy" }
    }
}

fn heading(y: u32, words: &str) -> Markup {
    html! { text.heading x="10" y=(y) { (words) } }
}

fn row(at: usize) -> u32 {
    [32, 74, 116][at]
}

fn middle(at: usize) -> u32 {
    row(at) + 16
}

fn block(class: &str, x: u32, y: u32, width: u32, height: u32, words: &str) -> Markup {
    html! {
        rect class=(class) x=(x) y=(y) width=(width) height=(height) rx="4" {}
        text x=(x + width / 2) y=(y + height / 2 + 5) text-anchor="middle" { (words) }
    }
}

fn arrow(x1: u32, y1: u32, x2: u32, y2: u32) -> Markup {
    let head = format!("{x2},{y2} {},{} {},{}", x2 - 8, y2 - 4, x2 - 8, y2 + 4);
    html! {
        line.arrow x1=(x1) y1=(y1) x2=(x2 - 8) y2=(y2) {}
        polygon.arrow points=(head) {}
    }
}

/// What is done on a lane of the lower half, from one moment to another.
fn span(class: &str, lane: u32, from: u32, to: u32, words: &str) -> Markup {
    let y = 214 + 40 * lane;
    html! {
        rect class=(class) x=(from) y=(y) width=(to - from) height="28" rx="3" {}
        text x=(from.midpoint(to)) y=(y + 19) text-anchor="middle" { (words) }
    }
}
