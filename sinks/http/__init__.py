"""Changes as requests to an HTTP endpoint."""

__all__: list[str] = []
