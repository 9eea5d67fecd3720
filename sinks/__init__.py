"""How changes get out of Kafka and into the systems that need them."""

__all__: list[str] = []
