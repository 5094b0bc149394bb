"""
The progress of the workers in the run directory, for the time after a ``kill -9`` of everything.

Rewritten in place several times a second: the kernel keeps what a killed process wrote, and a run
directory in memory costs no disk. The ledger has the same once a second, in case the machine dies.
"""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.progress import Progress

CHECKSUM_BYTES = 4


class SavedProgress(NamedTuple):
    """The last progress of an earlier run."""

    network: str
    topics: list[Progress]


class _Content(msgspec.Struct, array_like=True, frozen=True):
    network: str
    workers: list[bytes]


class ProgressFile:
    """
    The file of one pipeline.

    Args:
        path: Where it is.
        network: Network of the progress.
    """

    def __init__(self, path: Path, network: str) -> None:
        self._path = path
        self._network = network
        self._descriptor: int | None = None
        self._written: list[bytes] = []
        self._encode = msgspec.msgpack.Encoder().encode

    def read(self) -> SavedProgress | None:
        """Return what an earlier run has left; None if it is nothing, or not complete."""
        try:
            content = self._path.read_bytes()
            checksum, packed = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
            size = int.from_bytes(packed[:CHECKSUM_BYTES], "big")
            packed = packed[CHECKSUM_BYTES : CHECKSUM_BYTES + size]
            if len(packed) != size or zlib.crc32(packed).to_bytes(4, "big") != checksum:
                return None
            saved = msgspec.msgpack.decode(packed, type=_Content)
            topics = [each for worker in saved.workers for each in codec.decode_progress(worker)]
        except (OSError, msgspec.DecodeError, CodecError):
            return None
        return SavedProgress(saved.network, topics)

    def write(self, workers: Iterable[bytes]) -> None:
        """Replace the content, if it has changed; a full disk costs exactness alone."""
        current = list(workers)
        if current == self._written:
            return
        self._written = current
        packed = self._encode(_Content(self._network, current))
        head = zlib.crc32(packed).to_bytes(CHECKSUM_BYTES, "big")
        head += len(packed).to_bytes(CHECKSUM_BYTES, "big")
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._descriptor = os.open(self._path, flags, 0o600)
            os.pwrite(self._descriptor, head + packed, 0)
        except OSError:
            pass

    def close(self) -> None:
        """Remove the file: after an orderly end the ledger has everything."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._path.unlink(missing_ok=True)
