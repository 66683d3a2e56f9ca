"""The Director's HTTP endpoints, one module per subject."""
