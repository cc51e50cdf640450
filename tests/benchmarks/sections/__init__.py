"""The sections, in the order in which they are run and reported."""

from __future__ import annotations

from collections.abc import Sequence

from ..section import Section
from .batched import BATCHED
from .clients import CLIENTS_SECTION
from .cold_start import COLD_START
from .durability import DURABILITY
from .fan_out import FAN_OUT
from .history import HISTORY
from .million import MILLION
from .scale_out import SCALE_OUT
from .tail import TAIL

SECTIONS: Sequence[Section] = (
    FAN_OUT,
    TAIL,
    BATCHED,
    MILLION,
    DURABILITY,
    COLD_START,
    HISTORY,
    CLIENTS_SECTION,
    SCALE_OUT,
)
