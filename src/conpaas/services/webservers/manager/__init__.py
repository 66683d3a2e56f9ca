"""The manager of web hosting services: where roles are placed, what is deployed, and with which settings."""
