"""Checksums of a cache's rows, block by block."""

import zlib

import numpy as np

__all__ = ["BLOCK_ROWS", "extend_checksums"]

BLOCK_ROWS = 1024  # part of the files' format


def extend_checksums(checksums, before, rows):
    """Returns the checksums of an output's blocks after more rows.

    A block is 1,024 rows, in the order of the file, wherever the batches end that bring them: a file that was written
    with interruptions has the checksums of one that was not.

    Args:
        checksums: list of the CRC-32 of each block of the rows so far; the last block may be begun.
        before: number of rows so far.
        rows: C-contiguous array of the rows that follow.
    """
    checksums = list(checksums)
    while len(rows):
        begun = before % BLOCK_ROWS
        if not begun:
            checksums.append(0)
        piece, rows = np.split(rows, [BLOCK_ROWS - begun])
        # A CRC goes on from that of what came before: the last block's is that of its rows so far.
        checksums[-1] = zlib.crc32(piece, checksums[-1])
        before += len(piece)
    return checksums
