from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

__all__ = ["Writer"]

class Column(Protocol):
    @property
    def place(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def native(self) -> str: ...
    @property
    def scale(self) -> int: ...
    @property
    def optional(self) -> bool: ...
    @property
    def encode(self) -> Callable[[bytes], bytes | None]: ...

Plain: TypeAlias = Callable[[bytes, int], Iterable[tuple[bytes | None, bytes | None]]]
Message: TypeAlias = dict[str, bytes | None]

class Writer:
    def __init__(
        self,
        width: int,
        row: Sequence[Column],
        key: Sequence[Column],
        frames: tuple[bytes, bytes],
        absent_but_key: bytes,
    ) -> None: ...
    def pgoutput(
        self,
        items: list[bytes],
        ordinals: Sequence[int],
        blocks: tuple[bytes, bytes],
        out: list[Message],
        plain: Plain,
    ) -> int: ...
    def copy(
        self,
        items: list[bytes],
        ordinals: Sequence[int],
        blocks: tuple[bytes, bytes],
        out: list[Message],
        plain: Plain,
    ) -> int: ...
