"""The reference engine, as its own tests have it."""

from tests.integration.reference_engine.conftest import engine_project, programme

__all__ = ["engine_project", "programme"]
