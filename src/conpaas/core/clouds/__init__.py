"""One interface to every cloud, and its drivers."""
