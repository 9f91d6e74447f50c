"""Machines made of Linux's network namespaces: each has one network card, and all hang on one switch. Needs root.

with machines(2) as cluster:
    subprocess.run([*cluster.enter(0), "python", ...])  # has the address cluster.address(0)
"""

import contextlib
import os
import shutil
import subprocess

CARD = "eth0"


def available():
    """Returns whether this machine has the tools and the right to make namespaces."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        return False
    name = f"try{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    if made:
        _run("ip", "netns", "del", name)
    return made


@contextlib.contextmanager
def machines(count):
    """Makes so many machines, and removes them when the context closes; yields a `Cluster`."""
    cluster = Cluster(count, f"kd{os.getpid()}")
    try:
        cluster.build()
        yield cluster
    finally:
        cluster.remove()


class Cluster:
    """Machines with the addresses 10.77.0.1, 10.77.0.2 and so on."""

    def __init__(self, count, prefix):
        self.names = [f"{prefix}w{i}" for i in range(count)]
        self._switch = f"{prefix}switch"

    def build(self):
        _run("ip", "netns", "add", self._switch)
        self._in_switch("link", "add", "bridge0", "type", "bridge")
        self._in_switch("link", "set", "bridge0", "up")
        for i, name in enumerate(self.names):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "add", CARD, "type", "veth", "peer", "name", f"p{i}", "netns", self._switch)
            self._in_switch("link", "set", f"p{i}", "master", "bridge0", "up")
            _run("ip", "-n", name, "address", "add", f"{self.address(i)}/24", "dev", CARD)
            for card in (CARD, "lo"):
                _run("ip", "-n", name, "link", "set", card, "up")

    def remove(self):
        for name in [*self.names, self._switch]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def address(self, i):
        return f"10.77.0.{i + 1}"

    def enter(self, i):
        """Returns the words before a command that runs it on machine `i`."""
        return ["ip", "netns", "exec", self.names[i]]

    def slow_down(self, megabits):
        """Lets each machine send no more than so many megabits a second."""
        for i in range(len(self.names)):
            rate = ["rate", f"{megabits}mbit", "burst", "32kb", "latency", "400ms"]
            _run(*self.enter(i), "tc", "qdisc", "add", "dev", CARD, "root", "tbf", *rate)

    def plug(self, i, there):
        """Pulls the cable of machine `i` out of the switch, or puts it back."""
        self._in_switch("link", "set", f"p{i}", "up" if there else "down")

    def _in_switch(self, *words):
        _run("ip", "-n", self._switch, *words)


def _run(*words):
    subprocess.run(words, check=True, capture_output=True, text=True)
