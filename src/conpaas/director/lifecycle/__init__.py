"""What the Director does to applications, nodes and volumes, as durable operations."""
