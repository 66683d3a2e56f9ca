"""HTTPS with mutual TLS: server, client, certificates and who may call whom."""
