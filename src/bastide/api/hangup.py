"""Whether the other end of a connection has gone altogether, not only ended what it sends.

Both look like the end of the stream to a reader. For a unix socket the kernel tells them apart: EPOLLHUP
says that neither direction is open (poll(2), unix(7)). It is always reported, even when nothing else is
asked for, and an epoll descriptor can itself be waited for.
"""

from __future__ import annotations

import asyncio
import select


async def hung_up(transport: asyncio.BaseTransport) -> None:
    """Wait until the peer has closed its socket; without end when there is no socket to watch."""
    socket = transport.get_extra_info("socket")
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    if socket is None or socket.fileno() < 0:
        await gone

    def announce() -> None:
        if not gone.done():
            gone.set_result(None)

    with select.epoll() as watch:
        watch.register(socket.fileno(), 0)
        loop.add_reader(watch.fileno(), announce)
        try:
            await gone
        finally:
            loop.remove_reader(watch.fileno())
