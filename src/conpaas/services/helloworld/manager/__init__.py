"""The manager side of the helloworld service."""
