"""The sections of docs/operations.md: each incident is caused, checked and fixed by the commands in it."""
