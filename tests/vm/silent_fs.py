"""tests/vm/silent_fs.py SOCKET LEGACY_SOCKET DEVICE - descriptors of a file system whose server never answers.

A FUSE file system answers until its one file is open, and then nothing that is asked about it.  Such
a descriptor is sent in each place where the server takes one; it is to be refused, in no time, and others
are served.  As root, who alone may speak the older protocol.
"""
import ctypes
import os
import signal
import socket
import struct
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from wire_client import ADD, HELLO, PING, Client, Refused

LOOKUP, FORGET, GETATTR, OPEN, INIT = 1, 2, 3, 14, 26
ROOT, FILE = 1, 2


def attributes(node):
    mode = 0o40755 if node == ROOT else 0o100666
    return struct.pack("<6Q10I", node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(opcode, node):
    """What the kernel is told; None: nothing, ever."""
    if opcode == INIT:
        return struct.pack("<4I2HIIHH8I", 7, 31, 65536, 0, 0, 0, 65536, 1, 0, 0, *([0] * 8))
    if opcode == LOOKUP:
        # Its attributes are valid for no time, so they are asked for again.
        return struct.pack("<4Q2I", FILE, 1, 0, 0, 0, 0) + attributes(FILE)
    if opcode == GETATTR and node == ROOT:
        return struct.pack("<Q2I", 0, 0, 0) + attributes(ROOT)
    if opcode == OPEN:
        return struct.pack("<Q2I", 1, 0, 0)
    return None


def serve(fuse, in_vain):
    while True:
        request = os.read(fuse, 1 << 18)
        _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        body = answer(opcode, node)
        if body is not None:
            os.write(fuse, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)
        elif opcode != FORGET:
            os.write(in_vain, bytes([opcode]))


def silent_file():
    """The file, its server's process, and what will tell of what was asked in vain."""
    libc = ctypes.CDLL(None, use_errno=True)
    where = tempfile.mkdtemp()
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"silent", where.encode(), b"fuse", 0, options.encode()):
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    told, in_vain = os.pipe()
    server = os.fork()
    if not server:
        serve(fuse, in_vain)
    os.close(fuse)
    os.close(in_vain)
    fd = os.open(where + "/file", os.O_RDWR)
    libc.umount2(where.encode(), 2)  # MNT_DETACH
    os.rmdir(where)
    return fd, server, told


def refused(what, ask):
    try:
        ask()
    except Refused as refusal:
        print(f"  {what} that nobody answers for: {refusal}")
        return
    sys.exit(f"{what}: was not refused")


def by_the_older_protocol(path, fd):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(path)
    socket.send_fds(sock, [b"x"], [fd])
    index = struct.unpack("i", sock.recv(4))[0]
    if index < 0:
        raise Refused(index, 0)


def main():
    path, legacy, device = sys.argv[1:]
    bystander = Client(path)
    bystander.ask(HELLO, os.open(device, os.O_RDWR))
    client = Client(path)
    client.ask(HELLO, os.open(device, os.O_RDWR))
    fd, server, told = silent_file()
    for what, ask in (
        ("a proof of access", lambda: Client(path).ask(HELLO, fd)),
        ("memory", lambda: client.ask(ADD, fd, length=4096)),
        ("memory by the older protocol", lambda: by_the_older_protocol(legacy, fd)),
    ):
        refused(what, ask)
        bystander.ask(PING)
    # Whoever waits has an error then.
    os.kill(server, signal.SIGKILL)
    if GETATTR in os.read(told, 1 << 16):
        sys.exit("somebody has asked for its attributes, and waited")


if __name__ == "__main__":
    main()
