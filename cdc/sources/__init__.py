"""Source connectors: one module and one page per system."""

__all__: list[str] = []
