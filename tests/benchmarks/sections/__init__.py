"""The sections, in the order in which they are run and reported."""

from __future__ import annotations

from collections.abc import Sequence

from ..section import Section
from .batched import BATCHED
from .fan_out import FAN_OUT
from .tail import TAIL

SECTIONS: Sequence[Section] = (FAN_OUT, TAIL, BATCHED)
