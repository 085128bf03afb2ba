"""churn_clients.py SOCKET DEVICE CLIENTS: each adds and removes buffers in a loop until
SIGTERM, over one connection that must outlive every server.  Prints how many times.

An ADD may be answered twice when servers change, so answers are matched by their number; one that
never comes is a failure."""
import os
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from wire_client import ADD, HELLO, HungUp, REMOVE, REPLY, Client, request, sealed_memfd  # noqa: E402

ANSWER_SECONDS = 120
SIZE = 2 << 20
stopping = False


def stop(_signal, _frame):
    global stopping
    stopping = True


def answer(client, kind, seq):
    """The reply to that request; those to others have been seen before."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        client.socket.settimeout(ANSWER_SECONDS)
        data = client.socket.recv(REPLY.size)
        if not data:
            raise HungUp
        fields = REPLY.unpack(data)
        if fields[2] == kind and fields[3] == seq:
            return fields
    raise TimeoutError


def churn(path, device, memfd):
    client = Client(path)
    client.ask(HELLO, fd=os.open(device, os.O_RDWR))
    seq = rounds = 0
    while not stopping:
        seq += 1
        client.send(request(ADD, seq=seq, length=SIZE), memfd)
        added = answer(client, ADD, seq)
        if added[4]:
            sys.exit(f"ADD refused: status {added[4]}, reason {added[5]}")
        seq += 1
        client.send(request(REMOVE, seq=seq, index=added[7]))
        removed = answer(client, REMOVE, seq)
        if removed[4]:
            sys.exit(f"REMOVE refused: status {removed[4]}, reason {removed[5]}")
        rounds += 1
    print(f"  a client added and removed {rounds} times", flush=True)


def main():
    path, device, clients = sys.argv[1], sys.argv[2], int(sys.argv[3])
    signal.signal(signal.SIGTERM, stop)
    children = []
    for _ in range(clients):
        pid = os.fork()
        if pid == 0:
            memfd = sealed_memfd(SIZE)
            os.pwrite(memfd, b"\1" * SIZE, 0)
            churn(path, device, memfd)
            os._exit(0)
        children.append(pid)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGTERM) for child in children])
    failed = False
    for child in children:
        _, status = os.waitpid(child, 0)
        failed |= status != 0
    sys.exit(failed)


main()
