"""What is wanted of Millrace, and whether the rows show it. Called by report.py."""

import dataclasses

from figures import (BYTES_EACH, COMPILING, FAILED, KEPT, NAMES, OF_APART, OF_CALM, OF_ONE, OF_PLAIN, OF_QUIET, OF_TEN, REACHED, amount,
                     less_is_better, ratios, spread)

ANY_PEER = "the best peer"


@dataclasses.dataclass(frozen=True)
class Target:
    """`bound` is in `unit`; or, with `against`, it is how many times better than that peer on its wires. Of several wires of
    Millrace's, the best counts."""

    workload: str
    wires: tuple
    bound: float
    against: str = ""
    unit: str = ""
    against_wires: tuple = ("veth",)

    def wanted(self):
        if self.against:
            where = "" if self.against_wires == ("veth",) else f" ({' or '.join(self.against_wires)})"
            what = f", {self.unit}" if self.unit else ""
            return f"≥ {self.bound:g}x {NAMES.get(self.against, self.against)}{where}{what}"
        return f"{'≤' if less_is_better(self.unit) else '≥'} {self.bound:,g} {self.unit}"


BYPASS, ON_VETH = ("vhost",), ("af_packet", "af_xdp")

TARGETS = [
    *(Target(workload, BYPASS, factor, peer) for workload in ("keepalive-60B", "keepalive-1KiB")
      for factor, peer in ((8, "nginx"), (8, "haproxy"), (30, "envoy"))),
    *(Target("keepalive-60B", ON_VETH, factor, peer) for factor, peer in ((1.5, "nginx"), (1.5, "haproxy"), (6, "envoy"))),
    Target("close-60B", BYPASS, 5, "nginx"),
    *(target for workload in ("bulk-1MiB-down", "bulk-1MiB-up") for target in (
        Target(workload, BYPASS, 1.5, ANY_PEER, against_wires=("veth", "veth-offload")), Target(workload, BYPASS, 20, unit="Gbit/s"))),
    *(Target("latency-half-load", BYPASS, bound, unit=f"µs {name} added")
      for bound, name in ((10, "p50"), (30, "p99"), (100, "p99.9"))),
    Target("idle-100k", BYPASS, 10_240, unit=BYTES_EACH),
    Target("idle-100k", BYPASS, 90, unit=KEPT),
    Target("loss-1pct", ("af_packet",), 1, "nginx", unit="Gbit/s"),
    Target("loss-1pct", ("af_packet",), 1, "nginx", unit="µs p99"),
    Target("routes-10k", BYPASS, 90, unit=OF_TEN),
    Target("routes-10k", ("af_packet",), 90, unit=OF_TEN),
    Target("filters-60B", BYPASS, 80, unit=OF_PLAIN),
    Target("filters-60B", ("af_packet",), 80, unit=OF_PLAIN),
    Target("swap-10k", BYPASS, 1.2, unit=OF_QUIET),
    Target("swap-10k", BYPASS, 10, unit=REACHED),
    Target("swap-10k", BYPASS, 0, unit=FAILED),
    Target("compile-100k", ("af_packet",), 1, unit=COMPILING),
    Target("flood-10k", ("af_packet",), 90, unit=OF_CALM),
    Target("idle-naps", ("af_packet",), 50, unit="µs p99"),
    Target("idle-wakes", BYPASS, 50, unit="µs p50 added by sleep"),
    Target("hand-over", ("memory",), 150, unit="ns a packet"),
    Target("cores-2", ("memory",), 1.9, unit=OF_ONE),
    # The same of what this machine's CPUs leave.
    Target("cores-2", ("memory",), 0.95, unit=OF_APART),
    *(Target("reflect-64B", (wire,), 0.85, "testpmd", against_wires=(wire,)) for wire in ("memif", "vhost")),
]


def judge(target, rows):
    """What was reached; whether that is what is wanted, `None` when it was not measured or with errors; and by which wire."""
    own = [row for row in rows if row["workload"] == target.workload and row["system"] == "millrace" and row["wire"] in target.wires
           and (not target.unit or row["unit"] == target.unit)]
    best = None
    for row in own:
        if not target.against:
            value, met = row["median"], row["median"] <= target.bound if less_is_better(row["unit"]) else row["median"] >= target.bound
            found = (-value if less_is_better(row["unit"]) else value, f"{amount(value)} {row['unit']}", met, row["wire"])
        else:
            other = best_of([peer for peer in rows if (peer["workload"], peer["unit"]) == (row["workload"], row["unit"])
                             and peer["wire"] in target.against_wires
                             and (peer["system"] == target.against if target.against != ANY_PEER else is_peer(peer))])
            if other is None:
                continue
            ratio, each = ratios(row, other)
            if ratio is None:
                continue
            named = f", {NAMES[other['system']]} on {other['wire']}" if target.against == ANY_PEER else ""
            found = (ratio, spread(ratio, each) + named, ratio >= target.bound, row["wire"])
        if row["errors"]:
            found = (found[0], f"{found[1]}, WITH ERRORS", None, found[3])
        best = max(best, found, key=lambda one: one[0]) if best else found
    return best[1:] if best else ("not measured", None, "")


def is_peer(row):
    return row["system"] not in ("millrace", "testpmd")


def best_of(rows):
    """Of rows with one unit."""
    if not rows:
        return None
    return (min if less_is_better(rows[0]["unit"]) else max)(rows, key=lambda row: row["median"])
