"""From raw files to rows: what each run comes to, and the median, smallest and largest of the rounds.

Called by report.py. It knows the raw files, and nothing else.
"""

import json
import statistics

ORDER = ["keepalive-60B", "keepalive-1KiB", "keepalive-64KiB", "close-60B", "bulk-1MiB-down", "bulk-1MiB-up", "idle-100k",
         "latency-half-load", "loss-1pct", "routes-10k", "filters-60B", "swap-10k", "compile-100k", "flood-10k", "idle-naps", "idle-wakes",
         "hand-over", "cores-2", "reflect-64B", "limit-64B", "limit-1514B", "machine"]
NAMES = {"millrace": "Millrace", "nginx": "NGINX", "haproxy": "HAProxy", "envoy": "Envoy", "testpmd": "testpmd", "machine": "this machine"}
WIRES = ["vhost", "memory", "memif", "af_packet", "af_xdp", "veth", "veth-offload"]

# Above this share of its core, somebody is at its end.
AT_ITS_END = 0.95

BYTES_EACH, KEPT, OF_TEN = "B a connection", "% of the rate alone", "% of the rate with ten"
OF_CALM, OF_NOBODY = "% of the rate without a flood", "% of the rate beside the same frames to nobody"
OF_PLAIN = "% of the plain route's rate"
# Of the requests for which the generator did not have to wait for its CPU; and of all.
OF_QUIET, OF_QUIET_WAITING = "x the quiet p99", "x the quiet p99, the generator's waits included"
OF_ONE, OF_APART = "x the rate of one core", "x the rate of two that share nothing"
REACHED, FAILED, COMPILING = "ms to the last core", "failed requests", "s to compile 100,000 endpoints"
# Of these, less is better.
LESS = ("µs", "ns", BYTES_EACH, OF_QUIET, REACHED, FAILED, COMPILING)
QUANTILES = {"p50": "p50", "p99": "p99", "p99.9": "p999"}


def load(raw):
    """What is known about the run, and all results."""
    runs = []
    for path in sorted(raw.glob("*.json")):
        if path.name != "environment.json":
            runs.append(json.loads(path.read_text()))
    environment = raw / "environment.json"
    return json.loads(environment.read_text()) if environment.exists() else {}, runs


def less_is_better(unit):
    return unit.startswith(LESS)


def derive(runs):
    """The figures of all runs. Of most there is one for each run; of some workloads, a figure takes two runs of the same round, or a
    run has several."""
    figures, rounds = [], {}
    for run in runs:
        if run.get("part"):
            key = (run["workload"], run["system"], run["wire"], run["round"])
            rounds.setdefault(key, {})[run["part"]] = run
        else:
            figures.append(run)
    for (workload, *_), parts in rounds.items():
        figures += PARTED[workload](parts)
    return figures


def of_loss(parts):
    figures = [parts["bulk"]] if "bulk" in parts else []
    if "keepalive" in parts:
        figures.append({**parts["keepalive"], "unit": "µs p99", "value": parts["keepalive"]["latency_us"]["p99"]})
    return figures


def of_routes(parts):
    """The rates with many, and each over the rate with ten of its pair."""
    figures, pairs = [], {}
    for name, run in parts.items():
        # One pair alone has no number.
        count, _, *pair = name.split()
        pairs.setdefault(tuple(pair), {})[count] = run
    for pair in pairs.values():
        ten, many = pair.get("10"), pair.get("10000")
        figures += [many] if many else []
        if ten and many and ten["value"]:
            figures.append({**many, "unit": OF_TEN, "value": 100 * many["value"] / ten["value"],
                            "errors": ten["errors"] + many["errors"]})
    return figures


def of_policies(parts):
    plain, policies = parts.get("plain"), parts.get("policies")
    figures = [policies] if policies else []
    if plain and policies and plain["value"]:
        figures.append({**policies, "unit": OF_PLAIN, "value": 100 * policies["value"] / plain["value"],
                        "errors": plain["errors"] + policies["errors"]})
    return figures


