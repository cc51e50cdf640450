"""What has to be installed before anything is measured."""

from __future__ import annotations

from .deno import deno_command
from .limit import find_wrk
from .served import dbos_command


def require_deno() -> None:
    """The engine's runtime.

    Raises:
        EmulatorError: it is not installed; says how to get it.
    """
    deno_command("engine.ts")


def require_all() -> None:
    """Everything that a contender is.

    Raises:
        EmulatorError: something is not installed; says how to get it.
    """
    require_deno()
    dbos_command()
    find_wrk()
