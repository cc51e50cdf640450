"""The reference scenario trigger engine: a small real one, for the local emulator and as a model for others.

It speaks the engine contract over HTTP and decides in the database; the rules are documented in schema.sql.
"""
