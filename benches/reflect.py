#!/usr/bin/env python3
"""Frames sent back: `millrace reflect` beside testpmd's macswap, by the same device on the same CPU.

    benches/reflect.py --millrace PATH [--instructions PATH] [--rounds N] [--seconds N] [--wires memif,vhost]

A testpmd on the other CPU, which touches no frame, sends some hundreds round, so that no ring is ever full, as fast as the mirror lets
it. Needs root and two CPUs; vhost needs hugepages. Called by rounds.py, too.

Where the host runs the two CPUs makes a factor of three: a cache line takes 40 ns there and back on one core, 100 on one socket, 500 between
two, and hosts move CPUs about. testpmd is as slow as Millrace then. So runs are short and many, the two in turns; with `--instructions`, which times it, the distance before and
after each is with its result.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import limits  # noqa: E402

SIZE = 64
# Of 32 frames, which go round: half a ring. With fewer, bursts become small and rates a matter of chance.
BURSTS = 16
WIRES = ["memif", "vhost"]
MIRRORS = ["millrace", "testpmd"]


def devices(wire, folder):
    """The mirror's device, which listens, and the load's."""
    socket = pathlib.Path(folder, "wire.sock")
    if wire == "memif":
        memif = f"id=0,socket={socket},socket-abstract=no,bsize=2048,rsize=10"
        return socket, f"net_memif0,role=server,{memif}", f"net_memif0,role=client,{memif}"
    return socket, f"net_virtio_user0,path={socket},server=1,queues=1,queue_size=1024", f"net_vhost0,iface={socket},client=1,queues=1"


class Reflect:
    """`millrace reflect`, with the face of a Testpmd."""

    def __init__(self, folder, millrace, device, cpu, ordinary):
        self.log = pathlib.Path(folder, "reflect.log")
        pages = "off" if ordinary else "required"
        words = [millrace, "reflect", "--device", device, "--cores", cpu, "--hugepages", pages, "-o", "json"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            out, _ = self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
        return out


def apart(instructions):
    """How far apart the two CPUs are now, in nanoseconds; `None` where nothing times it."""
    if not instructions:
        return None
    return float(subprocess.run([instructions, "time", "cache-line"], capture_output=True, text=True, check=True).stdout.split()[0])


def measure_timed(mirror, wire, millrace, cpus, seconds, instructions):
    """A run, and how far apart the CPUs were before and after it."""
    before = apart(instructions)
    return {**measure(mirror, wire, millrace, cpus, seconds), "cache_line_ns": [before, apart(instructions)]}


def measure(mirror, wire, millrace, cpus, seconds):
    """Frames a second that came back to the load, and the share of its cycles in which the load had any."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-reflect-"))
        ordinary = wire == "memif"
        if not ordinary:
            stack.enter_context(limits.vhost())
        eal = ["--no-huge", "--iova-mode=va"] if ordinary else ["--in-memory", "--single-file-segments"]
        prefix = [f"--file-prefix={pathlib.Path(folder).name}"] if ordinary else []
        socket, near, far = devices(wire, folder)
        loop = ["--port-topology=loop"]
        if mirror == "millrace":
            end = Reflect(folder, millrace, near, cpus["proxy"], ordinary)
        else:
            end = limits.Testpmd(folder, "mirror", [near], [*eal, *prefix], cpus["proxy"], cpus["others"], SIZE, mode="macswap", more=loop)
        stack.callback(end.stop)
        for _ in range(200):
            if socket.exists():
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"{mirror} does not listen: {end.log.read_text()[-600:]}")
        load = limits.Testpmd(folder, "load", [far], [*eal, *(f"{word}-load" for word in prefix)], cpus["others"], cpus["proxy"], SIZE,
                              more=loop)
        stack.callback(load.stop)
        load.ready()
        if mirror == "testpmd":
            end.ready()
            end.say("start")
        # The mirror's start, and the handshake.
        time.sleep(1.5)
        load.say(f"start tx_first {BURSTS}")
        time.sleep(1)
        load.say("clear fwd stats all")
        began = time.monotonic()
        time.sleep(seconds)
        load.say("show fwd stats all")
        lasted = time.monotonic() - began
        time.sleep(0.1)
        # The mirror ends first: with nobody there to take them, it would count what it sends back as lost.
        load.say("stop")
        time.sleep(0.1)
        said = end.stop()
        load.stop()
        back = load.counted()
    reflected = json.loads(said)["ports"][0] if mirror == "millrace" else None
    return {"seconds": lasted, "load": back, "frames_per_second": back["received"] / lasted, "load_busy": limits.busy(back, lasted),
            "reflected": reflected, "errors": reflected["ringFull"] + reflected["refused"] if reflected else 0}


def run(mirror, wire, number, result):
    """What the raw file of a result says."""
    return {"workload": f"reflect-{SIZE}B", "system": mirror, "wire": wire, "part": None, "round": number, "unit": "frames/s",
            "value": result["frames_per_second"], "errors": result["errors"], "latency_us": {}, "gateway_busy": None,
            "gateway_cpu_busy": None, "load_busy": result["load_busy"], "generator": "testpmd", "testpmd": result}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millrace", required=True)
    parser.add_argument("--instructions")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--wires", default=",".join(WIRES))
    arguments = parser.parse_args()
    available = sorted(os.sched_getaffinity(0))
    if os.geteuid() != 0 or len(available) < 2:
        sys.exit("needs root and two CPUs")
    cpus = {"proxy": str(available[-1]), "others": str(available[0])}
    millrace = os.path.realpath(arguments.millrace)
    instructions = os.path.realpath(arguments.instructions) if arguments.instructions else None
    for wire in arguments.wires.split(","):
        rounds = []
        for number in range(arguments.rounds):
            # Another one goes first each time.
            order = MIRRORS if number % 2 == 0 else MIRRORS[::-1]
            results = {mirror: measure_timed(mirror, wire, millrace, cpus, arguments.seconds, instructions) for mirror in order}
            rounds.append(results["millrace"]["frames_per_second"] / results["testpmd"]["frames_per_second"])
            print(f"{wire}: " + ", ".join(f"{mirror} {results[mirror]['frames_per_second']:,.0f} frames/s (load "
                                         f"{results[mirror]['load_busy']:.0%} busy, {results[mirror]['errors']} lost, a cache line "
                                         f"{results[mirror]['cache_line_ns']} ns)" for mirror in MIRRORS),
                  flush=True)
        print(f"{wire}: {statistics.median(rounds):.2f} of testpmd's rate ({min(rounds):.2f} … {max(rounds):.2f})", flush=True)


if __name__ == "__main__":
    main()
