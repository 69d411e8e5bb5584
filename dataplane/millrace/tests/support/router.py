"""A router that says so, once a second: python3 router.py DEVICE

No more than a router advertisement (RFC 4861 4.2) to all nodes, from the device's link-local address.
"""

import socket
import struct
import sys
import time

ROUTER_ADVERTISEMENT = 134
LIFETIME = 60

wire = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
index = socket.if_nametoindex(sys.argv[1])
wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
while True:
    wire.sendto(struct.pack(">BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, LIFETIME, 0, 0), ("ff02::1", 0, 0, index))
    time.sleep(1)
