"""A scenario trigger engine that does what a test's script says, over real HTTP, and remembers everything.

    async with ScriptedEngine(token="t", rules=[rules.fail_every(3), rules.items_retryable({poor}, times=2)]) as engine:
        ...                                     # let something call engine.url
        assert not engine.notified_twice

What an innocent pair comes to is a pure function of (user_id, scenario_type): a test can compare results between
different batch sizes, orders and failures, user by user.
"""

from . import hostile, rules
from .exchange import Call, Item, Proceed, Reply, Rule
from .server import ScriptedEngine

__all__ = ["Call", "Item", "Proceed", "Reply", "Rule", "ScriptedEngine", "hostile", "rules"]
