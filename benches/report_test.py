"""python3 benches/report_test.py: the report says what the raw files say."""

import json
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import report  # noqa: E402


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

    def test_losses_errors_and_failures_are_told(self):
        runs = [run("keepalive-60B", "millrace", "af_packet", n, 90) for n in (1, 2)]
        runs += [run("keepalive-60B", "nginx", "veth", n, 100) for n in (1, 2)]
        runs += [run("keepalive-60B", "haproxy", "veth", n, 60, errors=2) for n in (1, 2)]
        _, text, _ = self.make(runs, {"problems": ["no hugepages"], "busy_before": [0.01, 0.5]})
        self.assertIn("| NGINX (veth): 100 | 0.90x (0.90 … 0.90) | **SLOWER** |", text)
        self.assertIn("| keepalive-60B | af_packet | ≥ 1.5x HAProxy | 1.50x (1.50 … 1.50) | met |", text)
        self.assertIn("| keepalive-60B | af_packet | ≥ 1.5x NGINX | 0.90x (0.90 … 0.90) | **NOT MET** |", text)
        self.assertIn("| keepalive-60B | vhost | ≥ 8x NGINX | not measured | **NOT SHOWN** |", text)
        self.assertIn("**ERRORS:** HAProxy (veth), keepalive-60B: 4 wrong", text)
        self.assertIn("the CPUs were 50 % busy with something else", text)
        self.assertIn("**FAILED:** no hugepages", text)

    def test_the_limit_is_named(self):
        def limit(generator, gateway, load, cpu=None):
            return report.limited_by({"generator": generator, "gateway_busy": gateway, "gateway_cpu_busy": cpu, "load_busy": load})
        self.assertEqual(limit("blast", 0.9, 0.99), "generator")
        self.assertEqual(limit("blast", 1.0, 0.97), "gateway")
        self.assertEqual(limit("blast", None, 0.5), "unknown")
        self.assertEqual(limit("wrk", 0.99, 0.9), "gateway")
        self.assertEqual(limit("wrk", 0.8, 0.9, cpu=0.99), "gateway")
        self.assertEqual(limit("wrk", 0.8, 0.99, cpu=0.9), "client and backends")
        self.assertEqual(limit("wrk", 0.99, 0.99), "gateway, and client and backends")
        self.assertEqual(limit("wrk", 0.5, 0.5), "neither")


if __name__ == "__main__":
    unittest.main()
