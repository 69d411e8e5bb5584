"""Configurations with many routes: for each number, a path of its own, /n/r00000/ and so on, to the same backends.

As a program, it is what `blast --between` runs: it posts such a configuration to Millrace, waits until every core has it, and says how busy the
cores were. It measures nothing else.
"""

import argparse
import json
import pathlib
import shlex
import sys

import swaps

# HTTPRoute.spec.rules holds no more, by the Gateway API.
RULES = 16

# The whole core's time, and that of turns in which there was something to do, in nanoseconds.
TIMES = {name: f"millrace_core_{name}nanoseconds_total" for name in ("busy_", "")}


def documents(count, gateway="web", backend="hello"):
    """HTTPRoutes for Millrace, as YAML documents."""
    parts = []
    for first in range(0, count, RULES):
        parts.append(f"---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: many-{first} }}\n"
                     f"spec:\n  parentRefs: [{{ name: {gateway} }}]\n  rules:\n")
        for number in range(first, min(first + RULES, count)):
            parts.append(f"    - matches: [{{ path: {{ type: PathPrefix, value: /n/r{number:05} }} }}]\n"
                         f"      backendRefs: [{{ group: millrace.dev, kind: Backend, name: {backend}, port: 8080 }}]\n")
    return "".join(parts)


def locations(count):
    """Locations for NGINX, as the one for everything in nginx-proxy.conf."""
    passed = ('proxy_pass http://hello; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; '
              "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; ")
    return "".join(f"        location /n/r{number:05}/ {{ {passed}}}\n" for number in range(count))


def order(few, many, pairs):
    """How many routes each part has: pairs, of which each begins with what the one before it ended with."""
    return [count for pair in range(pairs) for count in ((few, many) if pair % 2 == 0 else (many, few))]


def between(base, backend, admin, enter=()):
    """A script for `blast --between`, which posts what `base`, a file, holds and the part's routes. `enter`: words in front of the command."""
    words = [*enter, sys.executable, "-B", pathlib.Path(__file__).resolve(), base, backend, *admin]
    return f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n'


def parts(result, errors):
    """The parts of blast's result, each with the share of the gateway's core. `errors`: all of the run's; those that no part has are the first's."""
    said = [json.loads(part["said"]) for part in result["parts"]] + [json.loads(result["said_at_end"])]
    unknown = errors - sum(part["errors"] for part in result["parts"])
    for at, part in enumerate(result["parts"]):
        swaps.summary([swaps.accepted(said[at]["answer"])])
        began, ended = said[at]["after"], said[at + 1]["before"]
        share = (ended["busy_"] - began["busy_"]) / (ended[""] - began[""])
        yield {**part, "gateway_busy": share, "errors": part["errors"] + (0 if at else unknown)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("base", pathlib.Path), ("backend", str), ("host", str), ("port", int), ("part", int), ("routes", int)):
        arguments.add_argument(name, type=kind)
    given = arguments.parse_args()
    admin = (given.host, given.port)
    times = lambda: {name: swaps.metric(*admin, metric) for name, metric in TIMES.items()}
    said = {"before": times()}
    if given.routes:
        # As many HTTPRoutes as routes.
        text = given.base.read_text() + swaps.documents(given.routes, 0, backend=given.backend)
        said["answer"] = swaps.post(*admin, "/config", text.encode())
        said["after"] = times()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
