//! The cases of an echo.

use std::io::Write;
use std::net::Shutdown;

use anyhow::{Context, Result};
use socket2::SockRef;

use super::peer::{Peer, ask, connect, end, expect, nothing_came};
use super::{Case, Door, contract, must};

/// The protocol's default limit on an echo line, its end included, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// The longest line that every server must give back, its end included, in bytes.
pub(super) const MUST_LINE: u32 = 1024;
/// Cases that some workloads cannot do without.
pub(super) const LONG_LINES: &str = "long-lines";
pub(super) const HALF_CLOSE: &str = "half-close";

/// All of them, in the order in which they are tried.
pub(super) const CASES: [Case; 13] = [
    must("split-lines", "lines in any split", split_lines),
    must("line-sizes", "lines of up to 1 KiB", line_sizes),
    must("pipelined-lines", "many lines at once", pipelined_lines),
    must("no-crossing", "several connections at once", no_crossing),
    must("nothing-else", "silence unless asked", nothing_else),
    contract("crlf-lines", "CRLF", crlf_lines),
    contract("empty-lines", "empty lines", empty_lines),
    contract("nul-bytes", "NUL", nul_bytes),
    contract("any-bytes", "bytes that are no text", any_bytes),
    contract(LONG_LINES, "lines of 64 KiB", long_lines),
    contract("over-long-line", "line limit", over_long_line),
    contract("not-before-asked", "answers to whole lines only", not_before_asked),
    // A server may take the end of one client for the end of all: the last to be tried.
    contract(HALF_CLOSE, "half-close", half_close),
];

fn split_lines(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    split_everywhere(&mut peer, b"a line to be split\n")
}

fn split_everywhere(peer: &mut Peer, line: &[u8]) -> Result<()> {
    for at in 0..line.len() {
        peer.write_all(&line[..at])?;
        ask(peer, &line[at..], line).with_context(|| format!("split at byte {at}"))?;
    }
    Ok(())
}

/// A line of so many bytes, its end included, that differs from others in every part.
fn numbered(n: usize, len: usize) -> Vec<u8> {
    let mut line = format!("{n}, ").repeat(len / 3 + 1).into_bytes();
    line.truncate(len - 1);
    line.push(b'\n');
    line
}

fn line_sizes(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    let sizes = [2, 16, 64, 100, 255, 256, 257, 512, 1000, MUST_LINE as usize];
    for size in sizes {
        let line = numbered(size, size);
        ask(&mut peer, &line, &line).with_context(|| format!("a line of {size} bytes"))?;
    }
    let all = sizes.map(|size| numbered(size, size)).concat();
    ask(&mut peer, &all, &all).context("all of them at once")
}

fn pipelined_lines(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    let lines: String = (0..500).map(|n| format!("pipelined line number {n}\n")).collect();
    ask(&mut peer, lines.as_bytes(), lines.as_bytes())
}

/// Lines of several sizes, each in two parts, with the parts of all connections between.
fn no_crossing(door: &Door) -> Result<()> {
    let mut peers: Vec<Peer> = (0..4).map(|_| connect(door.addr)).collect::<Result<_>>()?;
    for round in 0..50 {
        let line = |n: usize| numbered(4 * round + n, 8 + 13 * round * (n + 1) % 500);
        let half = |n: usize| line(n).len() / 2;
        for (n, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&line(n)[..half(n)])?;
        }
        for (n, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&line(n)[half(n)..])?;
        }
        for (n, peer) in peers.iter_mut().enumerate() {
            let what = || format!("line {round} of connection {} of 4 at once", n + 1);
            expect(peer, &line(n)).with_context(what)?;
        }
    }
    Ok(())
}

/// No greeting comes, and nothing behind an answer.
fn nothing_else(door: &Door) -> Result<()> {
    let (mut silent, mut other) = (connect(door.addr)?, connect(door.addr)?);
    let mut asked = connect(door.addr)?;
    ask(&mut asked, b"a whole line\n", b"a whole line\n")?;
    // By the time that these are answered, the server has had its turn with the others.
    for _ in 0..20 {
        ask(&mut other, b"a whole line\n", b"a whole line\n")?;
    }
    nothing_came(&mut silent).context("nothing was asked")?;
    nothing_came(&mut asked).context("behind the answer")
}

fn crlf_lines(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    split_everywhere(&mut peer, b"one with CRLF\r\n")
}

fn empty_lines(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    ask(&mut peer, b"\n", b"\n")?;
    split_everywhere(&mut peer, b"\r\n")?;
    ask(&mut peer, b"\n\n\r\n\nfull\n", b"\n\n\r\n\nfull\n")
}

fn nul_bytes(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    ask(&mut peer, b"before\0behind\0\n\0\n", b"before\0behind\0\n\0\n")
}

fn any_bytes(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    let mut line: Vec<u8> = (1..=255).filter(|byte| *byte != b'\n').collect();
    line.push(b'\n');
    ask(&mut peer, &line, &line)
}

fn long_lines(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    for size in [8 * 1024, MAX_LINE] {
        let line = numbered(size, size);
        ask(&mut peer, &line, &line).with_context(|| format!("a line of {size} bytes"))?;
    }
    Ok(())
}

fn half_close(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    let lines = "said before the end\n".repeat(200);
    // Held back, the lines and the end go in one segment: a server that closes when it sees the end
    // of a stream, before it has read what came, does so each time and not by chance.
    SockRef::from(&peer.0).set_tcp_cork(true)?;
    peer.write_all(lines.as_bytes())?;
    peer.0.shutdown(Shutdown::Write)?;
    expect(&mut peer, lines.as_bytes())?;
    end(&mut peer)
}

fn over_long_line(door: &Door) -> Result<()> {
    let mut peer = connect(door.addr)?;
    let mut line = vec![b'x'; MAX_LINE + 100];
    line.push(b'\n');
    ask(&mut peer, &line, b"ERR line too long\r\n")?;
    ask(&mut peer, b"still there\n", b"still there\n")
}

/// A server that answers whenever it is written to, and not when a line is whole, is caught here.
fn not_before_asked(door: &Door) -> Result<()> {
    let (mut half, mut other) = (connect(door.addr)?, connect(door.addr)?);
    half.write_all(b"half a li")?;
    // By the time that these are answered, the server has had its turn with the half line.
    for _ in 0..20 {
        ask(&mut other, b"a whole line\n", b"a whole line\n")?;
    }
    nothing_came(&mut half).context("before the line was whole")?;
    ask(&mut half, b"ne\n", b"half a line\n")
}
