#!/usr/bin/env python3
"""The report: report.json, report.md and an SVG plot a workload, computed from nothing but the files in DIR/raw.

    benches/report.py DIR          computes it again

Called by compare with --out, after rounds.py has written DIR/raw. It measures nothing and asks the machine nothing.
"""

import html
import json
import pathlib
import statistics
import sys

ORDER = ["keepalive-60B", "keepalive-1KiB", "keepalive-64KiB", "close-60B", "bulk-1MiB-down", "bulk-1MiB-up"]
NAMES = {"millrace": "Millrace", "nginx": "NGINX", "haproxy": "HAProxy"}

# What others may take of the CPUs: above this share, a warning.
QUIET = 0.05

# The keys of a row in report.json.
PUBLIC = ["workload", "system", "wire", "median", "min", "max", "unit", "gateway_busy", "limited_by"]

# What is wanted of Millrace: at least so many times the rates of these peers, or so much in the workload's unit.
TARGETS = {
    ("keepalive-60B", "vhost"): (8, ("nginx", "haproxy")),
    ("keepalive-1KiB", "vhost"): (8, ("nginx", "haproxy")),
    ("keepalive-60B", "af_packet"): (1.5, ("nginx", "haproxy")),
    ("close-60B", "vhost"): (5, ("nginx",)),
    ("bulk-1MiB-down", "vhost"): (20, ()),
    ("bulk-1MiB-up", "vhost"): (20, ()),
}

# Targets for which nothing is measured: workload, wire, target.
NOT_SHOWN = [
    ("keepalive-60B, keepalive-1KiB", "vhost", "≥ 30x Envoy"),
    ("keepalive-60B", "af_packet", "≥ 6x Envoy"),
    ("bulk-1MiB-down, bulk-1MiB-up", "vhost", "≥ 1.5x the best peer"),
    ("latency-half-load", "vhost", "p50 ≤ 10 µs, p99 ≤ 30 µs, p99.9 ≤ 100 µs"),
    ("idle-100k", "vhost", "≤ 10 KiB each; a busy one keeps ≥ 90 %"),
    ("loss-1pct", "", "at least the Linux stack's"),
    ("routes-10k", "vhost", "≥ 90 % of the rate with ten"),
]

# Above this share of its core, somebody is at its end.
AT_ITS_END = 0.95

HOW_TO_READ = (
    "`gateway` is the share of its core that the gateway was busy: of Millrace, by its own count, turns in which there was something "
    "to do; of the others, time of their process. `its CPU` is all that was not idle there, with the kernel's work outside the "
    "process (Millrace polls: always all). `load's CPU` is the generator's: blast's own count, or the CPU of wrk and both backends. "
    "Above 95 % of it, somebody is at its end, which is what `limited by` says. wrk does not know p99.9; latencies of a closed loop "
    "hide what waits, and wrk's compare with each other but not with blast's."
)

NOT_MEASURED = [
    "Envoy: it is left out, so nothing here says anything about it.",
    "AF_XDP: Millrace is measured on af_packet and vhost alone.",
    "The peers on workloads for which the report shows none: wrk has no bulk that compares with blast's. NGINX and HAProxy "
    "cannot use vhost; their figures beside it are those of the veth, where a packet costs them the kernel's work.",
    "testpmd as the physical limit of each wire; `idle-100k`, `latency-half-load`, `loss-1pct`, `routes-10k`.",
]


def write(folder):
    """Writes all of it, and returns a line for each workload."""
    folder = pathlib.Path(folder)
    environment, runs = load(folder / "raw")
    rows = summarize(runs)
    public = [{key: row[key] for key in PUBLIC} for row in rows]
    (folder / "report.json").write_text(json.dumps({"rows": public}, indent=1) + "\n")
    for workload in workloads(rows):
        (folder / f"{workload}.svg").write_text(plot(workload, of(rows, workload)))
    (folder / "report.md").write_text(markdown(environment, rows))
    return "\n".join([*(f"{row['workload']:16} {label(row):22} {amount(row['median']):>10} {row['unit']:14} "
                        f"gateway busy {share(row['gateway_busy']):>5}, limited by: {row['limited_by']}" for row in rows),
                      f"report: {folder / 'report.md'}"])


def load(raw):
    """What is known about the run, and all results."""
    runs = []
    for path in sorted(raw.glob("*.json")):
        if path.name != "environment.json":
            runs.append(json.loads(path.read_text()))
    environment = raw / "environment.json"
    return json.loads(environment.read_text()) if environment.exists() else {}, runs


