"""Frames between a wire and a pipe: each is 2 bytes of length, big-endian, then the frame.

python3 wire.py DEVICE reads frames to send from its input and writes those that arrive to its output.
Rust without `unsafe` cannot open a packet socket; this is all that the tests need of one.
"""

import os
import socket
import struct
import sys
import threading

ETH_P_ALL = 3
PACKET_OUTGOING = 4


def read_exactly(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def receive(wire):
    while True:
        frame, address = wire.recvfrom(65535)
        if address[2] != PACKET_OUTGOING:
            os.write(1, struct.pack(">H", len(frame)) + frame)


def main():
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    wire.bind((sys.argv[1], 0))
    os.write(1, struct.pack(">H", 0))
    threading.Thread(target=receive, args=(wire,), daemon=True).start()
    while True:
        (length,) = struct.unpack(">H", read_exactly(2))
        wire.send(read_exactly(length))


main()
