"""Settings of functions in these tests."""

from __future__ import annotations


def batches_of(users: int, **others: object) -> dict[str, str]:
    """Return settings for batches of so many users, each one call to the engine, and others in lower case."""
    settings = {"evaluation_batch_size": users, "engine_users_per_call": users} | others
    return {name.upper(): str(value) for name, value in settings.items()}
