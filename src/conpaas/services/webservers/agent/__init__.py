"""The agent of web hosting services: one class per role of a node."""
