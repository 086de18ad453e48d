"""Echo on Tornado: a coroutine for each client waits for bytes on a buffered stream.

Who waits where: each client's coroutine in `await`; the one thread below them in the epoll_wait of
the loop (asyncio's, since Tornado 5).
What wakes it: a socket that is ready resolves the future that a coroutine awaits.

A stream takes the end of what the peer sends for the end of the connection, and drops what is
queued. So a coroutine reads on only when its replies have been taken: then there is nothing to
drop. That is also the backpressure, at the first byte that does not fit into the kernel.

Run: target/peers/bin/python loadgen/peers/tornado_echo.py --listen 127.0.0.1:7007
Read next: asyncio_echo.py, the loop below it, and gevent_echo.py, which waits without `await`.
"""

import asyncio
import contextlib
import socket

from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.iostream import StreamClosedError
from tornado.tcpserver import TCPServer

import line_server

READ = 64 << 10
# Reads between two looks at the others: an `await` of what is there already does not switch. After
# one that was full there is most likely more.
TURN = 16


def main():
    asyncio.run(serve(line_server.Server(__doc__.splitlines()[0])))


async def serve(server):
    stop = asyncio.Event()
    for number in line_server.SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, server.signalled, number, stop.set)
    PeriodicCallback(server.sweep, server.sweep_every * 1000).start()
    echo = EchoServer(server)
    listener = Listener(server)
    echo.add_socket(listener)
    server.announce(listener)
    await stop.wait()
    echo.stop()
    for client in list(server.clients):
        client.finish()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(server.flags.drain_timeout):
            while server.clients:
                await asyncio.wait([client.task for client in server.clients])
    server.report()


class EchoServer(TCPServer):
    def __init__(self, server):
        super().__init__(read_chunk_size=READ)
        self.server = server

    async def handle_stream(self, stream, address):
        client = Echo(stream)
        refusal = client.enter(self.server, address[0])
        with contextlib.suppress(StreamClosedError):
            await (stream.write(refusal) if refusal else client.serve())
        client.leave()
        stream.close()


class Echo(line_server.Client):
    """One client, and the coroutine that serves it."""

    def __init__(self, stream):
        self.stream = stream
        self.task = asyncio.current_task()
        self.busy = self.ending = False

    async def serve(self):
        reads = 0
        while not self.server.stopping:
            data = await self.stream.read_bytes(READ, partial=True)
            if self.ending:
                break
            self.busy = True
            if self.server.flags.wait:
                await asyncio.sleep(self.server.flags.wait)
            written = self.stream.write(self.feed(data))
            self.server.pauses += not written.done()
            await written
            self.busy = False
            reads += 1
            if len(data) == READ or reads % TURN == 0:
                await asyncio.sleep(0)
        self.end_stream()
        while True:
            await self.stream.read_bytes(READ, partial=True)

    def finish(self):
        """A client that has something to write ends its stream by itself when that is done. One
        that is owed something else has time to end its own."""
        if self.busy:
            return
        if line_server.is_owed(self.stream.socket):
            self.end_stream()
        else:
            self.stream.close()

    def end_stream(self):
        """Ends our stream. What still comes is read, until the client ends its own."""
        if not self.ending:
            self.ending = True
            with contextlib.suppress(OSError):
                self.stream.socket.shutdown(socket.SHUT_WR)
            IOLoop.current().call_later(line_server.LINGER, self.stream.close)

    def abort(self):
        self.stream.close()


class Listener(socket.socket):
    """Tornado knows no way to leave the listener alone. Out of descriptors, its loop would find
    it ready again and again; so this takes it out of the loop's sight for a moment."""

    def __init__(self, server):
        super().__init__(fileno=server.listen().detach())
        self.server = server

    def accept(self):
        try:
            return super().accept()
        except BlockingIOError:
            raise
        except OSError as error:
            self.server.shortages += 1
            loop = IOLoop.current()
            loop.update_handler(self, 0)
            loop.call_later(line_server.SHORTAGE_PAUSE, self.look_again, loop)
            raise BlockingIOError from error

    def look_again(self, loop):
        if not self.server.stopping:
            loop.update_handler(self, IOLoop.READ)


if __name__ == "__main__":
    main()
