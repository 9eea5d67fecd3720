"""Bytes of a wire protocol → messages; no I/O and no waiting."""

__all__: list[str] = []
