"""Configurations that change while requests run: texts, and a thread that posts them to Millrace's admin endpoint.

Called by rounds.py and swap/measure. It starts no gateway and measures nothing but what the answers say.
"""

import http.client
import json
import os
import subprocess
import threading
import time

from sandbox import ADMIN

# Seconds that an answer may take: the endpoint's machine may have something else to do.
PATIENCE = 120

ROUTE = """---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name} }}
spec:
  parentRefs: [{{ name: web }}]
  rules:
    - matches: [{{ path: {{ type: PathPrefix, value: /n/r{number:05} }} }}]
      backendRefs: [{{ group: millrace.dev, kind: Backend, name: {backend}, port: 8080 }}]
"""

BACKEND = """---
apiVersion: millrace.dev/v1alpha1
kind: Backend
metadata: {{ name: {name} }}
spec: {{ endpoints: [{endpoints}] }}
"""


def documents(routes, version, endpoints=0, backend="hello"):
    """Routes of which every tenth has a name of this version; with backends of their own, where they have endpoints."""
    parts = []
    for number in range(routes):
        name = f"r{number}-{version % 1000}" if number % 10 == 0 else f"r{number}"
        own = f"b{number}" if endpoints else backend
        parts.append(ROUTE.format(name=name, number=number, backend=own))
        if endpoints:
            # Each its own address and port, all of them on the link.
            each = range(number * endpoints, (number + 1) * endpoints)
            listed = (f"{{ address: 10.9.2.{2 + n % 200}, port: {1024 + n // 200} }}" for n in each)
            parts.append(BACKEND.format(name=own, endpoints=", ".join(listed)))
    return "".join(parts)


def post(host, port, path, text):
    """The answer to a posted configuration. Raises where it was refused."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("POST", path, body=text)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return accepted(answer)


def metric(host, port, name):
    """The sum of a metric over all cores."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", f"/metrics?name[]={name}")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def by_curl(sandbox, path, text):
    """The same from within a sandbox, on the CPU that others than the proxy share."""
    words = ["taskset", "-c", sandbox.cpus["others"], "curl", "-sS", "--max-time", PATIENCE, "--data-binary", "@-", f"http://{ADMIN}{path}"]
    answer = subprocess.run(sandbox.words("mr", words), check=True, text=True, capture_output=True, input=text).stdout
    return accepted(json.loads(answer))


def accepted(answer):
    if answer["outcome"] == "refused":
        raise RuntimeError(answer["errors"][0]["text"])
    return answer


class Swaps(threading.Thread):
    """Gives `post` one of `texts` after the other, with a pause before each, until it is told to stop. It runs on `cpu`, if that is given."""

    def __init__(self, post, texts, every, cpu=None):
        super().__init__(daemon=True)
        self.post, self.texts, self.every, self.cpu = post, texts, every, cpu
        self.answers, self.seconds, self.error, self.ended = [], [], None, threading.Event()

    def run(self):
        try:
            if self.cpu is not None:
                # Of this thread alone.
                os.sched_setaffinity(0, {int(self.cpu)})
            for text in self.texts:
                if self.ended.wait(self.every):
                    return
                began = time.monotonic()
                self.answers.append(self.post(text))
                self.seconds.append(time.monotonic() - began)
        except Exception as error:  # noqa: BLE001
            self.error = error

    def finish(self):
        """Ends it, when the answer that it may wait for is there, and says what came of it."""
        self.ended.set()
        self.join()
        if self.error:
            raise RuntimeError(f"a configuration was not taken: {self.error}")
        return summary(self.answers, self.seconds)


def summary(answers, seconds=()):
    """What receipts say, of all swaps: from compiled to the last core's switch, what reading and compiling took, and packets lost."""
    receipts = [answer["swap"] for answer in answers if answer.get("swap")]
    if not all(receipt["complete"] for receipt in receipts):
        raise RuntimeError("a core did not take its new tables")
    return {"posted": len(answers), "seconds": list(seconds), "microseconds": [max(core["microseconds"] for core in receipt["cores"])
                                                                             for receipt in receipts],
            "read_microseconds": [receipt["readMicroseconds"] for receipt in receipts],
            "compile_microseconds": [receipt["compileMicroseconds"] for receipt in receipts],
            "lost": sum(receipt["lost"] for receipt in receipts)}
