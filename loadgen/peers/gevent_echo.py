"""Echo on gevent: a greenlet for each client, in code that looks as if it blocked.

Who waits where: each greenlet in `recv`; the one thread below them in the epoll_wait of libev.
What wakes it: a socket that is ready switches back to the stack that waits for it.

A greenlet reads and writes. Only when a client does not take its replies, a second one is started
for it, that waits to write while the first reads on, up to the high-water mark.

Run: target/peers/bin/python loadgen/peers/gevent_echo.py --listen 127.0.0.1:7007
Read next: tornado_echo.py, where the places that can wait are marked with `await`.
"""

import socket

import gevent
from gevent.event import Event
from gevent.server import StreamServer

import line_server

READ = 64 << 10
# Reads between two looks at the others: `recv` switches only when there is nothing to read. After
# one that was full there is most likely more.
TURN = 16


def main():
    server = line_server.Server(__doc__.splitlines()[0])
    stop = Event()
    for number in line_server.SIGNALS:
        gevent.signal_handler(number, server.signalled, number, stop.set)
    gevent.spawn(sweep, server)
    listener = server.listen()
    accepting = StreamServer(listener, lambda sock, peer: Echo(sock).run(server, peer[0]))
    accepting.start()
    server.announce(listener)
    stop.wait()
    accepting.close()
    clients = list(server.clients)
    for client in clients:
        client.finish()
    gevent.joinall([client.reader for client in clients], server.flags.drain_timeout)
    server.report()


def sweep(server):
    while True:
        gevent.sleep(server.sweep_every)
        server.sweep()


class Stopped(Exception):
    """The server stops: its reader does not wait for this client to speak any more."""


class Echo(line_server.Client):
    """One client: its socket, its greenlets, and what they have not yet written."""

    waiting, owed = False, True

    def __init__(self, sock):
        self.sock = sock
        self.reader, self.writer = gevent.getcurrent(), None
        self.queue = bytearray()
        self.room = Event()
        self.room.set()

    def run(self, server, ip):
        try:
            if refusal := self.enter(server, ip):
                self.sock.send(refusal)
            else:
                self.serve()
        except OSError:
            pass  # A peer's error ends that peer.
        finally:
            self.leave()
            if self.writer:
                self.writer.kill(block=False)
            self.sock.close()

    def serve(self):
        reads = 0
        while not self.server.stopping and (data := self.read()):
            if self.server.flags.wait:
                gevent.sleep(self.server.flags.wait)
            self.write(self.feed(data))
            self.room.wait()
            reads += 1
            if len(data) == READ or reads % TURN == 0:
                gevent.sleep(0)
        if self.writer:
            self.writer.join()
        if self.server.stopping and self.owed:
            self.part()

    def read(self):
        self.waiting = True
        try:
            return self.sock.recv(READ)
        except Stopped:
            return b""
        finally:
            self.waiting = False

    def part(self):
        """Ends our stream, and reads what still comes until the client ends its own."""
        self.sock.shutdown(socket.SHUT_WR)
        with gevent.Timeout(line_server.LINGER, False):
            while self.sock.recv(READ):
                pass

    def write(self, replies):
        sent = 0
        if not self.queue:
            try:
                sent = self.sock.send(replies, timeout=0.0)
            except BlockingIOError:
                pass
        if sent < len(replies):
            self.queue += replies[sent:]
            if len(self.queue) > self.server.high_water:
                self.server.pauses += 1
                self.room.clear()
            if not self.writer:
                self.writer = gevent.spawn(self.flush)

    def flush(self):
        """The second greenlet: writes until nothing is left."""
        try:
            while self.queue:
                del self.queue[:self.sock.send(self.queue[:READ])]
                if len(self.queue) <= self.server.low_water:
                    self.room.set()
            self.writer = None
        except OSError:
            self.abort()

    def finish(self):
        """Wakes the reader, if it waits for the client to speak. It then sees that the server
        stops."""
        self.owed = not self.waiting or line_server.is_owed(self.sock)
        gevent.get_hub().cancel_wait(self.sock._read_event, Stopped())

    def abort(self):
        self.reader.kill(block=False)


if __name__ == "__main__":
    main()
