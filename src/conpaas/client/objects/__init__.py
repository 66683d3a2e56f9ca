"""The objects of the command line: one module for each, loaded when it is used."""
