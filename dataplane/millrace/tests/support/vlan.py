"""VLANs of a wire as interfaces, for kernels without 802.1Q: python3 vlan.py DEVICE TAP=VLAN…

Each TAP is made here, with the name that is given; what comes out of it is tagged and put on the device, and what the device receives
with that tag goes into it. The kernel takes tags off received frames and tells them beside the frame.
"""

import fcntl
import os
import select
import socket
import struct
import sys

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SOL_PACKET = 263
PACKET_AUXDATA = 8
TP_STATUS_VLAN_VALID = 1 << 4
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 2, 0x1000
BURST = 64


def tap(name):
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return file


def main():
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind((sys.argv[1], 0))
    taps = {}
    for argument in sys.argv[2:]:
        name, vlan = argument.split("=")
        taps[tap(name)] = int(vlan)
    files = {vlan: file for file, vlan in taps.items()}
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([wire, *taps], [], [])
        for file in readable:
            for _ in range(BURST):
                try:
                    if file is wire:
                        receive(wire, files)
                    else:
                        frame = os.read(file, 65535)
                        wire.send(frame[:12] + struct.pack(">HH", 0x8100, taps[file]) + frame[12:])
                except BlockingIOError:
                    break


def receive(wire, files):
    frame, extra, _, address = wire.recvmsg(65535, 256, socket.MSG_DONTWAIT)
    for level, kind, data in extra:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and address[2] != PACKET_OUTGOING:
            # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid.
            status, _, _, _, _, tag, _ = struct.unpack_from("IIIHHHH", data)
            if status & TP_STATUS_VLAN_VALID and tag & 0xFFF in files:
                os.write(files[tag & 0xFFF], frame)


main()
