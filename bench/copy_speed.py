"""Copies files into fresh memory, as loading must at least do, with all CPUs and huge pages; prints bytes per second.

Usage: python3 copy_speed.py FILE...
"""
import mmap
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PIECE_BYTES = 8 << 20


def copy_piece(path, offset, destination):
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        file.readinto(destination)


def main():
    pieces = [
        (path, offset, min(PIECE_BYTES, os.path.getsize(path) - offset))
        for path in sys.argv[1:]
        for offset in range(0, os.path.getsize(path), PIECE_BYTES)
    ]
    start = time.monotonic()
    memory = mmap.mmap(-1, sum(size for _, _, size in pieces))
    memory.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(memory)
    at = 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for path, offset, size in pieces:
            pool.submit(copy_piece, path, offset, view[at : at + size])
            at += size
    print(at / (time.monotonic() - start))


main()
