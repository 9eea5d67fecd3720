from collections.abc import Callable

__all__ = ["ImageReader"]

KINDS: dict[str, int]

class ImageReader:
    width: int
    def __init__(
        self,
        columns: tuple[tuple[str, int, int], ...],
        readers: tuple[Callable[[bytes, int], tuple[bytes, int]], ...],
    ) -> None: ...
    def packed(self, kind: bytes, data: bytes) -> list[bytes]: ...