def summarize(runs):
    """One row for each workload, system and wire."""
    groups = {}
    for run in runs:
        groups.setdefault((run["workload"], run["system"], run["wire"]), []).append(run)
    rows = []
    for (workload, system, wire), group in groups.items():
        values = [run["value"] for run in group]
        row = {"workload": workload, "system": system, "wire": wire, "median": statistics.median(values), "min": min(values),
               "max": max(values), "unit": group[0]["unit"], "rounds": {run["round"]: run["value"] for run in group},
               "errors": sum(run["errors"] for run in group), "generator": group[0]["generator"]}
        for key in ("gateway_busy", "gateway_cpu_busy", "load_busy"):
            row[key] = middle(run[key] for run in group)
        for key in ("p50", "p99", "p999"):
            row[key] = middle(run["latency_us"].get(key) for run in group)
        row["limited_by"] = limited_by(row)
        rows.append(row)
    place = {name: number for number, name in enumerate(ORDER)}
    systems = {name: number for number, name in enumerate(NAMES)}
    return sorted(rows, key=lambda row: (place.get(row["workload"], 99), systems.get(row["system"], 99), row["wire"] != "vhost"))


def middle(values):
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def limited_by(row):
    """Who could not do more. A peer's share leaves out what the kernel does for it on its CPU, so that its CPU's counts too."""
    known = [value for value in (row["gateway_busy"], row["gateway_cpu_busy"]) if value is not None]
    gateway, load = max(known, default=None), row["load_busy"] or 0
    if row["generator"] == "blast":
        # As blast itself says it.
        if load > AT_ITS_END and (gateway is None or gateway < load):
            return "generator"
        return "unknown" if gateway is None else "gateway" if gateway > AT_ITS_END else "neither"
    if gateway is not None and gateway > AT_ITS_END:
        return "gateway, and client and backends" if load > AT_ITS_END else "gateway"
    return "client and backends" if load > AT_ITS_END else "unknown" if gateway is None else "neither"


def workloads(rows):
    return list(dict.fromkeys(row["workload"] for row in rows))


def of(rows, workload):
    return [row for row in rows if row["workload"] == workload]


def peers(rows, workload):
    return [row for row in of(rows, workload) if row["system"] != "millrace"]


def ratios(row, peer):
    """Of the medians, and of each round that both have."""
    each = [value / peer["rounds"][number] for number, value in row["rounds"].items() if peer["rounds"].get(number)]
    return row["median"] / peer["median"] if peer["median"] else None, each


def markdown(environment, rows):
    lines = ["# Millrace side by side", "",
             f"Begun {environment.get('began', 'unknown')}. Only ratios within this run mean anything; benches/README.md says how "
             "to read it. Everything here is computed from the files in `raw`.", ""]
    for problem in environment.get("problems", []):
        lines += [f"**FAILED:** {' '.join(problem.split())}", ""]
    others = max(environment.get("busy_before", []), default=0)
    if others > QUIET:
        lines += [f"**NOT QUIET:** before a round, with nothing of this run at work, the CPUs were {share(others)} busy with something "
                  "else. These figures are disturbed; repeat them.", ""]
    for row in (row for row in rows if row["errors"]):
        lines += [f"**ERRORS:** {label(row)}, {row['workload']}: {row['errors']} wrong or missing replies; its rate means little.", ""]
    lines += ["## Millrace beside the best peer", "",
              "The ratio is that of the medians; in parentheses, the smallest and the largest of the rounds.", "",
              "| workload | Millrace's wire | Millrace | best peer | ratio | | limited by |", "|---|---|--:|---|--:|---|---|",
              *beside(rows), "",
              "## Targets", "", "| workload | wire | target | reached | |", "|---|---|---|--:|---|", *targets(rows), ""]
    for workload in workloads(rows):
        lines += [f"## {workload}", "", f"![{workload}]({workload}.svg)", "", *table(of(rows, workload)), ""]
    lines += [HOW_TO_READ, ""]
    for title, key in (("Versions", "versions"), ("Settings", "settings")):
        lines += [f"## {title}", "", *(f"- {name}: {value}" for name, value in environment.get(key, {}).items()), ""]
    lines += ["## Not measured", "", *(f"- {line}" for line in NOT_MEASURED), ""]
    return "\n".join(lines)


