"""The parts of the files target: names, formats, and the store they lie in."""

__all__: list[str] = []
