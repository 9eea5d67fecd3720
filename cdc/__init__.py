"""How changes get into Kafka, and the small runtime that both sides share."""

__all__: list[str] = []
