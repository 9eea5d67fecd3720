"""Comparing sides that sort keys differently: all rows of both, put into buckets by their key.

    source ─▶ key and hash of each row ─▶ bucket 0 … n-1 ─┐
    target ─▶ key and hash of each row ─▶ bucket 0 … n-1 ─┴─▶ bucket by bucket: keys in doubt

Buckets are files in a temporary folder, about 40 bytes and the key for each row; memory holds one
bucket of each side.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from cdc.verify.compare import Found, Pair, unequal
from cdc.verify.readable import Piece, Readable, Row

__all__ = ["scattered"]

_BUCKET = 100_000
_MOST = 256
"""Files that are open at once, of each side."""


def scattered(pair: Pair, estimate: int) -> Generator[Found, None, None]:
    """Yield what each bucket gave. Raises as the sides do."""
    count = min(_MOST, estimate // _BUCKET + 1)
    with TemporaryDirectory(prefix="cdc-verify-") as name, ThreadPoolExecutor(2) as threads:
        folders = [Path(name, side) for side in ("ours", "theirs")]
        sides = zip((pair.ours, pair.theirs), folders, strict=True)
        written = [threads.submit(_scatter, pair, side, to, count) for side, to in sides]
        for future in written:
            future.result()
        for bucket in range(count):
            ours, theirs = (dict(_read(folder / str(bucket))) for folder in folders)
            yield Found(len(ours), len(theirs), unequal(ours, theirs, bytes.__eq__))


def _scatter(pair: Pair, side: Readable, folder: Path, count: int) -> None:
    folder.mkdir()
    with ExitStack() as stack:
        files = [stack.enter_context((folder / str(n)).open("wb")) for n in range(count)]
        for key, row in pair.normalised(side.rows(Piece())):
            place = int.from_bytes(blake2b(repr(key).encode(), digest_size=4).digest(), "big")
            digest = blake2b(repr(row).encode(), digest_size=16).digest()
            record = msgspec.msgpack.encode((key, digest))
            files[place % count].write(len(record).to_bytes(4, "big") + record)


def _read(path: Path) -> Iterator[tuple[Row, bytes]]:
    decode = msgspec.msgpack.Decoder(tuple[Row, bytes]).decode
    with path.open("rb") as file:
        while head := file.read(4):
            yield decode(file.read(int.from_bytes(head, "big")))
