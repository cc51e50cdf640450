"""The sections, in the order in which they are run and reported."""

from __future__ import annotations

from collections.abc import Sequence

from ..scale_out import SCALE_OUT
from ..section import Section
from .clients import CLIENTS_SECTION
from .cold_start import COLD_START
from .contests import BATCHED, DURABILITY, FAN_OUT, TAIL
from .history import HISTORY
from .million import MILLION

SECTIONS: Sequence[Section] = (
    *(FAN_OUT, TAIL, BATCHED, MILLION, DURABILITY),
    *(COLD_START, HISTORY, CLIENTS_SECTION, SCALE_OUT),
)
