"""churn_clients.py SOCKET DEVICE CLIENTS [crashes]: each adds and removes buffers in a loop
until SIGTERM, over one connection that must outlive every server.  Says when it has begun, and
at the end how many times.

An ADD may be answered twice when servers change, so answers are matched by their number; one that
never comes is a failure.  Only with "crashes" it is not: then the client connects again."""
import itertools
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from wire_client import ADD, HELLO, REMOVE, REPLY, Client, HungUp, request, sealed_memfd  # noqa: E402

crashes = sys.argv[4:] == ["crashes"]
ANSWER_SECONDS = 3 if crashes else 120
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


def ask(client, kind, seq, fd=None, **fields):
    client.send(request(kind, seq=seq, **fields), fd)
    reply = answer(client, kind, seq)
    if reply[4]:
        sys.exit(f"request {kind} refused: status {reply[4]}, reason {reply[5]}")
    return reply[7]


def churn(path, device, memfd):
    rounds = 0
    proof = os.open(device, os.O_RDWR)
    while not stopping:
        try:
            client = Client(path)
            ask(client, HELLO, 1, proof)
            for seq in itertools.count(2, 2):
                if stopping:
                    break
                index = ask(client, ADD, seq, memfd, length=SIZE)
                if not rounds:
                    print("  a client has begun", flush=True)
                ask(client, REMOVE, seq + 1, index=index)
                rounds += 1
        except (TimeoutError, HungUp, ConnectionError):
            if not crashes:
                raise
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
