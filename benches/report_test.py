"""python3 benches/report_test.py: the report says what the raw files say."""

import json
import pathlib
import re
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import figures  # noqa: E402
import report  # noqa: E402
import routes  # noqa: E402
import swaps  # noqa: E402
import targets  # noqa: E402
import vhost  # noqa: E402


def run(workload, system, wire, number, value, **more):
    return {"workload": workload, "system": system, "wire": wire, "round": number, "unit": "requests/s", "value": value, "errors": 0,
            "latency_us": {"p50": 1.0, "p99": 2.0}, "gateway_busy": 0.5, "gateway_cpu_busy": None, "load_busy": 0.5,
            "generator": "blast" if wire == "vhost" else "wrk", **more}


class Report(unittest.TestCase):
    def make(self, runs, environment=None):
        with tempfile.TemporaryDirectory() as folder:
            raw = pathlib.Path(folder, "raw")
            raw.mkdir()
            for number, one in enumerate(runs):
                (raw / f"{number}.json").write_text(json.dumps(one))
            (raw / "environment.json").write_text(json.dumps(environment or {}))
            report.write(folder)
            rows = json.loads(pathlib.Path(folder, "report.json").read_text())["rows"]
            plots = sorted(path.name for path in pathlib.Path(folder).glob("*.svg"))
            return rows, pathlib.Path(folder, "report.md").read_text(), plots

    def test_rows_are_medians(self):
        rows, _, plots = self.make([run("close-60B", "millrace", "vhost", n, value) for n, value in ((1, 30), (2, 10), (3, 20))])
        self.assertEqual(rows, [{"workload": "close-60B", "system": "millrace", "wire": "vhost", "median": 20, "min": 10, "max": 30,
                                 "unit": "requests/s", "gateway_busy": 0.5, "limited_by": "neither"}])
        self.assertEqual(plots, ["close-60B.svg"])

    def test_a_flood_is_compared_with_its_own_turn(self):
        rates = {"no flood #0": 100, "to nobody #0": 90, "flood #0": 90, "no flood #1": 50, "to nobody #1": 50, "flood #1": 55}
        rows, text, _ = self.make([run("flood-10k", "millrace", "af_packet", 1, rate, part=part, unit="connections/s") for part, rate in rates.items()])
        self.assertEqual([(row["unit"], row["min"], row["max"]) for row in rows], [(figures.OF_CALM, 90, 110), (figures.OF_NOBODY, 100, 110)])
        self.assertIn("| flood-10k | af_packet | ≥ 90 % of the rate without a flood | 100 % of the rate without a flood | met |", text)

    def test_the_machine_is_told_apart(self):
        runs = [run("machine", "machine", wire, 1, value, part=part, unit=unit, generator="none") for wire, part, unit, value in (
            ("CPU 0", "p99", "µs p99 away", 40), ("CPU 1", "p99", "µs p99 away", 50), ("both CPUs", "line", "ns for a cache line", 60))]
        rows, text, _ = self.make(runs)
        self.assertEqual([(row["wire"], row["median"]) for row in rows], [("CPU 0", 40), ("CPU 1", 50), ("both CPUs", 60)])
        self.assertIn("| this machine (both CPUs) | 60.0 |", text)

    def test_losses_errors_and_failures_are_told(self):
        runs = [run("keepalive-60B", "millrace", "af_packet", n, 90) for n in (1, 2)]
        runs += [run("keepalive-60B", "nginx", "veth", n, 100) for n in (1, 2)]
        runs += [run("keepalive-60B", "haproxy", "veth", n, 60, errors=2) for n in (1, 2)]
        _, text, _ = self.make(runs, {"problems": ["no hugepages"], "absent": ["Envoy: none"], "busy_before": [0.01, 0.5]})
        self.assertIn("| NGINX (veth): 100 | 0.90x (0.90 … 0.90) | **WORSE** |", text)
        self.assertIn("| keepalive-60B | af_packet or af_xdp | ≥ 1.5x HAProxy | 1.50x (1.50 … 1.50) on af_packet | met |", text)
        self.assertIn("| keepalive-60B | af_packet or af_xdp | ≥ 1.5x NGINX | 0.90x (0.90 … 0.90) on af_packet | **NOT MET** |", text)
        self.assertIn("| keepalive-60B | vhost | ≥ 8x NGINX | not measured | **NOT SHOWN** |", text)
        self.assertIn("**ERRORS:** HAProxy (veth), keepalive-60B: 4 wrong", text)
        self.assertIn("the CPUs were 50 % busy with something else", text)
        self.assertIn("**FAILED:** no hugepages", text)
        self.assertIn("**MISSING:** Envoy: none.", text)

    def test_the_limit_is_named(self):
        def limit(generator, gateway, load, cpu=None):
            return figures.limited_by({"generator": generator, "gateway_busy": gateway, "gateway_cpu_busy": cpu, "load_busy": load})
        self.assertEqual(limit("blast", 0.9, 0.99), "generator")
        self.assertEqual(limit("blast", 1.0, 0.97), "gateway")
        self.assertEqual(limit("blast", None, 0.5), "unknown")
        self.assertEqual(limit("wrk", 0.99, 0.9), "gateway")
        self.assertEqual(limit("wrk", 0.8, 0.9, cpu=0.99), "gateway")
        self.assertEqual(limit("wrk", 0.8, 0.99, cpu=0.9), "client and backends")
        self.assertEqual(limit("wrk", 0.99, 0.99), "gateway, and client and backends")
        self.assertEqual(limit("wrk", 0.5, 0.5), "neither")
        self.assertEqual(limit("testpmd", 0.97, 0.99), "gateway, and generator")
        self.assertEqual(limit("testpmd", 0.7, 0.99), "generator")

    def figures(self, *parts):
        return {(row["system"], row["unit"]): row for row in figures.summarize(parts)}

    def test_loss_is_goodput_and_p99(self):
        rows = self.figures(run("loss-1pct", "nginx", "veth", 1, 3.5, part="bulk", unit="Gbit/s"),
                            run("loss-1pct", "nginx", "veth", 1, 9000, part="keepalive", latency_us={"p50": 1.0, "p99": 200_000.0}))
        self.assertEqual({key: row["median"] for key, row in rows.items()},
                         {("nginx", "Gbit/s"): 3.5, ("nginx", "µs p99"): 200_000})

    def test_routes_are_compared_within_a_round(self):
        runs = []
        for number, (ten, many) in enumerate(((100, 80), (200, 190), (50, 60)), 1):
            runs += [run("routes-10k", "millrace", "vhost", number, ten, part="10 routes"),
                     run("routes-10k", "millrace", "vhost", number, many, part="10000 routes")]
        # Without its ten, a round counts for the rate alone.
        runs.append(run("routes-10k", "millrace", "vhost", 4, 70, part="10000 routes"))
        rows = self.figures(*runs)
        ratio = rows["millrace", figures.OF_TEN]
        self.assertEqual((ratio["median"], ratio["min"], ratio["max"]), (95, 80, 120))
        self.assertEqual(rows["millrace", "requests/s"]["median"], 75)

    def test_routes_are_compared_pair_by_pair(self):
        runs = [run("routes-10k", "millrace", "vhost", number, value, part=f"{count} routes {pair}")
                for number in (1, 2) for pair, both in enumerate(((100, 95), (200, 170), (50, 51))) for count, value in zip((10, 10_000), both)]
        ratio = self.figures(*runs)["millrace", figures.OF_TEN]
        self.assertEqual((ratio["median"], ratio["min"], ratio["max"]), (95, 85, 102))
        self.assertEqual(ratio["rounds"], {1: 95, 2: 95})
        self.assertEqual(self.figures(*runs)["millrace", "requests/s"]["median"], 95)

    def test_parts_have_their_errors_and_the_gateways_share(self):
        said = lambda before, after: json.dumps({"before": {"busy_": before, "": 2 * before}, "after": {"busy_": after, "": 2 * after},
                                                 "answer": {"outcome": "accepted"}})
        result = {"errors": 3, "parts": [{"routes": 10, "errors": 0, "said": said(0, 10)}, {"routes": 10_000, "errors": 2, "said": said(40, 50)}],
                  "said_at_end": json.dumps({"before": {"busy_": 60, "": 140}})}
        # One came between the parts, one from the backends.
        parts = list(routes.parts(result, 4))
        self.assertEqual([(part["routes"], part["errors"], part["gateway_busy"]) for part in parts], [(10, 2, 0.5), (10_000, 2, 0.25)])
        self.assertEqual(routes.order(10, 10_000, 3), [10, 10_000, 10_000, 10, 10, 10_000])

    def test_policies_are_compared_with_the_plain_route_of_the_round(self):
        runs = []
        for number, (plain, policies) in enumerate(((100, 85), (200, 150), (50, 45)), 1):
            runs += [run("filters-60B", "millrace", "vhost", number, plain, part="plain", errors=number == 1),
                     run("filters-60B", "millrace", "vhost", number, policies, part="policies")]
        rows = self.figures(*runs)
        share = rows["millrace", figures.OF_PLAIN]
        self.assertEqual((share["median"], share["min"], share["max"], share["errors"]), (85, 75, 90, 1))
        judged = lambda: self.judge("filters-60B", ("vhost",), runs, figures.OF_PLAIN)[1]
        self.assertIsNone(judged(), "with errors")
        runs[0]["errors"] = 0
        self.assertTrue(judged())

    def test_swaps_are_compared_with_the_quiet_part_beside_them(self):
        def part(name, p99, undisturbed, errors=0, **swaps):
            more = {"swaps": swaps} if swaps else {}
            return run("swap-10k", "millrace", "vhost", 1, 50_000, part=name, errors=errors, latency_us={"p50": 5.0, "p99": p99},
                       undisturbed_us={"p50": 5.0, "p99": undisturbed, "p999": 9.0}, **more)
        runs = [part("quiet 0", 10, 10), part("swaps 0", 30, 11, microseconds=[40, 90], compile_microseconds=[20_000, 30_000]),
                part("swaps 1", 60, 12, microseconds=[12_000], compile_microseconds=[70_000]), part("quiet 1", 20, 10)]
        rows = self.figures(*runs)
        self.assertAlmostEqual(rows["millrace", figures.OF_QUIET]["median"], 1.15)
        self.assertAlmostEqual(rows["millrace", figures.OF_QUIET_WAITING]["median"], 3)
        self.assertEqual(rows["millrace", figures.REACHED]["median"], 12)
        self.assertIn("3 swaps in a round, compiled in 30 ms", rows["millrace", figures.REACHED]["note"])
        judged = {unit: self.judge("swap-10k", ("vhost",), runs, unit)[1] for unit in (figures.OF_QUIET, figures.REACHED, figures.FAILED)}
        self.assertEqual(judged, {figures.OF_QUIET: True, figures.REACHED: False, figures.FAILED: True})
        runs[1]["errors"] = 2
        reached, met, _ = self.judge("swap-10k", ("vhost",), runs, figures.FAILED)
        self.assertEqual((reached, met), ("2.00 failed requests", False))
        self.assertIsNone(self.judge("swap-10k", ("vhost",), runs, figures.OF_QUIET)[1])

    def test_receipts_become_figures(self):
        receipt = lambda *microseconds: {"complete": True, "lost": 1, "readMicroseconds": 7, "compileMicroseconds": 9,
                                         "cores": [{"microseconds": one} for one in microseconds]}
        answers = [{"outcome": "accepted", "swap": receipt(3.0, 5.0)}, {"outcome": "unchanged"}]
        summary = swaps.summary(answers)
        self.assertEqual((summary["posted"], summary["microseconds"], summary["lost"]), (2, [5.0], 1))
        incomplete = {"outcome": "accepted", "swap": {**receipt(), "complete": False}}
        self.assertRaises(RuntimeError, swaps.summary, [incomplete])
        self.assertRaises(RuntimeError, swaps.accepted, {"outcome": "refused", "errors": [{"text": "no"}]})

    def test_configurations_differ_in_a_tenth_of_their_routes(self):
        first, second = (swaps.documents(40, version).split("---\n") for version in (1, 2))
        self.assertEqual((len(first), sum(a != b for a, b in zip(first, second))), (41, 4))
        addresses = re.findall(r"address: ([\d.]+, port: \d+)", swaps.documents(1000, 0, 10))
        self.assertEqual(len(set(addresses)), 10_000)

    def test_idle_connections_cost_memory_and_rate(self):
        memory = {"before_bytes": 1_000, "after_bytes": 21_000, "connections": 10}
        rows = self.figures(run("idle-100k", "millrace", "vhost", 1, 200, part="alone", errors=1),
                            run("idle-100k", "millrace", "vhost", 1, 150, part="beside", memory=memory))
        self.assertEqual(rows["millrace", figures.BYTES_EACH]["median"], 2_000)
        self.assertEqual(rows["millrace", figures.KEPT]["median"], 75)
        self.assertEqual(rows["millrace", figures.KEPT]["errors"], 1)
        self.assertIn("10 idle", rows["millrace", figures.KEPT]["note"])

    def test_added_latency_is_against_the_direct_path(self):
        through = run("latency-half-load", "millrace", "vhost", 1, 100, part="through", latency_us={"p50": 15.0, "p99": 50, "p999": 90})
        direct = run("latency-half-load", "millrace", "vhost", 1, 100, part="direct", latency_us={"p50": 6.0, "p99": 30, "p999": 40})
        rows = self.figures(through, direct)
        self.assertEqual({unit: row["median"] for (_, unit), row in rows.items()},
                         {"µs p50 added": 9, "µs p99 added": 20, "µs p99.9 added": 50})
        judged = {target.unit: targets.judge(target, list(rows.values()))[1]
                  for target in targets.TARGETS if target.workload == "latency-half-load"}
        self.assertEqual(judged, {"µs p50 added": True, "µs p99 added": True, "µs p99.9 added": True})
        # Without the direct path, nothing is said to be added.
        self.assertTrue(all("added" not in unit for _, unit in self.figures(through)))

    def test_what_blast_says_becomes_raw_files(self):
        memory = lambda resident, huge: {"resident_bytes": resident, "hugepage_bytes": huge}
        result = {"latency_microseconds": {"p50": 1, "p99": 2, "p999": 3, "max": 4}, "errors": 1, "backends": {"corrupt": 2, "requests": 9},
                  "gateway_busy": 0.5, "generator_busy": 0.4,
                  "idle": {"wanted": 100, "held": 90, "answered_at_end": 87, "alone_requests_per_second": 200.0,
                           "among_requests_per_second": 190.0, "memory_before": memory(1_000, 500), "memory_with": memory(10_000, 500),
                           "memory_at_end": memory(9_000, 2_400)}}
        self.assertEqual(vhost.errors(result), 1 + 2 + 13)
        rows = self.figures(*vhost.idle(result, 1))
        self.assertEqual(rows["millrace", figures.BYTES_EACH]["median"], (11_400 - 1_500) / 90)
        self.assertEqual(rows["millrace", figures.KEPT]["median"], 95)
        self.assertEqual(rows["millrace", figures.KEPT]["errors"], 16)

    def judge(self, workload, wires, rows, unit=""):
        target = next(target for target in targets.TARGETS
                      if (target.workload, target.wires, target.unit) == (workload, wires, unit))
        return targets.judge(target, figures.summarize(rows))

    def test_targets_take_the_right_peer(self):
        vhost = run("bulk-1MiB-down", "millrace", "vhost", 1, 18, unit="Gbit/s")
        peers = [run("bulk-1MiB-down", "nginx", "veth", 1, 4, unit="Gbit/s"),
                 run("bulk-1MiB-down", "envoy", "veth-offload", 1, 10, unit="Gbit/s"),
                 run("bulk-1MiB-down", "testpmd", "veth", 1, 99, unit="Gbit/s")]
        reached, met, _ = self.judge("bulk-1MiB-down", ("vhost",), [vhost, *peers])
        self.assertTrue(met)
        self.assertTrue(reached.startswith("1.80x"), reached)
        self.assertIn("Envoy on veth-offload", reached)
        self.assertFalse(self.judge("bulk-1MiB-down", ("vhost",), [vhost, *peers], "Gbit/s")[1])
        wrong = {**vhost, "errors": 1}
        self.assertIsNone(self.judge("bulk-1MiB-down", ("vhost",), [wrong, *peers])[1])

    def test_the_better_wire_counts_and_less_can_be_better(self):
        rows = [run("keepalive-60B", "millrace", "af_packet", 1, 120), run("keepalive-60B", "millrace", "af_xdp", 1, 160),
                run("keepalive-60B", "nginx", "veth", 1, 100)]
        self.assertEqual(self.judge("keepalive-60B", ("af_packet", "af_xdp"), rows)[1:], (True, "af_xdp"))
        loss = [run("loss-1pct", system, wire, 1, 1, part="keepalive", latency_us={"p99": p99})
                for system, wire, p99 in (("millrace", "af_packet", 300), ("nginx", "veth", 200))]
        reached, met, _ = self.judge("loss-1pct", ("af_packet",), loss, "µs p99")
        self.assertEqual((reached, met), ("0.67x (0.67 … 0.67)", False))


if __name__ == "__main__":
    unittest.main()
