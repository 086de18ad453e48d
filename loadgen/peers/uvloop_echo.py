"""Echo on uvloop, the loop of libuv under asyncio: the same protocol objects, called from C.

Who waits where: one thread, in the epoll_wait of libuv, for all of its sockets.
What wakes it: a socket that is ready (`data_received`), a timer, or a signal.

All but one thing stands in asyncio_echo.py. libuv reads up to 32 times from one socket in a turn,
and the client that fills each of these reads kept four others waiting for two seconds.

Run: target/peers/bin/python loadgen/peers/uvloop_echo.py --listen 127.0.0.1:7007
Read next: libuv_echo.c, the same loop without Python.
"""

import asyncio

import uvloop

import asyncio_echo
import line_server

# What uvloop reads at once; after that much there is most likely more.
FULL_READ = 256_000


def main():
    server = line_server.Server(__doc__.splitlines()[0])
    uvloop.run(asyncio_echo.serve(server, Echo))


class Echo(asyncio_echo.Echo):
    """One client, which lets the others go first after a full read."""

    def data_received(self, data):
        super().data_received(data)
        if len(data) >= FULL_READ:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.go_on)


if __name__ == "__main__":
    main()
