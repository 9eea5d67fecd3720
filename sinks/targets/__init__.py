"""One module per system changes are written to; the file's name is the `type:` in YAML."""

__all__: list[str] = []
