"""The kernel's own work, kept off the CPU on which gateways run, as isolcpus or `tuna --isolate` keep it off on a dedicated host."""

import contextlib
import os
import pathlib

# CPUs of work that is bound to none (Documentation/core-api/workqueue.rst).
UNBOUND = pathlib.Path("/sys/devices/virtual/workqueue/cpumask")
# Field 9 of proc(5)'s stat: a kernel thread, and one that may not be moved.
KERNEL_THREAD, STAYS = 0x0020_0000, 0x0400_0000


@contextlib.contextmanager
def away_from(cpu):
    """For as long as the block lasts: kernel threads that may be anywhere are not on `cpu`, and neither is unbound work. Yields what was moved, in words.
    Processes, and what is bound to each CPU, stay where they are."""
    before, mask = {}, None
    try:
        # Where sysfs may not be written, in a container, unbound work stays where it is, and the words say nothing of it.
        with contextlib.suppress(OSError):
            text = UNBOUND.read_text()
            UNBOUND.write_text(words(number(text) & ~(1 << cpu)))
            mask = text
        for pid in kernel_threads():
            # It may have ended, or be bound after all.
            with contextlib.suppress(OSError):
                cpus = os.sched_getaffinity(pid)
                if cpu in cpus and len(cpus) > 1:
                    os.sched_setaffinity(pid, cpus - {cpu})
                    before[pid] = cpus
        yield f"{len(before)} kernel threads{' and unbound work' if mask else ''} kept off CPU {cpu} (benches/housekeeping.py)"
    finally:
        for pid, cpus in before.items():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(pid, cpus)
        if mask:
            UNBOUND.write_text(mask)


def kernel_threads():
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            flags = int(stat.read_text().rpartition(")")[2].split()[6])
            if flags & KERNEL_THREAD and not flags & STAYS:
                yield int(stat.parent.name)


def number(mask):
    return int(mask.strip().replace(",", ""), 16)


def words(mask):
    """In words of 32 bits, as the kernel reads it."""
    digits = f"{mask:x}"
    digits = digits.rjust(-(-len(digits) // 8) * 8, "0")
    return ",".join(digits[at:at + 8] for at in range(0, len(digits), 8))
