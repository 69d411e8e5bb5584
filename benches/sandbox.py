"""The virtual wires of scripts/lib/topology.sh, as seen from Python: namespaces, their kernel's addresses and offloads.

Makes and removes namespaces; starts the backends in them. It measures nothing.
"""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
VIP = "10.9.1.1"
ADMIN = "127.0.0.1:9901"
# Who has interfaces on the wires.
HOSTS = ["client", "mr", "lan", "b1", "b2"]


class Sandbox:
    """The namespaces of scripts/lib/topology.sh, with both nginx backends running. With `loss`, that share of the frames, in percent,
    is lost between client and proxy, each way."""

    def __init__(self, cpus, loss=0, backends=True):
        self.cpus, self.kernel, self.offloads = cpus, "off", "off"
        out = self.script(f'LOSS={loss}; sandbox_up {os.getpid()} && echo "$SANDBOX $SANDBOX_DIR"')
        self.id, self.dir = out.split()
        if backends:
            self.script(f"CPU={cpus['others']}; nginx_backend $NS_B1 b1 10.9.2.2; nginx_backend $NS_B2 b2 10.9.2.3")

    def script(self, commands):
        load = f"sandbox_load {self.id};" if hasattr(self, "id") else ""
        source = "source scripts/lib/common.sh; source scripts/lib/topology.sh;"
        run = subprocess.run(["bash", "-c", f"set -u; {source} {load} {commands}"], cwd=ROOT, check=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        return run.stdout

    def words(self, namespace, words):
        return ["ip", "netns", "exec", f"{self.id}-{namespace}", *map(str, words)]

    def kernel_addresses(self, state):
        """Who has the proxy's addresses: the kernel (`on`), or whoever reads the frames (`off`)."""
        if state != self.kernel:
            self.script(f"sandbox_kernel_addresses {state}")
            self.kernel = state

    def segments(self, state):
        """Whether the kernels at all ends hand each other segments of up to 64 KiB, without checksums (`on`), or frames (`off`)."""
        if state != self.offloads:
            self.script(f"sandbox_offloads {state}")
            self.offloads = state

    def placement(self):
        """The CPUs to which each interface hands what it receives, as the kernel's hexadecimal masks: 0 is where it came."""
        masks = {}
        for host in HOSTS:
            look = "cd /sys/class/net; for q in */queues/rx-*/rps_cpus; do echo $q $(cat $q); done"
            run = subprocess.run(self.words(host, ["sh", "-c", look]), check=True, text=True, capture_output=True)
            for line in run.stdout.splitlines():
                path, mask = line.split()
                if not path.startswith("lo/"):
                    masks[f"{host}/{path.split('/')[0]}"] = mask
        return masks

    def serves(self, proxy):
        """Whether a proxy answers a request."""
        words = self.words("client", ["curl", "-s", "-o", "/dev/null", "--fail", "--max-time", "1", f"http://{VIP}/1k"])
        return subprocess.run(words).returncode == 0

    def client(self, *words, **options):
        """Runs a command in the client's namespace, on the CPU that client and backends share."""
        words = self.words("client", ["taskset", "-c", self.cpus["others"], *words])
        return subprocess.run(words, check=True, text=True, capture_output=True, **options).stdout

    def down(self):
        self.script("sandbox_down")


class BothEnds(Sandbox):
    """The same wires, with both far ends in one namespace, for a generator that plays clients and backends."""

    NORTH, SOUTH = "eth0", "south"

    def __init__(self, cpus):
        super().__init__(cpus, backends=False)
        self.script("sandbox_both_ends")

    def serves(self, proxy):
        """Whether a proxy listens; there are no backends yet. Millrace says when it is ready."""
        if proxy.name == "millrace":
            words = ["curl", "-s", "-o", "/dev/null", "--fail", "--max-time", "1", f"http://{ADMIN}/readyz"]
            return subprocess.run(self.words("mr", words)).returncode == 0
        # 10.9.1.1:80 in state LISTEN, as the kernel writes it.
        table = pathlib.Path(f"/proc/{proxy.process.pid}/net/tcp").read_text()
        return any(line.split()[1:4:2] == ["0101090A:0050", "0A"] for line in table.splitlines())
