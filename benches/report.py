#!/usr/bin/env python3
"""The report: report.json, report.md and SVG plots, computed from nothing but the files in DIR/raw.

    benches/report.py DIR          computes it again

Called by compare with --out, after rounds.py has written DIR/raw. It measures nothing and asks the machine nothing.
"""

import json
import pathlib
import re
import sys

sys.dont_write_bytecode = True
from figures import amount, label, less_is_better, load, ratios, share, spread, summarize  # noqa: E402
from plot import plot  # noqa: E402
from targets import TARGETS, best_of, is_peer, judge  # noqa: E402

# What others may take of the CPUs: above this share, a warning.
QUIET = 0.05

# The keys of a row in report.json.
PUBLIC = ["workload", "system", "wire", "median", "min", "max", "unit", "gateway_busy", "limited_by"]

HOW_TO_READ = (
    "`gateway` is the share of its core that the gateway was busy: of Millrace, by its own count, turns in which there was something "
    "to do; of the others, time of their process. `its CPU` is all that was not idle there, with the kernel's work outside the "
    "process (Millrace polls: always all). `load's CPU` is the generator's: blast's own count, or the CPU of wrk and both backends. "
    "Above 95 % of it, somebody is at its end, which is what `limited by` says. wrk does not know p99.9; latencies of a closed loop "
    "hide what waits, and wrk's compare with each other but not with blast's. `machine` has nothing of Millrace in it: two threads that only "
    "read the clock, and how long what arrives at any moment would wait because their CPU is away (other tasks, the hypervisor); no latency "
    "over vhost can be below that. `ns for a cache line` is the distance between the two CPUs, and every packet on vhost goes that way several "
    "times; the hypervisor may change it by moving them. `µs to wake` is what a thread on a CPU that has slept for 5 ms waits for it, when one on "
    "the other CPU wakes it: `idle-wakes` cannot be below that."
)

NOT_MEASURED = [
    "The peers on vhost: they cannot use it. Their figures beside Millrace's there are those of the veth, where a packet costs them "
    "the kernel's work.",
    "Millrace on `veth-offload`: AF_PACKET and AF_XDP of DPDK 22.11 take and give frames, not segments of 64 KiB without checksums.",
    "Latencies are compared between systems on one wire alone.",
    "Two polling cores beside one: with a load generator they need three CPUs. On two, the cores would take turns on one of them.",
]


def write(folder):
    """Writes all of it, and returns a line for each row."""
    folder = pathlib.Path(folder)
    environment, runs = load(folder / "raw")
    rows = summarize(runs)
    public = [{key: row[key] for key in PUBLIC} for row in rows]
    (folder / "report.json").write_text(json.dumps({"rows": public}, indent=1, ensure_ascii=False) + "\n")
    for stale in folder.glob("*.svg"):
        stale.unlink()
    for workload in workloads(rows):
        for unit, file in plots(rows, workload).items():
            (folder / file).write_text(plot(workload, of(rows, workload, unit)))
    (folder / "report.md").write_text(markdown(environment, rows))
    return "\n".join([*(f"{row['workload']:18} {label(row):24} {amount(row['median']):>10} {row['unit']:24} "
                        f"gateway busy {share(row['gateway_busy']):>5}, limited by: {row['limited_by']}" for row in rows),
                      *(f"target: {target.workload:18} {' or '.join(target.wires):20} {target.wanted():42} {reached} {said(met)}"
                        for target, (reached, met, _) in ((target, judge(target, rows)) for target in TARGETS)),
                      f"report: {folder / 'report.md'}"])


def workloads(rows):
    return list(dict.fromkeys(row["workload"] for row in rows))


def units(rows, workload):
    return list(dict.fromkeys(row["unit"] for row in rows if row["workload"] == workload))


def of(rows, workload, unit):
    return [row for row in rows if (row["workload"], row["unit"]) == (workload, unit)]


def plots(rows, workload):
    """The file of each unit's plot."""
    there = units(rows, workload)
    name = lambda unit: re.sub(r"[^a-z0-9]+", "-", unit.lower().replace("µ", "u").replace("%", "percent")).strip("-")
    return {unit: f"{workload}.svg" if number == 0 else f"{workload}-{name(unit)}.svg" for number, unit in enumerate(there)}


