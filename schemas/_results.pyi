from collections.abc import Callable

__all__ = ["ResultReader"]

KINDS: dict[str, int]

class ResultReader:
    width: int
    def __init__(
        self,
        kinds: tuple[str, ...],
        makes: tuple[Callable[[bytes], bytes] | None, ...],
    ) -> None: ...
    def take(self, block: bytes, number: int) -> tuple[list[bytes], int, int]: ...
    def line(self, row: bytes) -> bytes: ...
