"""The sections of docs/operations.md: brought about, seen as it says, and mended by what it says to press."""