def markdown(environment, rows):
    lines = ["# Millrace side by side", "",
             f"Begun {environment.get('began', 'unknown')}. Only ratios within this run mean anything; benches/README.md says how "
             "to read it. Everything here is computed from the files in `raw`.", ""]
    for problem in environment.get("problems", []):
        lines += [f"**FAILED:** {' '.join(problem.split())}", ""]
    for absent in environment.get("absent", []):
        lines += [f"**MISSING:** {absent}. Nothing in this report is about it.", ""]
    others = max(environment.get("busy_before", []), default=0)
    if others > QUIET:
        lines += [f"**NOT QUIET:** before a round, with nothing of this run at work, the CPUs were {share(others)} busy with something "
                  "else. These figures are disturbed; repeat them.", ""]
    for row in (row for row in rows if row["errors"]):
        lines += [f"**ERRORS:** {label(row)}, {row['workload']}: {row['errors']} wrong or missing replies; its rate means little.", ""]
    lines += ["## Targets", "", "| workload | wire | target | reached | |", "|---|---|---|--:|---|", *targets(rows), "",
              "## Millrace beside the best peer", "",
              "The ratio says how many times better Millrace's median is; in parentheses, the smallest and the largest of the rounds. On "
              "vhost, against the best peer on any wire; elsewhere on the same wire.", "",
              "| workload | Millrace's wire | Millrace | best peer | ratio | | limited by |", "|---|---|--:|---|--:|---|---|",
              *beside(rows), ""]
    for workload in workloads(rows):
        lines += [f"## {workload}", ""]
        for unit, file in plots(rows, workload).items():
            lines += [f"![{workload}, {unit}]({file})", "", *table(of(rows, workload, unit)), ""]
    lines += [HOW_TO_READ, ""]
    for title, key in (("Versions", "versions"), ("Settings", "settings")):
        lines += [f"## {title}", "", *(f"- {name}: {value}" for name, value in environment.get(key, {}).items()), ""]
    lines += ["## Not measured", "", *(f"- {line}" for line in NOT_MEASURED), ""]
    return "\n".join(lines)


def beside(rows):
    lines = []
    for row in (row for row in rows if row["system"] == "millrace"):
        cells = ["none measured", "", ""]
        best = best_of([peer for peer in of(rows, row["workload"], row["unit"]) if is_peer(peer)
                        and (row["wire"] == "vhost" or peer["wire"] == "veth")])
        if best and not (less_is_better(row["unit"]) and row["wire"] == "vhost"):
            ratio, each = ratios(row, best)
            cells = [f"{label(best)}: {amount(best['median'])}", spread(ratio, each), verdict(each)]
        lines.append(cells_of(row["workload"], row["wire"], f"{amount(row['median'])} {row['unit']}", *cells, row["limited_by"]))
    return lines


def table(rows):
    lines = ["| | median | min | max | p50 µs | p99 µs | p99.9 µs | gateway | its CPU | load's CPU | softirqs there | errors | limited by |",
             "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"]
    for row in rows:
        lines.append(cells_of(label(row), *(amount(row[key]) for key in ("median", "min", "max", "p50", "p99", "p999")),
                              *(share(row[key]) for key in ("gateway_busy", "gateway_cpu_busy", "load_busy", "softirqs_on_gateway")),
                              row["errors"], row["limited_by"]))
    notes = [f"{label(row)}: {row['note']}." for row in rows if row["note"]]
    return [f"In {rows[0]['unit']}, {max(len(row['rounds']) for row in rows)} rounds. {' '.join(notes)}".strip(), "", *lines]


def cells_of(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def targets(rows):
    lines = []
    for target in TARGETS:
        reached, met, wire = judge(target, rows)
        where = " or ".join(target.wires)
        lines.append(cells_of(target.workload, where, target.wanted(),
                              reached + (f" on {wire}" if wire and len(target.wires) > 1 else ""), said(met)))
    return lines


def said(met):
    return {True: "met", False: "**NOT MET**", None: "**NOT SHOWN**"}[met]


def verdict(each):
    if not each:
        return "no round has both"
    if len(each) == 1:
        return "one round: not known"
    return "better" if min(each) > 1 else "**WORSE**" if max(each) < 1 else "**no difference shown**: rounds disagree"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: benches/report.py DIR")
    print(write(sys.argv[1]))
