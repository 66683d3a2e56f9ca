"""Drive a service manager in memory: state in, state out."""
