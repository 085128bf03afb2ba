#!/usr/bin/env python3
"""tests/vm/dying_clients.py SOCKET DEVICE SHIM CHURN COUNT SEED

COUNT clients of DEVICE, several at a time, each killed with SIGKILL at a random moment.
Nine of ten speak the protocol by hand, the others are CHURN (tests/processes/churn.c)
under the shim.  Prints at which moments they died; fails when one ends in any other way,
or when a kind of moment was never met.
"""
import collections
import mmap
import os
import random
import signal
import subprocess
import sys
import time

from wire_client import ADD, HELLO, REMOVE, Client, sealed_memfd

TOGETHER = 6
SLOT = 1 << 20  # bytes of the device for the clients that run in one of TOGETHER places
IO = 64 << 10
LIVES_BY_HAND, LIVES_SHIMMED = 0.25, 3  # seconds at most; these start a program first
STAGES = ("connect", "add", "io", "fork", "remove")
Victim = collections.namedtuple("Victim", "at pid kind place")


class Hand:
    """A client that speaks by hand.  Its name says what it is doing."""

    def __init__(self, rng, place):
        self.rng, self.place = rng, place
        self.fd = os.open(device, os.O_RDWR | os.O_DIRECT)
        self.connection, self.buffers = None, []
        self.connect()

    def connect(self):
        if self.connection:
            self.connection.close()
        self.buffers = []
        self.connection = Client(socket_path)
        self.connection.ask(HELLO, self.fd)

    def add(self):
        size = self.rng.choice((64, 256, 1024)) << 10
        memory = sealed_memfd(size)
        index = self.connection.ask(ADD, memory, length=size)
        self.buffers.append((index, memoryview(mmap.mmap(memory, size))))
        os.close(memory)

    def io(self):
        if not self.buffers:
            self.add()
        data = self.rng.choice(self.buffers)[1][:IO]
        at = self.place * SLOT
        pattern = self.rng.randbytes(16) * (IO // 16)
        data[:] = pattern
        os.pwritev(self.fd, [data], at)
        data[:] = bytes(IO)
        os.preadv(self.fd, [data], at)
        assert data == pattern, "read something else than was written"

    def fork(self):
        child = os.fork()
        if child == 0:  # has the connection too, so the lease lasts as long as it does
            if self.buffers:
                os.preadv(self.fd, [self.buffers[0][1][:IO]], self.place * SLOT)
            os._exit(0)
        os.waitpid(child, 0)

    def remove(self):
        if not self.buffers:
            self.add()
        index, _ = self.buffers.pop(self.rng.randrange(len(self.buffers)))
        self.connection.ask(REMOVE, index=index)

    def live(self):
        while True:
            stage = self.rng.choice(STAGES)
            name_me(stage)
            getattr(self, stage)()


def name_me(stage):
    with open("/proc/self/comm", "w") as f:
        f.write(stage)


def ordinary_priority():
    os.setpriority(os.PRIO_PROCESS, 0, 0)


def start_hand(rng, place):
    seed = rng.random()
    pid = os.fork()
    if pid == 0:
        ordinary_priority()
        name_me("connect")
        try:
            Hand(random.Random(seed), place).live()
        except BaseException as error:  # nobody above would say it
            print(f"a client: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os.setpgid(pid, pid)
    return pid


def start_shimmed(rng, place):
    command = [churn, device, str(place * SLOT), str(rng.getrandbits(31))]
    environment = dict(os.environ, LD_PRELOAD=shim, UBLKZC_CAPTURE="all")
    # Popen objects are not kept: reaping is ours.
    process = subprocess.Popen(command, env=environment, process_group=0, preexec_fn=ordinary_priority)
    process.returncode = 0
    return process.pid


def stage_of(pid):
    with open(f"/proc/{pid}/comm") as f:
        return f.read().strip()


def kill(victim, rng):
    """Alone, or with its children; returns what it was doing."""
    stage = stage_of(victim.pid)
    if rng.random() < 0.5:
        os.kill(victim.pid, signal.SIGKILL)
    else:
        os.killpg(victim.pid, signal.SIGKILL)
    _, status = os.waitpid(victim.pid, 0)
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        sys.exit(f"a client ({victim.kind}) ended by itself while it was at '{stage}': status {status:#x}")
    return stage


def main():
    os.setpriority(os.PRIO_PROCESS, 0, -10)  # who kills must not wait for its victims
    rng = random.Random(seed)
    moments = collections.Counter()
    alive, free_places, started = [], list(range(TOGETHER)), 0
    while started < count or alive:
        while started < count and free_places:
            place = free_places.pop()
            shimmed = started % 10 == 9
            pid = (start_shimmed if shimmed else start_hand)(rng, place)
            delay = rng.uniform(0, LIVES_SHIMMED if shimmed else LIVES_BY_HAND)
            alive.append(Victim(time.monotonic() + delay, pid, "shim" if shimmed else "hand", place))
            started += 1
        victim = min(alive)
        time.sleep(max(0, victim.at - time.monotonic()))
        alive.remove(victim)
        moments[victim.kind, kill(victim, rng)] += 1
        free_places.append(victim.place)
    print(f"  seed {seed}: {count} killed:", ", ".join(f"{k} {s} {n}" for (k, s), n in sorted(moments.items())))
    for stage in STAGES:
        if count >= 100 and not sum(n for (_, s), n in moments.items() if s == stage):
            sys.exit(f"no client was killed while it was at '{stage}'")


socket_path, device, shim, churn = sys.argv[1:5]
count, seed = int(sys.argv[5]), int(sys.argv[6])
main()
