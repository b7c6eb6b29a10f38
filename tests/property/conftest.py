"""Properties are tried on hundreds of examples: the lines they reach, as other tests do, are not counted."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def unmeasured_examples(unmeasured: None) -> None:
    """As `unmeasured`, of every test here."""
