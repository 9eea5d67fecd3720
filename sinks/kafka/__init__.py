"""What targets keep in Kafka: cursors, and, of a topic as a target, the records."""

__all__: list[str] = []
