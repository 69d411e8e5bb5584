"""testpmd at both ends of each wire: the most frames that a core can take from it and give to it, when it does nothing else.

Two ports each; what comes in on one goes out on the other. A few hundred frames go round, so that no ring is ever full, as fast as
the slower of the two cores lets them. Makes and removes namespaces of its own, and ends what it started.
"""

import contextlib
import fcntl
import pathlib
import re
import subprocess
import tempfile
import time

SIZES = (64, 1514)
BURSTS = 8
HUGEPAGES = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
WANTED_PAGES = 450

# What is lost on a wire with checksums or segments that nobody worked out is of no interest here: testpmd looks at nothing.
KERNEL_WIRES = {"af_packet": "net_af_packet", "af_xdp": "net_af_xdp"}


class Testpmd:
    """One of them, with two ports, forwarding between them on `cpu`; its commands are taken on `console`'s CPU."""

    def __init__(self, folder, name, devices, eal, cpu, console, size, namespace=None, mode="io", more=()):
        self.log = pathlib.Path(folder, f"{name}.log")
        prefix = ["ip", "netns", "exec", namespace] if namespace else []
        words = [*prefix, "dpdk-testpmd", f"--lcores=0@{console},1@{cpu}", "-m", "256", "--no-pci", "--no-telemetry", *eal,
                 *(f"--vdev={device}" for device in devices), "--", "--interactive", "--nb-cores=1", "--total-num-mbufs=16384",
                 "--rxd=1024", "--txd=1024", f"--forward-mode={mode}", "--record-core-cycles", f"--txpkts={size}", *more]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(words, cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True)

    def say(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ready(self):
        """Waits until it takes commands."""
        for _ in range(200):
            if "testpmd>" in self.log.read_text():
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"testpmd does not start: {self.log.read_text()[-600:]}")

    def counted(self):
        """What it said of all its ports, the first time that it was asked; it writes it down for good only when it ends."""
        found = re.search(r"Accumulated forward statistics.*?RX-packets: (\d+).*?TX-packets: (\d+)\s+TX-dropped: (\d+)"
                          r".*?total cycles=(\d+).*?at (\d+) MHz", self.log.read_text(), re.S)
        if not found:
            raise RuntimeError(f"testpmd says no statistics: {self.log.read_text()[-600:]}")
        return dict(zip(("received", "sent", "dropped", "busy_cycles", "megahertz"), map(int, found.groups())))

    def stop(self):
        if self.process.poll() is None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self.process.communicate("stop\nquit\n", 10)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def measure(wire, cpus, size, seconds):
    """Frames that the testpmd on the proxy's CPU passed on, in both directions together, and how busy both were."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-limit-"))
        gateway_side, load_side = stack.enter_context(vhost() if wire == "vhost" else veth(KERNEL_WIRES[wire]))
        ends = []
        for name, side, cpu, console in (("gateway", gateway_side, cpus["proxy"], cpus["others"]),
                                         ("load", load_side, cpus["others"], cpus["proxy"])):
            ends.append(Testpmd(folder, name, side["devices"], side["eal"], cpu, console, size, side.get("namespace")))
            stack.callback(ends[-1].stop)
            if wire == "vhost":
                # The gateway's side listens, and waits at its start until the other one is there.
                waited = [time.sleep(0.05) for _ in range(100) if not pathlib.Path(folder, "north.sock").exists()]
                if len(waited) == 100:
                    raise RuntimeError(f"testpmd does not listen: {ends[-1].log.read_text()[-600:]}")
        gateway, load = ends
        for end in ends:
            end.ready()
        gateway.say("start")
        time.sleep(0.5)
        load.say(f"start tx_first {BURSTS}")
        time.sleep(0.5)
        for end in ends:
            end.say("clear fwd stats all")
        began = time.monotonic()
        time.sleep(seconds)
        for end in ends:
            end.say("show fwd stats all")
        lasted = time.monotonic() - began
        time.sleep(0.1)
        for end in ends:
            end.stop()
        passed, sent = gateway.counted(), load.counted()
    return {"seconds": lasted, "gateway": passed, "load": sent, "frames_per_second": passed["sent"] / lasted,
            "gateway_busy": busy(passed, lasted), "load_busy": busy(sent, lasted)}


def busy(end, seconds):
    """The share of its cycles in which there were frames."""
    return min(1.0, end["busy_cycles"] / (end["megahertz"] * 1e6 * seconds))


@contextlib.contextmanager
def vhost():
    with open("/tmp/mrp-hugepages.lock", "w") as lock:
        # Others that need hugepages wait, as in benches/blast/run-vhost.
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = int((HUGEPAGES / "nr_hugepages").read_text())
        free = int((HUGEPAGES / "free_hugepages").read_text())
        if free < WANTED_PAGES:
            (HUGEPAGES / "nr_hugepages").write_text(str(before + WANTED_PAGES))
        try:
            eal = ["--in-memory", "--single-file-segments"]
            yield ({"eal": eal, "devices": [f"net_virtio_user{n},path={side}.sock,server=1,queues=1,queue_size=1024"
                                            for n, side in enumerate(("north", "south"))]},
                   {"eal": eal, "devices": [f"net_vhost{n},iface={side}.sock,client=1,queues=1"
                                            for n, side in enumerate(("north", "south"))]})
        finally:
            if free < WANTED_PAGES:
                (HUGEPAGES / "nr_hugepages").write_text(str(before))


@contextlib.contextmanager
def veth(driver):
    """Two veth pairs between two namespaces, as the sandbox's: no offloads, and a kernel that looks at nothing."""
    id = pathlib.Path(tempfile.mktemp(prefix="millrace-limit-", dir="/")).name
    gateway, load = f"{id}-mr", f"{id}-load"
    run = lambda *words, **more: subprocess.run(words, check=True, text=True, capture_output=True, **more)
    try:
        run("ip", "netns", "add", gateway)
        run("ip", "netns", "add", load)
        for name in ("north", "south"):
            wire = ["mtu", "1500", "txqueuelen", "2000"]
            run("ip", "link", "add", name, "netns", gateway, *wire, "type", "veth", "peer", "name", name, *wire, "netns", load)
        for namespace in (gateway, load):
            inside = ["ip", "netns", "exec", namespace]
            for name in ("north", "south"):
                off = [word for offload in ("tx", "rx", "tso", "gso", "gro", "sg") for word in (offload, "off")]
                run(*inside, "ethtool", "-K", name, *off)
                run(*inside, "sh", "-c", f"f=/proc/sys/net/ipv6/conf/{name}/disable_ipv6; [ ! -e $f ] || echo 1 >$f")
                run("ip", "-n", namespace, "link", "set", name, "arp", "off", "up")
            chains = "".join(f'chain {name} {{ type filter hook ingress device "{name}" priority 0; policy drop; }}\n'
                             for name in ("north", "south"))
            run(*inside, "nft", "-f", "-", input=f"table netdev bypass {{\n{chains}}}\n")
        yield tuple({"namespace": namespace, "eal": ["--no-huge", "--iova-mode=va", f"--file-prefix={namespace}"],
                     "devices": [f"{driver}{n},iface={name}" for n, name in enumerate(("north", "south"))]}
                    for namespace in (gateway, load))
    finally:
        for namespace in (gateway, load):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