def of_swaps(parts):
    """Each part with swaps over the quiet one beside it, and what the swaps' receipts say."""
    figures, pairs = [], {}
    for name, run in parts.items():
        kind, number = name.split()
        pairs.setdefault(number, {})[kind] = run
    both = [(pair["quiet"], pair["swaps"]) for pair in pairs.values() if len(pair) == 2]
    swapping = [pair["swaps"] for pair in pairs.values() if "swaps" in pair]
    times = [microseconds for run in swapping for microseconds in run["swaps"]["microseconds"]]
    if not times:
        return []
    compiling = statistics.median(time for run in swapping for time in run["swaps"]["compile_microseconds"]) / 1e3
    slow = [run.get("slow_turns", 0) for run in parts.values()]
    note = (f"{len(times)} swaps in a round, compiled in {compiling:.0f} ms each (median); of the core's turns "
            f"{max(slow):.0f} at most took more than a millisecond in one part")
    for unit, where in ((OF_QUIET, "undisturbed_us"), (OF_QUIET_WAITING, "latency_us")):
        ratios = [swaps[where]["p99"] / quiet[where]["p99"] for quiet, swaps in both if quiet[where]["p99"]]
        if ratios:
            figures.append({**both[-1][1], "unit": unit, "value": statistics.median(ratios), "note": note,
                            "errors": sum(run["errors"] for pair in both for run in pair)})
    figures.append({**swapping[-1], "unit": REACHED, "value": max(times) / 1e3, "note": note})
    figures.append({**swapping[-1], "unit": FAILED, "value": sum(run["errors"] for run in swapping), "errors": 0, "note": note})
    return figures


def of_idle(parts):
    alone, beside = parts.get("alone"), parts.get("beside")
    if not beside:
        return []
    memory = beside["memory"]
    each = (memory["after_bytes"] - memory["before_bytes"]) / memory["connections"]
    figures = [{**beside, "unit": BYTES_EACH, "value": each, "note": f"{memory['connections']:,} idle connections"}]
    if alone and alone["value"]:
        figures.append({**beside, "unit": KEPT, "value": 100 * beside["value"] / alone["value"], "note": figures[0]["note"],
                        "errors": alone["errors"] + beside["errors"]})
    return figures


def of_flood(parts):
    """The rate beside a flood, over that without, and over that beside frames which cost the sender and the wire as much; of each of the round's turns."""
    figures, turns = [], {}
    for name, run in parts.items():
        # One turn alone has no number.
        kind, _, turn = name.partition(" #")
        turns.setdefault(turn, {})[kind] = run
    for turn in turns.values():
        flood = turn.get("flood")
        for other, unit in (("no flood", OF_CALM), ("to nobody", OF_NOBODY)):
            if flood and turn.get(other, {}).get("value"):
                figures.append({**flood, "unit": unit, "value": 100 * flood["value"] / turn[other]["value"]})
    return figures


def of_latency(parts):
    """What the gateway adds: through it, less the same load between the same two ends without it."""
    direct, through = parts.get("direct"), parts.get("through")
    if not through:
        return []
    figures, through = [], {**through, "note": f"open loop, {through['value']:,.0f} requests/s"}
    for name, key in QUANTILES.items():
        value, below = through["latency_us"].get(key), (direct or {}).get("latency_us", {}).get(key)
        if value is not None and below is not None:
            figures.append({**through, "unit": f"µs {name} added", "value": value - below})
        elif value is not None:
            figures.append({**through, "unit": f"µs {name}, with the generator's own", "value": value})
    return figures


def of_each(parts):
    return list(parts.values())


