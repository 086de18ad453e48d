//! Reads what strace wrote, and makes it a text that is the same each time.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

/// A line of strace: the thread, when the call began, the call, and how long it took.
static LINE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(\d+) +(\d+\.\d+) (.*?)(?: <(\d+\.\d+)>)?$"));
static RESUMED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^<\.\.\. \w+ resumed>(.*)$"));

/// What differs from run to run, and what stands for it.
static NAMES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"\d+<TCP:\[[^\]>]*->[^\]>]*\]>", "client"),
        (r"\d+<TCP:\[[^\]>]*\]>", "listener"),
        (r"\d+<anon_inode:\[eventpoll\]>", "epoll"),
        (r"\d+<anon_inode:\[eventfd\]>", "eventfd"),
        (r"\d+<anon_inode:\[timerfd\]>", "timerfd"),
        (r"\d+<anon_inode:\[io_uring\]>", "ring"),
        (r"\d+<(?:UNIX|socket|pipe)[^>]*>", "pipe"),
        (r"0x[0-9a-f]+", "…"),
        (r"\b(u32|u64|data)=(?:\d+|…)", "$1=…"),
        (r"si_pid=\d+", "si_pid=…"),
        (r"sin_port=htons\(\d+\)", "sin_port=…"),
        (r"si_fd=\d+", "si_fd=…"),
        (r"tv_n?sec=\d+", "…"),
        (r"RT_3( RT_\d+)+ (RT_\d+)", "RT_3 … $2"),
        (r"si_code=.*?si_uid=\d+", "…"),
        (r"\{fd=(client|listener|eventfd), ", "{$1, "),
    ]
    .map(|(text, name)| (pattern(text), name))
    .into()
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

struct Call {
    thread: String,
    begun: f64,
    /// When it came back, if it has.
    ended: Option<f64>,
    text: String,
}

/// The calls that came back after `from`, and those in which the server waits at `to`.
pub(super) fn calls(trace: &str, from: f64, to: f64) -> String {
    let mut kept: Vec<Call> = read(trace)
        .into_iter()
        .filter(|call| {
            let came_back = call.ended.is_some_and(|ended| ended >= from && ended <= to);
            let waits = call.begun <= to && call.ended.is_none_or(|ended| ended > to);
            came_back || waits
        })
        .collect();
    let worked = |thread: &str| {
        kept.iter().any(|call| call.thread == thread && call.ended.is_some_and(|end| end <= to))
    };
    // A thread that only waits all the time has no part in it.
    let idle: Vec<String> = kept.iter().map(|call| call.thread.clone()).collect();
    let idle: Vec<String> = idle.into_iter().filter(|thread| !worked(thread)).collect();
    kept.retain(|call| !idle.contains(&call.thread));
    kept.sort_by(|a, b| {
        let end = |call: &Call| call.ended.filter(|&end| end <= to).unwrap_or(f64::MAX);
        end(a).total_cmp(&end(b))
    });
    shortened(&lines(&kept, to))
}

/// The calls of a trace. One that another thread's interrupts is told in two lines.
fn read(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    for line in trace.lines() {
        let Some(parts) = LINE.captures(line) else { continue };
        let (thread, at, text) = (parts[1].to_owned(), parts[2].parse().unwrap_or(0.0), &parts[3]);
        let took: Option<f64> = parts.get(4).and_then(|took| took.as_str().parse().ok());
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            open.insert(thread.clone(), calls.len());
            calls.push(Call { thread, begun: at, ended: None, text: begun.to_owned() });
        } else if let Some(rest) = RESUMED.captures(text) {
            if let Some(call) = open.remove(&thread).and_then(|call| calls.get_mut(call)) {
                // A call that the end of the server cut short took no time that is known.
                call.ended = took.map(|took| call.begun + took);
                call.text.push_str(&rest[1]);
            }
        } else if text.contains('(') {
            let ended = took.map(|took| at + took);
            calls.push(Call { thread, begun: at, ended, text: text.to_owned() });
        }
    }
    calls
}

/// A line for each call, with the names of threads if there are several.
fn lines(calls: &[Call], to: f64) -> Vec<String> {
    let mut threads: Vec<&str> = Vec::new();
    for call in calls {
        if !threads.contains(&&*call.thread) {
            threads.push(&call.thread);
        }
    }
    let line = |call: &Call| {
        let mut text = call.text.clone();
        for (pattern, name) in NAMES.iter() {
            text = pattern.replace_all(&text, *name).into_owned();
        }
        if call.ended.is_none_or(|ended| ended > to) {
            text = waiting(&text);
        }
        let at = threads.iter().position(|thread| *thread == call.thread).unwrap_or_default();
        let who = if threads.len() > 1 { format!("thread {}: ", at + 1) } else { String::new() };
        let words: Vec<&str> = text.split_whitespace().collect();
        format!("{who}{}", words.join(" "))
    };
    calls.iter().map(line).collect()
}

/// A call that has not come back. What it writes to the program's memory is not known yet.
fn waiting(text: &str) -> String {
    let begun = text.split(" = ").next().unwrap_or_default().trim_end();
    let gives = ["read", "recv", "epoll_", "rt_sig", "futex", "clock_"];
    let first = match begun.split_once(", ") {
        Some((first, _)) if gives.iter().any(|name| begun.starts_with(name)) => first,
        _ => begun.trim_end_matches(')'),
    };
    format!("{first}, … waits")
}

/// Says once what comes again and again: a block of up to four lines that repeats at once.
fn shortened(lines: &[String]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < lines.len() {
        let repeats = |len: usize| {
            let block = &lines[at..(at + len).min(lines.len())];
            lines[at..].chunks(len).take_while(|chunk| *chunk == block).count()
        };
        let found = (1..=4).map(|len| (len, repeats(len))).find(|&(_, times)| times > 2);
        let (len, times) = found.unwrap_or((1, 1));
        for line in &lines[at..at + len] {
            text.push_str(line);
            text.push('\n');
        }
        if times > 1 {
            text.push_str("… and this again and again\n");
        }
        at += len * times;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn calls_of_the_window_are_kept_and_named() {
        let trace = "\
7 10.000000 read(4<TCP:[127.0.0.1:80->127.0.0.1:99]>, \"a\\n\", 64) = 2 <0.100000>
7 10.200000 write(4<TCP:[127.0.0.1:80->127.0.0.1:99]>, \"a\\n\", 2) = 2 <0.000100>
7 10.300000 read(4<TCP:[127.0.0.1:80->127.0.0.1:99]>,  <unfinished ...>
8 10.400000 nap(1) = 0 <0.100000>
8 10.500000 nap(1) = 0 <0.100000>
8 10.600000 nap(1) = 0 <0.100000>
7 11.000000 <... read resumed>\"b\\n\", 64) = 2 <0.700000>
7 11.000200 write(4<TCP:[127.0.0.1:80->127.0.0.1:99]>, \"b\\n\", 2) = 2 <0.000100>
7 11.000500 read(4<TCP:[127.0.0.1:80->127.0.0.1:99]>, \"\", 64) = 0 <9.000000>
9 10.100000 futex(0x7f12) = 0 <20.000000>
";
        assert_eq!(
            calls(trace, 10.45, 12.0),
            "thread 1: nap(1) = 0\n… and this again and again\n\
             thread 2: read(client, \"b\\n\", 64) = 2\nthread 2: write(client, \"b\\n\", 2) = 2\n\
             thread 2: read(client, … waits\n"
        );
    }
}
