#!/usr/bin/env python3
"""Write records that must be durable, and mark in a dm-log-writes log when each was.

usage: durable.py DEVICE DM_NAME RECORDS

Record I is at block I (4096 bytes). It is written by direct I/O and made durable by
fdatasync (FLUSH) or by writing with RWF_DSYNC (FUA); then "mark I" is put in the log.
"""
import mmap
import os
import random
import subprocess
import sys

BLOCK = 4096


def record(number):
    return (f"record {number} " * BLOCK).encode()[:BLOCK]


def main():
    device, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    memory = mmap.mmap(-1, 1 << 20)  # shared, and large enough to be worth registering
    buffer = memoryview(memory)[:BLOCK]
    for number in range(count):
        buffer[:] = record(number)
        fua = random.random() < 0.5
        os.pwritev(fd, [buffer], number * BLOCK, os.RWF_DSYNC if fua else 0)
        if not fua:
            os.fdatasync(fd)
        subprocess.run(["dmsetup", "message", name, "0", f"mark {number}"], check=True)


if __name__ == "__main__":
    main()
