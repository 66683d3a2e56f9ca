"""The command line: cps-tools and its shortcuts."""
