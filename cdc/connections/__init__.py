"""How to reach and authenticate to systems that are both source and target: one file each."""

__all__: list[str] = []
