"""The rounds behind the report: every system on every wire, one after another, as often as asked; one raw file a run.

Called by compare with --out. It starts and stops proxies and generators, and never computes what a reader sees: report.py does
so, from the files alone.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from sandbox import ROOT, haproxy, millrace, nginx, wrk, wrk_result, wrk_words

# The same number of connections on every wire. `blast`: what benches/blast is given; `wrk`: the path, and whether a connection is
# for one request; both: the connections. wrk has no bulk that could be compared with blast's, and no page of 64 KiB.
WORKLOADS = {
    "keepalive-60B": {"connections": 64, "blast": "keepalive", "wrk": ("/", False)},
    "keepalive-1KiB": {"connections": 64, "blast": "keepalive --body 1KiB", "wrk": ("/1k", False)},
    "keepalive-64KiB": {"connections": 64, "blast": "keepalive --body 64KiB"},
    "close-60B": {"connections": 64, "blast": "close", "wrk": ("/", True)},
    "bulk-1MiB-down": {"connections": 8, "blast": "bulk-down"},
    "bulk-1MiB-up": {"connections": 8, "blast": "bulk-up"},
}
UNITS = {"close-60B": "connections/s", "bulk-1MiB-down": "Gbit/s", "bulk-1MiB-up": "Gbit/s"}
RATES = {"bulk-1MiB-down": "reply_gigabits_per_second", "bulk-1MiB-up": "request_gigabits_per_second"}
BACKEND_ERRORS = ["malformed", "corrupt", "truncated", "pipelined"]

# Those that share the veth; Millrace takes frames from it by af_packet, the others by the kernel's sockets.
SYSTEMS = {"millrace": ("af_packet", millrace), "nginx": ("veth", nginx), "haproxy": ("veth", haproxy)}

# Seconds of wrk that its own start and end are kept out of the busy shares, on either side.
MARGIN = 0.4


class Plan:
    """How often and how long."""

    def __init__(self, quick):
        self.quick = quick
        self.rounds = 3 if quick else 5
        self.seconds, self.warm_up = (2, 1) if quick else (10, 2)


def measure(folder, plan, sandbox, binary, blast):
    """All rounds, into DIR/raw. Returns what went wrong, a line each; the rest was measured nevertheless."""
    raw = pathlib.Path(folder, "raw")
    raw.mkdir(parents=True, exist_ok=True)
    for stale in raw.glob("*.json"):
        stale.unlink()
    environment = {"versions": versions(binary, blast), "settings": settings(plan, sandbox.cpus), "problems": [],
                   "busy_before": [], "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    store(raw / "environment.json", environment)
    problems = environment["problems"]
    systems = list(SYSTEMS)
    for number in range(1, plan.rounds + 1):
        environment["busy_before"].append(busy_by_others())
        # Interleaved, and another one goes first each time, so that what changes on the host in the meantime meets all.
        first = (number - 1) % len(systems)
        for system in systems[first:] + systems[:first]:
            attempt(problems, f"round {number}, {system} on {SYSTEMS[system][0]}",
                    lambda: on_veth(raw, plan, number, sandbox, system, binary))
        attempt(problems, f"round {number}, millrace on vhost", lambda: on_vhost(raw, plan, number, binary, blast))
        # What is there when somebody stops it here is a report, too.
        store(raw / "environment.json", environment)
    return problems


def busy_by_others():
    """The share of all CPUs that is taken while nothing of ours runs."""
    def clocks():
        spent = [int(word) for word in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return spent[3] + spent[4], sum(spent)
    idle, total = clocks()
    time.sleep(1)
    later_idle, later_total = clocks()
    return 1 - (later_idle - idle) / max(1, later_total - total)


def attempt(problems, what, run):
    print(f"{what} …", file=sys.stderr)
    try:
        run()
    except (subprocess.SubprocessError, RuntimeError, OSError, ValueError, KeyError, TypeError, SystemExit) as error:
        # A number is somebody's wish to end; words are a proxy's that does not start.
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            raise
        problems.append(f"{what}: {str(error)[-600:]} {(getattr(error, 'stderr', '') or '')[-600:]}".strip())
        print(problems[-1], file=sys.stderr)


def on_veth(raw, plan, number, sandbox, system, binary):
    """One system with wrk, every workload that wrk can do."""
    wire, start = SYSTEMS[system]
    proxy = start(sandbox, binary)
    try:
        for workload, what in WORKLOADS.items():
            if "wrk" not in what:
                continue
            path, close = what["wrk"]
            wrk(sandbox, what["connections"], plan.warm_up, path, close)
            result, before, after = wrk_between(sandbox, proxy, plan.seconds, what["connections"], path, close)
            store(raw / f"{number:02}-{workload}-{system}-{wire}.json", {
                "workload": workload, "system": system, "wire": wire, "round": number, "unit": UNITS.get(workload, "requests/s"),
                "value": result["rate"], "errors": result["errors"], "latency_us": {"p50": result["p50_ms"] * 1e3,
                "p99": result["p99_ms"] * 1e3}, **shares(before, after), "generator": "wrk", "wrk": result, "before": before,
                "after": after})
    finally:
        proxy.stop()


def wrk_between(sandbox, proxy, seconds, connections, path, close):
    """wrk, and what the CPUs did while it was at work."""
    words = ["taskset", "-c", sandbox.cpus["others"], *wrk_words(connections, seconds, path, close)]
    running = subprocess.Popen(sandbox.words("client", words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(MARGIN)
        before = sample(sandbox, proxy)
        time.sleep(seconds - 2 * MARGIN)
        after = sample(sandbox, proxy)
        out, _ = running.communicate(timeout=30)
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()
    if running.returncode != 0:
        raise RuntimeError(f"wrk ended with {running.returncode}: {out}")
    return wrk_result(out), before, after


def sample(sandbox, proxy):
    """Clocks of the proxy's processes and of both CPUs, in seconds; of Millrace what it says itself."""
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
            cpus[found[1]] = {"idle": spent[3] + spent[4], "total": sum(spent)}
    return {"clock": time.monotonic(), "process": process / ticks, "proxy_cpu": cpus[sandbox.cpus["proxy"]],
            "others_cpu": cpus[sandbox.cpus["others"]],
            "core": {name: metrics.get(f"millrace_core_{name}nanoseconds_total", 0) / 1e9 for name in ("busy_", "")}}


