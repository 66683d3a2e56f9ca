"""One interface to every cloud (`base`), its drivers (`dummy` …), and the way from configuration to them (`factory`)."""
