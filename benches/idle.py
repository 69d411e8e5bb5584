"""Connections that do nothing, held by processes on the client's side of a sandbox, and what they cost."""

import resource
import subprocess
import sys

HOLDER = """
import resource, socket, sys, time
count, source = int(sys.argv[1]), sys.argv[2]
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
for _ in range(count):
    s = socket.socket()
    s.bind((source, 0))
    s.settimeout(10)
    s.connect(("10.9.1.1", 80))
    held.append(s)
for s in held[::max(1, count // 100)]:
    s.sendall(b"GET /1k HTTP/1.1\\r\\nHost: idle\\r\\n\\r\\n")
    assert s.recv(65536).startswith(b"HTTP/1.1 200")
print("held", flush=True)
sys.stdin.read()
alive = 0
for s in held:
    s.setblocking(False)
    try:
        if s.recv(65536): alive += 1
    except BlockingIOError:
        alive += 1
print(alive, flush=True)
"""

# Processes that hold them, and so many descriptors that each process may have beside.
HOLDERS, SPARE = 4, 2_000


def possible(wanted, proxy):
    """As many of them as descriptors allow, here and at a proxy that needs one each; Millrace needs none."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE
    most = descriptors * HOLDERS if proxy.name == "millrace" else descriptors
    return min(wanted, most) // HOLDERS * HOLDERS


class Idle:
    """A `with` block during which `count` connections are open. Afterwards `still_open` says how many were until its end."""

    def __init__(self, sandbox, count):
        self.sandbox, self.count, self.still_open, self.holders = sandbox, count, 0, []

    def __enter__(self):
        for number in range(HOLDERS):
            words = ["taskset", "-c", self.sandbox.cpus["others"], sys.executable, "-c", HOLDER, self.count // HOLDERS,
                     f"10.9.1.{2 + number % 2}"]
            self.holders.append(subprocess.Popen(self.sandbox.words("client", words), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                 text=True))
        for holder in self.holders:
            if holder.stdout.readline().strip() != "held":
                self.__exit__()
                raise RuntimeError("the idle connections cannot be made")
        return self

    def __exit__(self, *_):
        for holder in self.holders:
            out, _ = holder.communicate("")
            self.still_open += int(out.strip() or 0)
