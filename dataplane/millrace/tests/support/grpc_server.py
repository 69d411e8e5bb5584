"""gRPC servers with the health service of grpcio-health-checking: one per port, which says of itself what a file says.

Usage: grpc_server.py FILE ADDRESS PORT…   Each line of FILE is `PORT SERVICE STATUS`, SERVICE being `-` for the server as a whole; it is read
again whenever it changes.
"""

import sys
import time
from concurrent import futures
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

path, address, *ports = sys.argv[1:]
services = {}
for port in ports:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services[port] = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(services[port], server)
    server.add_insecure_port(f"{address}:{port}")
    server.start()
    # Kept, or it would end.
    services[port].server = server

last = None
while True:
    text = Path(path).read_text()
    if text != last:
        last = text
        for line in text.splitlines():
            port, service, status = line.split()
            if port in services:
                name = "" if service == "-" else service
                services[port].set(name, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    time.sleep(0.02)
