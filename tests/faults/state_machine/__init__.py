"""The SQL functions in any order: every interleaving over one batch, and longer stories by hypothesis."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.invariants", f"{__name__}.steps")
