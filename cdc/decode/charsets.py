"""Texts in a server's character set → UTF-8.

Only what has been compared with a real server, character by character, is in the table; a test
does so again. MySQL's latin1 is Windows-1252 with the five bytes that has no character for.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

__all__ = ["CODECS", "Decode", "decoder"]

Decode = Callable[[bytes], bytes]

CODECS: dict[str, str] = {
    "cp1250": "cp1250",
    "cp1251": "cp1251",
    "cp1256": "cp1256",
    "cp1257": "cp1257",
    "cp850": "cp850",
    "cp852": "cp852",
    "koi8r": "koi8-r",
    "latin2": "iso8859-2",
    "latin5": "iso8859-9",
    "latin7": "iso8859-13",
    "ucs2": "utf-16-be",
    "utf16": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32-be",
}
"""Character set of the server → Python's codec; those that are UTF-8 already need none."""

_UTF8 = {"ascii", "utf8", "utf8mb3", "utf8mb4"}
_LATIN1 = "".join(
    chr(byte) if byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else bytes([byte]).decode("cp1252")
    for byte in range(256)
)


def decoder(charset: str) -> Decode | None:
    """Return what turns a text of `charset` into UTF-8, None for one that is.

    Raises `ValueError` for a character set that is not in the table.
    """
    if charset in _UTF8:
        return None
    if charset == "latin1":
        return _latin1
    if charset not in CODECS:
        raise ValueError(f"character set {charset} cannot be read")
    codec = CODECS[charset]
    return lambda text: text.decode(codec).encode()


def _latin1(text: bytes) -> bytes:
    if text.isascii():
        return text
    return codecs.charmap_decode(text, "strict", _LATIN1)[0].encode()