def shares(before, after):
    """Busy shares between two samples: the gateway's own, its whole CPU's (with the kernel's work for it), and the other CPU's."""
    def cpu(name):
        total = after[name]["total"] - before[name]["total"]
        return 1 - (after[name]["idle"] - before[name]["idle"]) / total if total > 0 else None
    turned = after["core"][""] - before["core"][""]
    if turned > 0:
        # It polls: its CPU is always busy, and only its own word says whether there was something to do.
        return {"gateway_busy": (after["core"]["busy_"] - before["core"]["busy_"]) / turned, "gateway_cpu_busy": None,
                "load_busy": cpu("others_cpu")}
    return {"gateway_busy": (after["process"] - before["process"]) / (after["clock"] - before["clock"]),
            "gateway_cpu_busy": cpu("proxy_cpu"), "load_busy": cpu("others_cpu")}


def on_vhost(raw, plan, number, binary, blast):
    """Millrace alone with benches/blast: every workload, one after the other, against one process."""
    lines = [f"{what['blast']} -c {what['connections']} --duration {plan.seconds} --warm-up {plan.warm_up}"
             for what in WORKLOADS.values()]
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as out:
        said, code = run_vhost([binary, blast, out], "\n".join(lines) + "\n",
                               120 + len(lines) * (plan.seconds + plan.warm_up + 30))
        absent = []
        for index, workload in enumerate(WORKLOADS, 1):
            file = pathlib.Path(out, f"{index}.json")
            if not file.exists():
                absent.append(workload)
                continue
            result = json.loads(file.read_text())
            latency = result["latency_microseconds"]
            store(raw / f"{number:02}-{workload}-millrace-vhost.json", {
                "workload": workload, "system": "millrace", "wire": "vhost", "round": number,
                "unit": UNITS.get(workload, "requests/s"), "value": result[RATES.get(workload, "requests_per_second")],
                "errors": result["errors"] + sum(result["backends"].get(kind, 0) for kind in BACKEND_ERRORS),
                "latency_us": {key: latency[key] for key in ("p50", "p99", "p999")},
                "gateway_busy": result["gateway_busy"], "gateway_cpu_busy": None, "load_busy": result["generator_busy"],
                "generator": "blast", "blast": result})
    if code == 1 and not absent:
        raise RuntimeError("not every reply was right, or the backends saw something wrong; the raw results say what")
    if absent:
        raise RuntimeError(f"no result of {', '.join(absent)} (exit code {code}): {said.strip('# ' + chr(10))}")


def run_vhost(words, lines, timeout):
    """What it said last, and its exit code. It must end by itself: it ends Millrace and gives the hugepages back."""
    running = subprocess.Popen([ROOT / "benches/blast/run-vhost", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        out, error = running.communicate(lines, timeout)
    except BaseException:
        running.terminate()
        running.wait()
        raise
    return error.strip() or out.strip(), running.returncode


def versions(binary, blast):
    def first(*words):
        run = subprocess.run(words, text=True, capture_output=True)
        return ((run.stdout + run.stderr).strip().splitlines() or ["unknown"])[0]
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {"Millrace": first(binary, "version"), "blast": first(blast, "--version"), "NGINX": first("nginx", "-v"),
            "HAProxy": first("haproxy", "-v"), "wrk": first("wrk", "-v"), "DPDK": first("pkg-config", "--modversion", "libdpdk"),
            "host": f"Linux {os.uname().release}, {os.cpu_count()} CPUs, {model[1] if model else os.uname().machine}"}


def settings(plan, cpus):
    connections = ", ".join(f"{name} {what['connections']}" for name, what in WORKLOADS.items())
    return {
        "rounds": f"{plan.rounds}, interleaved; {plan.seconds} s each after {plan.warm_up} s of warming up"
                  + (" (--quick: a look, not a measurement)" if plan.quick else ""),
        "connections": f"closed loop; {connections}",
        "af_packet and veth":
            f"the proxy (Millrace's polling core, NGINX's worker, HAProxy's thread) on CPU {cpus['proxy']}; wrk, one thread, and "
            f"both backends, on CPU {cpus['others']}; MTU 1500, no offloads, RPS off, so that the kernel's work for a frame is done "
            "by the CPU that sends it",
        "vhost": "Millrace's net_virtio_user on CPU 1, blast's net_vhost (clients and backends) on CPU 0; hugepages of 2 MiB, rings "
                 "of 1024, offloads as the raw results have them (north.offloads, south.offloads: blast's side)",
        "60 B": "blast's replies are 60 bytes; the backends of the veth answer / with about 50 bytes of text",
        "configurations": "scripts/lib/hello.yaml, benches/blast/vhost.yaml, benches/nginx-proxy.conf, benches/haproxy-proxy.cfg",
    }


def store(path, what):
    path.write_text(json.dumps(what, indent=1) + "\n")
