"""The virtual wires of scripts/lib/topology.sh, the proxies on them, and wrk: what compare and rounds measure with.

Makes and removes namespaces, and starts and ends processes, all of its own. It measures nothing by itself.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
VIP = "10.9.1.1"
ADMIN = "127.0.0.1:9901"
GAUGES = ["flows", "timers", "sockets", "connections_open", "connections_half_open", "requests_active",
          "tcp_time_wait", "upstream_connections_open"]


class Sandbox:
    """The namespaces of scripts/lib/topology.sh, with both nginx backends running."""

    def __init__(self, cpus):
        self.cpus, self.kernel = cpus, "off"
        out = self.script(f'sandbox_up {os.getpid()} && echo "$SANDBOX $SANDBOX_DIR"')
        self.id, self.dir = out.split()
        self.script(f"CPU={cpus['others']}; nginx_backend $NS_B1 b1 10.9.2.2; nginx_backend $NS_B2 b2 10.9.2.3")

    def script(self, commands):
        load = f"sandbox_load {self.id};" if hasattr(self, "id") else ""
        source = "source scripts/lib/common.sh; source scripts/lib/topology.sh;"
        run = subprocess.run(["bash", "-c", f"set -u; {source} {load} {commands}"], cwd=ROOT, check=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        return run.stdout

    def words(self, namespace, words):
        return ["ip", "netns", "exec", f"{self.id}-{namespace}", *map(str, words)]

    def kernel_addresses(self, state):
        """Who has the proxy's addresses: the kernel (`on`), or whoever reads the frames (`off`)."""
        if state != self.kernel:
            self.script(f"sandbox_kernel_addresses {state}")
            self.kernel = state

    def client(self, *words, **options):
        """Runs a command in the client's namespace, on the CPU that client and backends share."""
        words = self.words("client", ["taskset", "-c", self.cpus["others"], *words])
        return subprocess.run(words, check=True, text=True, capture_output=True, **options).stdout

    def down(self):
        self.script("sandbox_down")


class Proxy:
    """One of them: started, used for one measurement, stopped."""

    def __init__(self, sandbox, name, words):
        self.sandbox, self.name = sandbox, name
        self.log = open(f"{sandbox.dir}/{name}.log", "a")
        self.process = subprocess.Popen(sandbox.words("mr", words), stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        sandbox.script(f"sandbox_adopt {self.process.pid}")
        for _ in range(200):
            ready = subprocess.run(sandbox.words("client", ["curl", "-s", "-o", "/dev/null", "--fail", "--max-time",
                                                            "1", f"http://{VIP}/1k"]))
            if ready.returncode == 0:
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

    def metrics(self):
        """Sums of Millrace's metrics; nothing for the others."""
        if self.name != "millrace":
            return {}
        words = self.sandbox.words("mr", ["taskset", "-c", self.sandbox.cpus["others"], "curl", "-s",
                                        "--max-time", "5", f"http://{ADMIN}/metrics"])
        sums = {}
        for line in subprocess.run(words, check=True, text=True, capture_output=True).stdout.splitlines():
            if not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                name = series.split("{")[0]
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


def millrace(sandbox, binary):
    sandbox.kernel_addresses("off")
    config = (ROOT / "scripts/lib/hello.yaml").read_text().replace("@CPU@", sandbox.cpus["proxy"])
    # The connections that wait for a request go after a second, so that the counts can be back at their start.
    config = config.replace('  admin: {', '  upstream: { idleTimeout: 1s }\n  admin: {', 1)
    config = config.replace("10.9.2.3, weight: 2", "10.9.2.3")
    path = pathlib.Path(sandbox.dir, "millrace.yaml")
    path.write_text(config)
    every = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return Proxy(sandbox, "millrace", ["taskset", "-c", every, binary, "run", "-f", path])


def nginx(sandbox, _binary):
    sandbox.kernel_addresses("on")
    prefix = pathlib.Path(sandbox.dir, "nginx-proxy")
    (prefix / "temp").mkdir(parents=True, exist_ok=True)
    (prefix / "nginx.conf").write_text((ROOT / "benches/nginx-proxy.conf").read_text())
    return Proxy(sandbox, "nginx", ["taskset", "-c", sandbox.cpus["proxy"], "nginx", "-p", prefix, "-e", "stderr", "-c",
                                    "nginx.conf"])


def haproxy(sandbox, _binary):
    sandbox.kernel_addresses("on")
    return Proxy(sandbox, "haproxy", ["taskset", "-c", sandbox.cpus["proxy"], "haproxy", "-db", "-f",
                                      ROOT / "benches/haproxy-proxy.cfg"])


def wrk(sandbox, connections, seconds, path="/1k", close=False):
    """A closed loop of GETs from the client's namespace."""
    return wrk_result(sandbox.client(*wrk_words(connections, seconds, path, close)))


def wrk_words(connections, seconds, path, close):
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if close:
        words += ["-H", "Connection: close"]
    return [*words, f"http://{VIP}{path}"]


def wrk_result(out):
    errors = 0
    for line in out.splitlines():
        if "Socket errors" in line or "Non-2xx" in line:
            errors += sum(map(int, re.findall(r"\d+", line.split(":", 1)[1])))
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    quantile = lambda q: (lambda m: float(m[1]) * scale[m[2]])(re.search(rf"^\s+{q}%\s+([\d.]+)(us|ms|s)", out, re.M))
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), "errors": errors,
            "requests": int(re.search(r"(\d+) requests in", out)[1]), "p50_ms": quantile(50), "p99_ms": quantile(99)}
