"""The service framework: knows no service, no Director and no client."""
