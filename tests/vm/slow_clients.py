#!/usr/bin/env python3
"""tests/vm/slow_clients.py SOCKET LEGACY_SOCKET DEVICE CONNECTIONS

CONNECTIONS that said HELLO and then nothing, one that never reads its answers, some that
send one byte, some that send nothing, all at once and again and again, until a line comes
on standard input.  Says "ready" when all are there, and at the end what became of them;
fails when a client that did nothing wrong was hung up on, or one that did was not.
"""
import os
import resource
import select
import socket
import sys
import threading

from wire_client import BAD_MESSAGE, HELLO, PING, Client, HungUp, Refused, request

socket_path, legacy_path, device = sys.argv[1:4]
connections = int(sys.argv[4])
UNREAD_AT_MOST = 100000  # answers; a socket holds a few hundred
over = threading.Event()
failures = []


def greeted():
    client = Client(socket_path)
    client.ask(HELLO, proof)
    return client


def never_reads():
    """PINGs whose answers nobody reads, until the server has enough of it."""
    client = greeted()
    for sent in range(UNREAD_AT_MOST):
        try:
            client.send(request(PING, sent))
        except HungUp:
            return
    raise AssertionError(f"{UNREAD_AT_MOST} answers were not read, and the server goes on")


def sends_a_byte():
    """A record of one byte is no message: said, and the end."""
    client = greeted()
    client.send(b"Z")
    try:
        client.reply()
        raise AssertionError("one byte was answered as if it were a message")
    except Refused as refusal:
        assert refusal.reason == BAD_MESSAGE, refusal
    try:
        client.reply()
        raise AssertionError("one byte, and the connection goes on")
    except HungUp:
        pass


def sends_a_byte_without_memory():
    """The older protocol: the byte has come, the memory never does."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(30)
    client.connect(legacy_path)
    client.send(b"Z")
    assert int.from_bytes(client.recv(4), "little", signed=True) < 0
    assert client.recv(4) == b""


def says_nothing():
    """Hung up on after the seconds that docs/wire.md gives it."""
    client = Client(socket_path)
    try:
        client.reply()
        raise AssertionError("an answer to nothing")
    except HungUp:
        pass


def again_and_again(what, counts):
    try:
        while not over.is_set():
            what()
            counts[what.__name__] += 1
    except Exception as error:  # pylint: disable=broad-except
        failures.append(f"{what.__name__}: {type(error).__name__}: {error}")


resource.setrlimit(resource.RLIMIT_NOFILE, (connections + 100,) * 2)
proof = os.open(device, os.O_RDONLY)
held = [greeted() for _ in range(connections)]
kinds = (never_reads, sends_a_byte, sends_a_byte_without_memory, says_nothing)
done = {kind.__name__: 0 for kind in kinds}
threads = [threading.Thread(target=again_and_again, args=(kind, done)) for kind in kinds]
for thread in threads:
    thread.start()
print("ready", flush=True)
select.select([sys.stdin], [], [])
over.set()
for thread in threads:
    thread.join()
# The held ones were there all the time: each is still answered.
for i, connection in enumerate(held):
    connection.ask(PING, seq=i)
print(f"  {connections} connections held; hung up on:", ", ".join(f"{k} {n}" for k, n in done.items()))
failures += [f"{kind}: not once" for kind, times in done.items() if not times]
sys.exit("\n".join(failures) or 0)
