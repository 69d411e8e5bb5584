"""Frames between a wire and a pipe: each is 2 bytes of length, big-endian, then the frame.

python3 wire.py DEVICE sends the frames that it reads from its input and writes those that arrive to its output.
Rust without `unsafe` cannot open a packet socket; this is all that the tests need of one.
"""

import os
import select
import socket
import struct
import sys

ETH_P_ALL = 3
PACKET_OUTGOING = 4
BURST = 256


def main():
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    wire.bind((sys.argv[1], 0))
    # Neither direction may wait for the other: whoever is at the other end of the pipes may be waiting too.
    os.set_blocking(0, False)
    os.set_blocking(1, False)
    unsent = bytearray()
    unread = bytearray(struct.pack(">H", 0))
    while True:
        readable, writable, _ = select.select([0, wire], [1] if unread else [], [])
        if wire in readable:
            receive(wire, unread)
        if writable:
            del unread[: os.write(1, unread[:65536])]
        if 0 in readable:
            data = os.read(0, 65536)
            if not data:
                return
            unsent += data
            send(wire, unsent)


def receive(wire, unread):
    for _ in range(BURST):
        try:
            frame, address = wire.recvfrom(65535, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if address[2] != PACKET_OUTGOING:
            unread += struct.pack(">H", len(frame)) + frame


def send(wire, unsent):
    at = 0
    while len(unsent) >= at + 2:
        (length,) = struct.unpack_from(">H", unsent, at)
        if len(unsent) < at + 2 + length:
            break
        wire.send(bytes(unsent[at + 2 : at + 2 + length]))
        at += 2 + length
    del unsent[:at]


main()
