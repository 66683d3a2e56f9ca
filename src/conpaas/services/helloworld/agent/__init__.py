"""The agent side of the helloworld service."""
