"""A backend on the kernel's sockets that spoils one reply in fifty, for run-wires: faulty.py FAULT."""

import asyncio
import re
import sys

EVERY = 50
FILLING = bytes(ord("!") + at * 7 % 89 for at in range(1024))
served = 0
before = b"0" * 16


def reply(nonce, status=b"200 OK", body=60, own=None):
    """What blast's own backend sends."""
    own = own or nonce
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nx-nonce: %s\r\n\r\n%s" % (status, body, nonce, (own + FILLING[16:])[:60])


async def serve(reader, writer):
    global served, before
    fault = sys.argv[1]
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            nonce = re.match(rb"GET \S*([0-9a-f]{16}) ", head).group(1)
            served += 1
            whole = reply(nonce)
            if served % EVERY == 0:
                whole = {
                    "none": whole,
                    "swap": reply(before),
                    "repeat": whole + whole,
                    "truncate": whole[:-7],
                    "drop": b"",
                    "nonce": reply(b"00000000deadbeef", own=nonce),
                    "extra": whole + b"!",
                    "status": reply(nonce, status=b"503 Service Unavailable"),
                    "length": reply(nonce, body=59)[:-1],
                    "body": whole[:-1] + b"~",
                    "reset": b"",
                }[fault]
                if fault == "reset":
                    writer.transport.abort()
                    return
            before = nonce
            writer.write(whole)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "10.9.1.1", 80)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
