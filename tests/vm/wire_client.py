"""tests/vm/wire_client.py - docs/wire.md spoken by hand, for clients that misbehave."""
import array
import fcntl
import os
import socket
import struct

MAGIC, VERSION = 0x315A4355, 1
HELLO, ADD, REMOVE, PING = 1, 2, 3, 4
BAD_MESSAGE = 1
REQUEST = struct.Struct("<IHHIIQQII24x")
REPLY = struct.Struct("<IHHIiHHIIIQ24x")


def request(kind, seq=1, length=0, index=0):
    return REQUEST.pack(MAGIC, VERSION, kind, seq, 0, 0, length, index, 0)


def sealed_memfd(size):
    fd = os.memfd_create("client", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, 1033, 1 | 2 | 4)  # F_ADD_SEALS: SEAL, SHRINK, GROW
    return fd


class Refused(Exception):
    """The server answered with a reason."""

    def __init__(self, status, reason):
        super().__init__(f"status {status}, reason {reason}")
        self.reason = reason


class HungUp(Exception):
    """The server ended the connection."""


class Client:
    def __init__(self, path, timeout=30):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(timeout)
        self.socket.connect(path)

    def send(self, data, fd=None):
        fds = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            self.socket.sendmsg([data], fds)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise HungUp from error

    def reply(self):
        """The next reply: its index.  Raises Refused or HungUp."""
        try:
            data = self.socket.recv(REPLY.size)
        except ConnectionResetError as error:
            raise HungUp from error
        if not data:
            raise HungUp
        fields = REPLY.unpack(data)
        if fields[4]:
            raise Refused(fields[4], fields[5])
        return fields[7]

    def ask(self, kind, fd=None, **fields):
        self.send(request(kind, **fields), fd)
        return self.reply()

    def close(self):
        self.socket.close()
