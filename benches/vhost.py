"""Millrace alone with benches/blast, over vhost. Called by rounds.py; benches/blast/run-vhost starts and ends everything."""

import json
import pathlib
import subprocess
import tempfile
import threading

from sandbox import ROOT

BACKEND_ERRORS = ["malformed", "corrupt", "truncated", "pipelined"]
# Seconds that a run may need beside its load: opening, draining.
BESIDE = 30
# How run-vhost says that a line begins.
BEGINS = "== "


# Where vhost.yaml has the admin endpoint.
ADMIN = ("127.0.0.1", 9931)


def configuration(routes=True):
    """The configuration that run-vhost gives to Millrace: its backend's name, and all of it, or all but its route."""
    text = (ROOT / "benches/blast/vhost.yaml").read_text()
    kept = [part for part in text.split("---\n") if routes or "\nkind: HTTPRoute\n" not in part]
    return "blast", "---\n".join(kept)


def blast(programs, lines, *options, text=None, beside=None, between=None):
    """A result for each line of what blast is to do, one after the other against one gateway; `None` where there is none. Raises
    where there is none at all; a reply that was wrong is in its result. `text` stands in for vhost.yaml. `beside` has, by a line's
    number, from 0, what is called when that line begins, with the folder in which the gateway's configuration is; what it returns is
    called when the line is over. `between` makes, of that folder's configuration, the script that runs between a line's parts."""
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as out:
        if text is not None:
            file = pathlib.Path(out, "given.yaml")
            file.write_text(text)
            options = ("--config", str(file), *options)
        if between:
            script = pathlib.Path(out, "between")
            script.write_text(between(pathlib.Path(out, "millrace.yaml")))
            script.chmod(0o700)
            lines = [f"{line} --between {script}" for line in lines]
        log = pathlib.Path(out, "stderr.log")
        words = [ROOT / "benches/blast/run-vhost", *options, programs.millrace, programs.blast, out]
        with open(log, "w") as errors:
            running = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        # It must end by itself, also where nobody is patient any more: it ends Millrace and gives the hugepages back.
        patience = threading.Timer(120 + BESIDE * len(lines), running.terminate)
        patience.start()
        said, over = [], None
        try:
            running.stdin.write("\n".join(lines) + "\n")
            running.stdin.close()
            for line in running.stdout:
                said.append(line)
                if line.startswith(BEGINS):
                    over = over() if over else None
                    begin = (beside or {}).get(sum(one.startswith(BEGINS) for one in said) - 1)
                    over = begin(pathlib.Path(out)) if begin else None
            over = over() if over else None
        except BaseException:
            running.terminate()
            raise
        finally:
            running.wait()
            patience.cancel()
            running.stdout.close()
        files = [pathlib.Path(out, f"{number}.json") for number in range(1, len(lines) + 1)]
        results = [json.loads(file.read_text()) if file.exists() else None for file in files]
        said = log.read_text().strip() or "".join(said).strip()
    if not any(results):
        raise RuntimeError(f"no result (exit code {running.returncode}): {said.strip('# ' + chr(10))}")
    return results


def machine(programs, seconds, number):
    """What the machine gives to two CPUs that poll, as on vhost, with no wire and no gateway."""
    words = [programs.blast, "machine", "--core", "0", "--other-core", "1", "--duration", str(seconds)]
    result = json.loads(subprocess.run(words, check=True, capture_output=True, text=True, timeout=BESIDE + seconds).stdout)
    common = {"workload": "machine", "system": "machine", "round": number, "errors": 0, "latency_us": {}, "gateway_busy": None,
              "gateway_cpu_busy": None, "load_busy": None, "generator": "none"}
    for cpu in result["cpus"]:
        for name, key in (("p99", "p99_microseconds"), ("p99.9", "p999_microseconds")):
            yield {**common, "wire": f"CPU {cpu['cpu']}", "part": name, "unit": f"µs {name} away", "value": cpu[key], "machine": cpu}
    for name, key in (("p50", "p50_microseconds"), ("p99", "p99_microseconds")):
        yield {**common, "wire": "both CPUs", "part": f"wake-{name}", "unit": f"µs {name} to wake", "value": result["wake"][key]}
    yield {**common, "wire": "both CPUs", "part": "line", "unit": "ns for a cache line", "value": result["line_nanoseconds"]}


def errors(result):
    """Everything that was not right, at the clients and at the backends, and idle connections that were not there at the end."""
    idle = result.get("idle")
    lost = (idle["wanted"] - idle["held"]) + (idle["held"] - idle["answered_at_end"]) if idle else 0
    return result["errors"] + lost + sum(result["backends"].get(kind, 0) for kind in BACKEND_ERRORS)


def run(result, workload, number, value, unit, part=None, **more):
    """What the raw file of a result says, beside the result itself."""
    latency = result["latency_microseconds"]
    return {"workload": workload, "system": "millrace", "wire": "vhost", "part": part, "round": number, "unit": unit, "value": value,
            "errors": errors(result), "latency_us": {key: latency[key] for key in ("p50", "p99", "p999")},
            "gateway_busy": result["gateway_busy"], "gateway_cpu_busy": None, "load_busy": result["generator_busy"],
            "generator": "blast", **more, "blast": result}


def idle(result, number):
    """Both halves of a run with idle connections: the busy ones alone, and among them, with the gateway's memory."""
    held = result["idle"]
    whole = lambda memory: memory["resident_bytes"] + memory["hugepage_bytes"]
    after = max(whole(held[moment]) for moment in ("memory_with", "memory_at_end"))
    memory = {"before_bytes": whole(held["memory_before"]), "after_bytes": after, "connections": max(1, held["held"])}
    alone = run(result, "idle-100k", number, held["alone_requests_per_second"], "requests/s", "alone")
    # They are counted with the other half.
    alone["errors"] = 0
    return [alone, run(result, "idle-100k", number, held["among_requests_per_second"], "requests/s", "beside", memory=memory)]
