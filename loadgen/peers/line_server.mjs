// What the Node peer needs and that never waits: the flags, who is let in, the counters,
// and what an echo server says. It is line_server.py in another language.

import { writeSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';

const LF = 10;
const TOO_LONG = Buffer.from('ERR line too long\r\n');

export const flags = parse(process.argv.slice(2));
export const clients = new Set();
export const counters = {
  accepts: 0, refused: 0, lines: 0, bytes_in: 0, bytes_out: 0, wakeups: 0, timed_out: 0,
  would_blocks: 0, overflows: 0, slow_cut: 0, errors: { shortage: 0 },
};
const fromAddress = new Map();

// Gives a client from `ip` a place, or returns the line that says why there is none.
export function enter(client, ip) {
  const here = fromAddress.get(ip) ?? 0;
  counters.accepts += 1;
  const full = clients.size >= flags.maxConnections;
  if (full || here >= flags.maxConnectionsPerIp) {
    counters.refused += 1;
    return `ERR ${full ? 'the server is full' : 'too many connections from your address'}\r\n`;
  }
  Object.assign(client, { ip, tail: null, skipping: false, heard: performance.now() });
  clients.add(client);
  fromAddress.set(ip, here + 1);
  return null;
}

export function leave(client) {
  const here = fromAddress.get(client.ip) - 1;
  if (here > 0) fromAddress.set(client.ip, here);
  else fromAddress.delete(client.ip);
  clients.delete(client);
}

// What comes back for these bytes: every line that they make whole.
export function feed(client, bytes) {
  counters.wakeups += 1;
  counters.bytes_in += bytes.length;
  const replies = frame(client, bytes);
  if (replies.length > 0) {
    const lines = countLines(replies);
    client.heard = performance.now();
    counters.lines += lines;
    counters.bytes_out += replies.length;
    burn(lines * flags.work);
  }
  return replies;
}

// The whole lines; the rest is kept. One that is too long is told of as soon as that is known, and
// skipped to its end without being kept.
function frame(client, bytes) {
  if (client.skipping) {
    const end = bytes.indexOf(LF) + 1;
    if (end === 0) return bytes.subarray(0, 0);
    client.skipping = false;
    bytes = bytes.subarray(end);
  }
  if (client.tail) bytes = Buffer.concat([client.tail, bytes]);
  const end = bytes.lastIndexOf(LF) + 1;
  let whole = bytes.subarray(0, end);
  // A copy, because a view would keep all that was read with it.
  client.tail = end < bytes.length ? Buffer.from(bytes.subarray(end)) : null;
  if (bytes.length > flags.maxLine) {
    whole = lineByLine(whole);
    if (bytes.length - end > flags.maxLine) {
      client.tail = null;
      client.skipping = true;
      whole = Buffer.concat([whole, TOO_LONG]);
    }
  }
  return whole;
}

function lineByLine(whole) {
  const replies = [];
  for (let start = 0, end; start < whole.length; start = end) {
    end = whole.indexOf(LF, start) + 1;
    replies.push(end - start > flags.maxLine ? TOO_LONG : whole.subarray(start, end));
  }
  return Buffer.concat(replies);
}

function countLines(bytes) {
  let lines = 0;
  for (let at = bytes.indexOf(LF); at >= 0; at = bytes.indexOf(LF, at + 1)) lines += 1;
  return lines;
}

// Calls `abort` for who has not sent a whole line for too long. One timer that looks at everybody
// now and then costs less than one for each client that moves with each line.
export function sweep(abort) {
  const now = performance.now();
  for (const client of clients) {
    if (now - client.heard > flags.idleTimeout) {
      counters.timed_out += 1;
      abort(client);
    }
  }
}

// A wakeup is one call with bytes, bytes are out when the stream has them, and what would have
// blocked shows only when the queue is full: more the runtime does not tell.
export function report() {
  say(2, JSON.stringify({ counters }));
}

function burn(milliseconds) {
  const until = performance.now() + milliseconds;
  while (milliseconds > 0 && performance.now() < until);
}

// The flags of the workspace's servers, as far as they concern echo.
function parse(words) {
  const kinds = {
    listen: address, mode: oneOf('echo'), workers: oneOf('1'), maxConnections: positive,
    maxConnectionsPerIp: positive, maxLine: atLeast(16), sendq: atLeast(4096),
    idleTimeout: (text) => duration(text) || undefined, drainTimeout: duration, wait: duration,
    work: duration, backlog: positive, log: oneOf('text', 'json'),
  };
  const found = {
    listen: address('127.0.0.1:7007'), public: false, maxConnections: 16384, maxLine: 65536,
    sendq: 1 << 20, idleTimeout: 300_000, drainTimeout: 10_000, wait: 0, work: 0, backlog: 4096,
  };
  const wrong = [];
  for (let at = 0; at < words.length; at += 1) {
    const name = words[at].replace(/^--/, '').replace(/-(.)/g, (_, c) => c.toUpperCase());
    if (words[at] === '--public') found.public = true;
    else if (!words[at].startsWith('--') || !Object.hasOwn(kinds, name)) {
      wrong.push(`there is no ${words[at]}`);
    } else {
      found[name] = kinds[name](words[at + 1] ?? '');
      if (found[name] === undefined) wrong.push(`${words[at]} is not ${words[at + 1] ?? 'given'}`);
      at += 1;
    }
  }
  if (wrong.length > 0) fail(2, wrong.map((what) => `${what} here`).join('; '));
  if (!found.public && !/^(127\.|::1$)/.test(found.listen.host)) {
    fail(2, `other machines could reach --listen ${found.listen.shown}: add --public if meant`);
  }
  found.maxConnectionsPerIp ??= found.public ? 64 : found.maxConnections;
  return found;
}

function address(text) {
  const [, host, port] = /^\[?([^[\]]+)\]?:(\d+)$/.exec(text) ?? [];
  if (!(isIPv4(host) || isIPv6(host)) || port > 65535) return undefined;
  return { host, port: Number(port), shown: text };
}

export function shown(ip, port) {
  return isIPv6(ip) ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function oneOf(...words) {
  return (text) => (words.includes(text) ? text : undefined);
}

function positive(text) {
  return /^[1-9]\d*$/.test(text) ? Number(text) : undefined;
}

function atLeast(least) {
  return (text) => {
    const [, number, k, i] = /^(\d+) *(?:([kKMG])(i?)B|B|)$/.exec(text) ?? [];
    const bytes = number * (i ? 1024 : 1000) ** ' KMG'.indexOf((k ?? ' ').toUpperCase());
    return bytes >= least ? bytes : undefined;
  };
}

// Milliseconds, from such as 50us, 300ms, 5s or 1m 30s.
function duration(text) {
  const units = { us: 1e-3, ms: 1, s: 1e3, m: 6e4, h: 36e5 };
  if (!/^(0|(\d+(us|ms|s|m|h) *)+)$/.test(text)) return undefined;
  const parts = text.matchAll(/(\d+)(us|ms|s|m|h)/g);
  return [...parts].reduce((sum, [, number, unit]) => sum + number * units[unit], 0);
}

// The reader of the descriptor may have left, which is no reason not to serve.
export function say(descriptor, line) {
  try {
    writeSync(descriptor, `${line}\n`);
  } catch {}
}

export function fail(code, reason) {
  say(2, `node_echo: ${reason}`);
  process.exit(code);
}
