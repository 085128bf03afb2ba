#!/usr/bin/env python3
"""What a disk holds after a power failure, from a log of the kernel's dm-log-writes.

usage: replay.py LOG IMAGE_SIZE records
       replay.py LOG IMAGE_SIZE image MARK OUTPUT

The target logs a write only when it is durable: at the FLUSH after it, or at once with
FUA. So replaying the log up to a mark yields what survives a failure at that moment.
"records" checks that each record of durable.py is there at its mark; "image" writes the
disk as it was at MARK. The format: drivers/md/dm-log-writes.c.
"""
import struct
import sys

from durable import BLOCK, record

MAGIC = 0x6A736677736872
DISCARD, MARK = 4, 8


def entries(path):
    """Yields (flags, byte offset, length in bytes, data)."""
    with open(path, "rb") as log:
        magic, version, count, sector = struct.unpack("<QQQI", log.read(28))
        if magic != MAGIC or version != 1:
            sys.exit(f"replay.py: {path} is no log of dm-log-writes")
        position = sector
        for _ in range(count):
            log.seek(position)
            start, sectors, flags, data_len = struct.unpack("<QQQQ", log.read(32))
            position += sector
            if flags & MARK:
                yield flags, 0, 0, log.read(data_len)
            elif flags & DISCARD:
                yield flags, start * sector, sectors * sector, b""
            else:
                log.seek(position)
                yield flags, start * sector, sectors * sector, log.read(sectors * sector)
                position += sectors * sector


def states(path, size):
    """Yields (mark, the disk at that mark)."""
    disk = bytearray(size)
    for flags, offset, length, data in entries(path):
        if flags & MARK:
            yield data.rstrip(b"\0").decode(), disk
        elif flags & DISCARD:
            disk[offset : offset + length] = bytes(length)
        else:
            disk[offset : offset + length] = data


def check_records(path, size):
    checked = 0
    for mark, disk in states(path, size):
        if not mark.isdigit():
            continue  # the target's own, at its end
        number = int(mark)
        for earlier in range(number + 1):
            if disk[earlier * BLOCK : (earlier + 1) * BLOCK] != record(earlier):
                sys.exit(f"replay.py: record {earlier} is lost by a power failure at mark {number}")
        checked += 1
    print(f"  {checked} marks: no durable record is lost by a power failure there")
    if not checked:
        sys.exit("replay.py: no marks in the log")


def main():
    path, size, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if what == "records":
        check_records(path, size)
        return
    for mark, disk in states(path, size):
        if mark == sys.argv[4]:
            with open(sys.argv[5], "wb") as output:
                output.write(disk)
            return
    sys.exit(f"replay.py: no mark {sys.argv[4]} in the log")


if __name__ == "__main__":
    main()
