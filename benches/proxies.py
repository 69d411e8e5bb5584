"""Millrace and those that it is compared with, each on one CPU: how they are started, asked and stopped.

Starts and ends processes of its own. It measures nothing.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from sandbox import ADMIN, ROOT

GAUGES = ["flows", "timers", "sockets", "connections_open", "connections_half_open", "requests_active",
          "tcp_time_wait", "upstream_connections_open"]


class Proxy:
    """One of them: started, used for one measurement, stopped."""

    def __init__(self, sandbox, name, words):
        self.sandbox, self.name = sandbox, name
        self.log = open(f"{sandbox.dir}/{name}.log", "a")
        self.process = subprocess.Popen(sandbox.words("mr", words), stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        sandbox.script(f"sandbox_adopt {self.process.pid}")
        for _ in range(200):
            if sandbox.serves(self):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        sys.exit(f"{name} does not serve:\n" + pathlib.Path(self.log.name).read_text()[-3000:])

    def processes(self):
        """It and its workers."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def resident(self):
        """Resident memory of all its processes, in MiB."""
        total = 0
        for pid in self.processes():
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            total += int(re.search(r"VmRSS:\s+(\d+)", status)[1])
        return total / 1024

    def metrics(self, labelled=False):
        """Sums of Millrace's metrics, or each series; nothing for the others."""
        if self.name != "millrace":
            return {}
        words = self.sandbox.words("mr", ["taskset", "-c", self.sandbox.cpus["others"], "curl", "-s",
                                        "--max-time", "5", f"http://{ADMIN}/metrics"])
        sums = {}
        for line in subprocess.run(words, check=True, text=True, capture_output=True).stdout.splitlines():
            if not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                name = series if labelled else series.split("{")[0]
                sums[name] = sums.get(name, 0) + float(value)
        return sums

    def gauges(self):
        metrics = self.metrics()
        named = {name: int(metrics[f"millrace_{name}"]) for name in GAUGES if f"millrace_{name}" in metrics}
        named.update({name.removeprefix("millrace_"): int(value) for name, value in metrics.items()
                      if "mbuf" in name or "pool_in_use" in name})
        return named

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


# AF_PACKET's ring has 512 frames by default, which bursts of a kernel overflow.
RINGS = {"net_af_packet": ",framecnt=8192,blocksz=65536"}


class Programs:
    """Where the programs are: Millrace's, and others that may be missing."""

    def __init__(self, millrace, blast=None, envoy=None, pgo=False, flood=None, instructions=None):
        self.millrace, self.blast, self.envoy, self.pgo, self.flood = millrace, blast, envoy, pgo, flood
        self.instructions = instructions


def millrace(sandbox, programs, driver="net_af_packet", routes="", idle_timeout=None, idle=None):
    """Millrace on its two interfaces. `routes`: documents beside the one that takes everything."""
    sandbox.kernel_addresses("off")
    config = (ROOT / "scripts/lib/hello.yaml").read_text().replace("@CPU@", sandbox.cpus["proxy"])
    config = config.replace("10.9.2.3, weight: 2", "10.9.2.3")
    for port in ("mr-north", "mr-south"):
        config = config.replace(f"iface={port}", f"iface={port}{RINGS.get(driver, '')}")
    config = config.replace("net_af_packet", driver)
    if idle_timeout:
        config = config.replace("  admin: {", f"  upstream: {{ idleTimeout: {idle_timeout} }}\n  admin: {{", 1)
    if idle:
        config = config.replace("  admin: {", f"  idle: {idle}\n  admin: {{", 1)
    path = pathlib.Path(sandbox.dir, "millrace.yaml")
    path.write_text(config + routes)
    every = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return Proxy(sandbox, "millrace", ["taskset", "-c", every, programs.millrace, "run", "-f", path, "--state", f"{sandbox.dir}/state"])


def millrace_af_xdp(sandbox, programs):
    return millrace(sandbox, programs, "net_af_xdp")


def nginx(sandbox, _programs, routes=""):
    """`routes`: locations beside the one that takes everything."""
    sandbox.kernel_addresses("on")
    prefix = pathlib.Path(sandbox.dir, "nginx-proxy")
    (prefix / "temp").mkdir(parents=True, exist_ok=True)
    config = (ROOT / "benches/nginx-proxy.conf").read_text()
    (prefix / "nginx.conf").write_text(config.replace("        location / {", routes + "        location / {", 1))
    return Proxy(sandbox, "nginx", ["taskset", "-c", sandbox.cpus["proxy"], "nginx", "-p", prefix, "-e", "stderr", "-c",
                                    "nginx.conf"])


def haproxy(sandbox, _programs):
    sandbox.kernel_addresses("on")
    return Proxy(sandbox, "haproxy", ["taskset", "-c", sandbox.cpus["proxy"], "haproxy", "-db", "-f",
                                      ROOT / "benches/haproxy-proxy.cfg"])


def envoy(sandbox, programs):
    sandbox.kernel_addresses("on")
    return Proxy(sandbox, "envoy", ["taskset", "-c", sandbox.cpus["proxy"], programs.envoy, "-c",
                                    ROOT / "benches/envoy-proxy.yaml", "--concurrency", "1", "--disable-hot-restart",
                                    "--log-level", "error"])
