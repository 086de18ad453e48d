// Echo on Node: one event loop, a stream for each client, handlers for its events.
//
// Who waits where: one thread, in the epoll_wait of libuv, for all of its sockets.
// What wakes it: a socket that is ready ('data', 'drain'), a timer, or a signal.
//
// Run: node loadgen/peers/node_echo.mjs --listen 127.0.0.1:7007
// Read next: asyncio_echo.py, the same design in Python, and serve-mio, a loop of that kind.

import { createServer } from 'node:net';
import * as line from './line_server.mjs';

const { flags, clients, counters } = line;
// What libuv reads at once; after that much there is most likely more.
const FULL_READ = 64 << 10;
let stopping = false;

// The high-water mark: with more than this in the queue, write() says false.
const server = createServer({ allowHalfOpen: true, highWaterMark: flags.sendq >> 2 }, serve);
server.on('error', ({ code }) => line.fail(1, `cannot listen on ${flags.listen.shown}: ${code}`));
server.listen({ ...flags.listen, backlog: flags.backlog }, () => {
  process.on('SIGUSR1', line.report);
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  const { address, port } = server.address();
  line.say(1, `listening on ${line.shown(address, port)}`);
});
setInterval(line.sweep, flags.idleTimeout / 10, (client) => client.socket.destroy());

function serve(socket) {
  const client = { socket, held: false };
  const refusal = line.enter(client, socket.remoteAddress);
  socket.on('error', () => {}); // A peer's error ends that peer: 'close' follows.
  if (refusal) {
    socket.write(refusal);
    socket.destroySoon();
    return;
  }
  socket.setNoDelay();
  socket.on('data', (bytes) => {
    // Once the server stops the stream has its end: an answer behind that would destroy the queue.
    if (stopping) return;
    if (flags.wait) hold(client, bytes);
    else answer(client, bytes);
  });
  socket.on('drain', () => client.held || socket.resume());
  socket.on('end', () => socket.destroySoon()); // What is queued is written first.
  socket.on('close', () => {
    line.leave(client);
    if (stopping && clients.size === 0) exit();
  });
}

// Above the high-water mark the client is not read, until its queue is empty ('drain').
function answer(client, bytes) {
  const replies = line.feed(client, bytes);
  if (bytes.length >= FULL_READ) letOthersGo(client);
  if (replies.length > 0 && !client.socket.destroyed && !client.socket.write(replies)) {
    counters.would_blocks += 1;
    client.socket.pause();
  }
}

// libuv reads up to 32 times from one socket, and accepts one connection, in each of its turns.
function letOthersGo({ held, socket }) {
  socket.pause();
  setImmediate(() => held || socket.writableNeedDrain || socket.resume());
}

// --wait: until it is over the client is not read, so the end of its stream has to wait as well.
function hold(client, bytes) {
  client.held = true;
  client.socket.pause();
  setTimeout(() => {
    client.held = false;
    answer(client, bytes);
    if (stopping) part(client.socket);
    else if (!client.socket.writableNeedDrain) client.socket.resume();
  }, flags.wait);
}

function stop() {
  if (stopping || clients.size === 0) exit();
  stopping = true;
  server.close();
  setTimeout(exit, flags.drainTimeout);
  for (const client of clients) if (!client.held) part(client.socket);
}

// Closed with input unread, a connection is reset, and a reset throws away what is on its way. So a
// client that is owed replies, or was not read, has time to read and to end its own stream.
function part(socket) {
  if (socket.writableLength === 0 && !socket.isPaused()) {
    socket.destroySoon();
    return;
  }
  socket.end();
  socket.resume();
}

function exit() {
  line.report();
  process.exit(0);
}
