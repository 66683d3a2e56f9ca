"""Applications that are there for the asking: each folder has a manifest and says of which Debian packages its archive is made."""