def of_wakes(parts):
    """What a sleeping core adds to a request that finds it asleep."""
    polling, adaptive = parts.get("polling"), parts.get("adaptive")
    if not polling or not adaptive:
        return []
    return [{**adaptive, "unit": f"µs {name} added by sleep", "value": adaptive["latency_us"][name] - polling["latency_us"][name],
             "note": f"{adaptive['value']:,.0f} requests/s", "errors": polling["errors"] + adaptive["errors"]} for name in ("p50", "p99")]


PARTED = {"idle-naps": of_each, "cores-2": of_each, "machine": of_each, "idle-wakes": of_wakes, "flood-10k": of_flood, "loss-1pct": of_loss, "routes-10k": of_routes,
          "idle-100k": of_idle, "latency-half-load": of_latency, "filters-60B": of_policies, "swap-10k": of_swaps}


def summarize(runs):
    """One row for each workload, system, wire and unit."""
    groups = {}
    for figure in derive(runs):
        groups.setdefault((figure["workload"], figure["system"], figure["wire"], figure["unit"]), []).append(figure)
    rows = []
    for (workload, system, wire, unit), group in groups.items():
        values, by_round = [figure["value"] for figure in group], {}
        for figure in group:
            by_round.setdefault(figure["round"], []).append(figure["value"])
        row = {"workload": workload, "system": system, "wire": wire, "median": statistics.median(values), "min": min(values),
               "max": max(values), "unit": unit, "rounds": {number: statistics.median(each) for number, each in by_round.items()},
               "errors": sum(figure["errors"] for figure in group), "generator": group[0]["generator"],
               "note": group[0].get("note", "")}
        for key in ("gateway_busy", "gateway_cpu_busy", "load_busy", "softirqs_on_gateway"):
            row[key] = middle(figure.get(key) for figure in group)
        for key in ("p50", "p99", "p999"):
            row[key] = middle(figure["latency_us"].get(key) for figure in group)
        row["limited_by"] = limited_by(row)
        rows.append(row)
    # Of the same unit, the order in which the figures were derived stays.
    units = {unit: number for number, unit in enumerate(dict.fromkeys(row["unit"] for row in rows))}
    return sorted(rows, key=lambda row: (place(ORDER, row["workload"]), units[row["unit"]], place(list(NAMES), row["system"]),
                                         place(WIRES, row["wire"])))


def place(order, name):
    return order.index(name) if name in order else len(order)


def middle(values):
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def limited_by(row):
    """Who could not do more. A peer's share leaves out what the kernel does for it on its CPU, so that its CPU's counts too."""
    known = [value for value in (row["gateway_busy"], row["gateway_cpu_busy"]) if value is not None]
    gateway, load = max(known, default=None), row["load_busy"] or 0
    if row["generator"] == "testpmd" and gateway is not None and min(gateway, load) > AT_ITS_END:
        return "gateway, and generator"
    if row["generator"] != "wrk":
        # As blast itself says it.
        if load > AT_ITS_END and (gateway is None or gateway < load):
            return "generator"
        return "unknown" if gateway is None else "gateway" if gateway > AT_ITS_END else "neither"
    if gateway is not None and gateway > AT_ITS_END:
        return "gateway, and client and backends" if load > AT_ITS_END else "gateway"
    return "client and backends" if load > AT_ITS_END else "unknown" if gateway is None else "neither"


def label(row):
    return f"{NAMES.get(row['system'], row['system'])} ({row['wire']})"


def amount(value):
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def share(value):
    return "–" if value is None else f"{value * 100:.0f} %"


def ratios(row, other):
    """How many times better one is than the other: of the medians, and of each round that both have."""
    def better(value, than):
        value, than = (than, value) if less_is_better(row["unit"]) else (value, than)
        return value / than if than else None
    each = [better(value, other["rounds"][number]) for number, value in row["rounds"].items() if number in other["rounds"]]
    return better(row["median"], other["median"]), [ratio for ratio in each if ratio is not None]


def spread(ratio, each):
    if ratio is None:
        return "–"
    return f"{ratio:.2f}x ({min(each):.2f} … {max(each):.2f})" if each else f"{ratio:.2f}x"
