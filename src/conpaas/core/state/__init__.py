"""The durable state of a manager."""
