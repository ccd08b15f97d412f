"""The app as its next minor version could be, as far as its migrations go: they only add."""
