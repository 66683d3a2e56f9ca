"""The agent side of the generic service."""
