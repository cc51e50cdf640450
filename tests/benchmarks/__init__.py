"""This function measured beside its alternatives: see README.md."""
