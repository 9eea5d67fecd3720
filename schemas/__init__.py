"""What a change is: the model, its types and its Avro form; pure but for the registry."""

__all__: list[str] = []
