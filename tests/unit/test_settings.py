"""Settings from the environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from vultus.settings import Settings


def variables(model: type[BaseModel], prefix: str = "VULTUS_") -> Iterator[str]:
    """Yield the variable of every section and field."""
    for name, field in model.model_fields.items():
        yield prefix + name.upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variables(field.annotation, f"{prefix}{name.upper()}__")


@pytest.mark.parametrize("variable", list(variables(Settings)))
def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv(variable, raising=False)
    unset = Settings()
    monkeypatch.setenv(variable, "")

    assert Settings() == unset


@pytest.mark.parametrize("given", [{"server": {"host": ""}}])
def test_an_option_cannot_select_all_networks_by_naming_none(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="host"):
        Settings(**given)


def test_a_pool_has_a_connection_for_readers_beside_that_for_writers() -> None:
    with pytest.raises(ValidationError, match="pool_size"):
        Settings(database={"pool_size": 1})
