"""wrk on the client's side of a sandbox, or blast at both far ends, and what the CPUs did while they were at work."""

import json
import os
import pathlib
import re
import subprocess
import time

from sandbox import ROOT, VIP


# Bytes under way on a port, at most, and how far the window of 64 KiB is shifted that each connection offers: what rings hold.
IN_FLIGHT, WINDOW_SCALE = 200_000, 1


class Load:
    """What wrk is asked to do: a closed loop of `connections`, each for a `path` that it keeps asking for."""

    def __init__(self, connections, path, close=False, script=None):
        self.connections, self.path, self.close, self.script = connections, path, close, script

    def words(self, seconds):
        words = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
        if self.close:
            words += ["-H", "Connection: close"]
        if self.script:
            words += ["-s", ROOT / "benches" / self.script]
        return [*words, f"http://{VIP}{self.path}"]


def wrk(sandbox, connections, seconds, path="/1k", close=False):
    """A closed loop of GETs from the client's namespace."""
    return wrk_result(sandbox.client(*Load(connections, path, close).words(seconds)))


def wrk_between(sandbox, proxy, seconds, load):
    """wrk, and what the CPUs did while it was at work."""
    # wrk's own start and end are kept out of the busy shares.
    margin = min(0.4, seconds / 8)
    words = sandbox.words("client", ["taskset", "-c", sandbox.cpus["others"], *load.words(seconds)])
    running = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(margin)
        before = sample(sandbox, proxy)
        time.sleep(seconds - 2 * margin)
        after = sample(sandbox, proxy)
        out, _ = running.communicate(timeout=30)
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()
    if running.returncode != 0:
        raise RuntimeError(f"wrk ended with {running.returncode}: {out}")
    return wrk_result(out), before, after


def blast_words(sandbox, programs, words):
    """blast at both far ends."""
    return sandbox.words("client", [
        "taskset", "-c", sandbox.cpus["others"], programs.blast, *words.split(), "--core", sandbox.cpus["others"], "--ordinary-pages",
        "--in-flight", IN_FLIGHT, "--window-scale", WINDOW_SCALE, "--json", "-",
        "--north", f"net_af_xdp0,iface={sandbox.NORTH}", "--south", f"net_af_xdp1,iface={sandbox.SOUTH}"])


def blast_alone(sandbox, programs, words, parts):
    """blast at both far ends, which runs so many parts. Wrong replies are in its result."""
    run = subprocess.run(blast_words(sandbox, programs, words), stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=60 + 30 * parts)
    if not run.stdout.strip().startswith("{"):
        raise RuntimeError(f"blast ended with {run.returncode}: {(run.stdout + run.stderr)[-600:]}")
    return json.loads(run.stdout)


def most_of(seconds):
    time.sleep(seconds * 0.85)


def blast_between(sandbox, proxy, programs, words, seconds, warm_up, meanwhile=most_of):
    """blast at both far ends, and what the CPUs did while it measured. Wrong replies are in its result. `meanwhile` is called with the seconds when it begins
    to measure, and takes nearly as long."""
    everything = blast_words(sandbox, programs, f"{words} --duration {seconds} --warm-up {warm_up}")
    with open(f"{sandbox.dir}/blast.log", "w+") as log:
        running = subprocess.Popen(everything, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE,
                                   text=True)
        try:
            said = []
            # It says when it begins to measure.
            for line in running.stderr:
                said.append(line)
                if line.strip() == "measuring":
                    break
            else:
                raise RuntimeError(f"blast ended with {running.wait()}: {''.join(said)[-600:]}")
            before = sample(sandbox, proxy)
            meanwhile(seconds)
            after = sample(sandbox, proxy)
            _, error = running.communicate(timeout=60)
        finally:
            if running.poll() is None:
                running.kill()
                running.wait()
        log.seek(0)
        out = log.read()
    if not out.strip().startswith("{"):
        raise RuntimeError(f"blast ended with {running.returncode}: {(out + error)[-600:]}")
    return json.loads(out), before, after


def wrk_result(out):
    errors = 0
    for line in out.splitlines():
        if "Socket errors" in line or "Non-2xx" in line:
            errors += sum(map(int, re.findall(r"\d+", line.split(":", 1)[1])))
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    quantile = lambda q: (lambda m: float(m[1]) * scale[m[2]])(re.search(rf"^\s+{q}%\s+([\d.]+)(us|ms|s)", out, re.M))
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), "errors": errors,
            "requests": int(re.search(r"(\d+) requests in", out)[1]), "p50_ms": quantile(50), "p99_ms": quantile(99)}


def sample(sandbox, proxy):
    """Clocks of the proxy's processes and of both CPUs, in seconds, and the CPUs' received packets (NET_RX softirqs); of Millrace
    what it says itself."""
    metrics = proxy.metrics()
    ticks = os.sysconf("SC_CLK_TCK")
    process = 0
    for pid in proxy.processes():
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        process += int(fields[11]) + int(fields[12])
    cpus = {}
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        found = re.match(r"cpu(\d+) (.*)", line)
        if found:
            # user nice system idle iowait irq softirq steal; guest time is in user already.
            spent = [int(word) / ticks for word in found[2].split()[:8]]
            cpus[found[1]] = {"idle": spent[3] + spent[4], "stolen": spent[7], "total": sum(spent)}
    for cpu, count in softirqs("NET_RX").items():
        if cpu in cpus:
            cpus[cpu]["net_rx"] = count
    return {"clock": time.monotonic(), "process": process / ticks, "proxy_cpu": cpus[sandbox.cpus["proxy"]],
            "others_cpu": cpus[sandbox.cpus["others"]],
            "core": {name: metrics.get(f"millrace_core_{name}nanoseconds_total", 0) / 1e9 for name in ("busy_", "")}}


def softirqs(kind):
    """How many of them each CPU has run since the machine started."""
    head, *rest = pathlib.Path("/proc/softirqs").read_text().splitlines()
    cpus = [name.removeprefix("CPU") for name in head.split()]
    counts = next((line.split()[1:] for line in rest if line.split()[0] == f"{kind}:"), [])
    return dict(zip(cpus, map(int, counts)))


def shares(before, after):
    """Busy shares between two samples: the gateway's own, its whole CPU's (with the kernel's work for it), and the other CPU's; and
    the share of received packets that the kernel took on the gateway's CPU."""
    def cpu(name):
        total = after[name]["total"] - before[name]["total"]
        return 1 - (after[name]["idle"] - before[name]["idle"]) / total if total > 0 else None
    received = {name: after[name].get("net_rx", 0) - before[name].get("net_rx", 0) for name in ("proxy_cpu", "others_cpu")}
    both = sum(received.values())
    common = {"load_busy": cpu("others_cpu"), "softirqs_on_gateway": received["proxy_cpu"] / both if both > 0 else None}
    turned = after["core"][""] - before["core"][""]
    if turned > 0:
        # It polls: its CPU is always busy, and only its own word says whether there was something to do.
        return {"gateway_busy": (after["core"]["busy_"] - before["core"]["busy_"]) / turned, "gateway_cpu_busy": None, **common}
    return {"gateway_busy": (after["process"] - before["process"]) / (after["clock"] - before["clock"]),
            "gateway_cpu_busy": cpu("proxy_cpu"), **common}