def beside(rows):
    lines = []
    for row in (row for row in rows if row["system"] == "millrace"):
        cells = ["none measured", "", ""]
        best = max(peers(rows, row["workload"]), key=lambda peer: peer["median"], default=None)
        if best:
            ratio, each = ratios(row, best)
            cells = [f"{label(best)}: {amount(best['median'])}", spread(ratio, each), verdict(each)]
        lines.append(cells_of(row["workload"], row["wire"], f"{amount(row['median'])} {row['unit']}", *cells, row["limited_by"]))
    return lines


def table(rows):
    lines = ["| | median | min | max | p50 µs | p99 µs | p99.9 µs | gateway | its CPU | load's CPU | errors | limited by |",
             "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"]
    for row in rows:
        lines.append(cells_of(label(row), *(amount(row[key]) for key in ("median", "min", "max", "p50", "p99", "p999")),
                              *(share(row[key]) for key in ("gateway_busy", "gateway_cpu_busy", "load_busy")), row["errors"],
                              row["limited_by"]))
    return [f"In {rows[0]['unit']}, {max(len(row['rounds']) for row in rows)} rounds.", "", *lines]


def cells_of(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def targets(rows):
    lines = []
    for (workload, wire), (factor, names) in TARGETS.items():
        row = next((row for row in rows if (row["workload"], row["system"], row["wire"]) == (workload, "millrace", wire)), None)
        wanted = [(f"≥ {factor}x {NAMES[name]}", name) for name in names] or [(f"≥ {factor} Gbit/s", None)]
        for what, name in wanted:
            reached, met = "not measured", "**NOT SHOWN**"
            peer = next((peer for peer in peers(rows, workload) if peer["system"] == name), None)
            if row and not name:
                reached, met = f"{amount(row['median'])} {row['unit']}", row["median"] >= factor
            elif row and peer:
                ratio, each = ratios(row, peer)
                reached, met = spread(ratio, each), ratio is not None and ratio >= factor
            if isinstance(met, bool):
                met = "met" if met else "**NOT MET**"
            lines.append(cells_of(workload, wire, what, reached, met))
    return [*lines, *(cells_of(*target, "not measured", "**NOT SHOWN**") for target in NOT_SHOWN)]


def plot(workload, rows):
    """Bars with the median, and a line from the smallest to the largest."""
    left, width, step, top = 190, 430, 34, 52
    most = max([row["max"] for row in rows] + [1e-9])
    place = lambda value: left + width * value / most
    height = top + step * len(rows) + 14
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" viewBox="0 0 760 {height}" '
             'font-family="sans-serif" font-size="13">', f'<rect width="760" height="{height}" fill="#ffffff"/>',
             f'<text x="12" y="24" font-size="16" font-weight="bold">{html.escape(workload)}</text>',
             f'<text x="12" y="42" fill="#555555">{html.escape(rows[0]["unit"])}; the line is the smallest to the largest round</text>']
    for number, row in enumerate(rows):
        y = top + step * number
        color = "#1f6f8b" if row["system"] == "millrace" else "#a9a9a9"
        note = amount(row["median"]) + (f" ({row['errors']} ERRORS)" if row["errors"] else "")
        parts += [f'<text x="{left - 8}" y="{y + 18}" text-anchor="end">{html.escape(label(row))}</text>',
                  f'<rect x="{left}" y="{y + 4}" width="{place(row["median"]) - left:.1f}" height="20" fill="{color}"/>',
                  f'<line x1="{place(row["min"]):.1f}" x2="{place(row["max"]):.1f}" y1="{y + 14}" y2="{y + 14}" stroke="#000000" '
                  'stroke-width="2"/>',
                  f'<text x="{place(row["max"]) + 8:.1f}" y="{y + 18}">{html.escape(note)}</text>']
    return "\n".join([*parts, "</svg>"]) + "\n"


def label(row):
    return f"{NAMES.get(row['system'], row['system'])} ({row['wire']})"


def amount(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def share(value):
    return "–" if value is None else f"{value * 100:.0f} %"


def spread(ratio, each):
    if ratio is None or not each:
        return "–"
    return f"{ratio:.2f}x ({min(each):.2f} … {max(each):.2f})"


def verdict(each):
    if not each:
        return "no round has both"
    return "faster" if min(each) > 1 else "**SLOWER**" if max(each) < 1 else "**no difference shown**: rounds disagree"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: benches/report.py DIR")
    print(write(sys.argv[1]))
