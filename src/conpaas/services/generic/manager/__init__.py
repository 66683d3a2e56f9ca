"""The manager side of the generic service."""
