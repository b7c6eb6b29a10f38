"""Callers read our sentences: no message of a framework, whatever is wrong with whatever field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import core_schema
from pydantic_core._pydantic_core import list_all_errors

from tests.contracts.test_openapi import SHAPES
from vultus.api.sentences import SENTENCES, list_invalid_fields
from vultus.api.shapes import BodyShape, find_model

TYPES = {found["type"]: found for found in list_all_errors()}
WRONG: list[Any] = [None, True, 0, -1, 1.5, 10**400, float("nan"), "", "x", "\ud800", "a" * 3000, "1" * 5000]
WRONG += ["2030-01-01", "2030-01-01T00:00:00", "9999-12-31T00:00:00Z", [], [[]], ["x"] * 6000, {}, {"x": {"": None}}]


def list_wrong_values(model: type[BaseModel]) -> Iterator[Any]:
    """Wrong values of a model, and of each field at every depth."""
    yield from WRONG
    for name, field in model.model_fields.items():
        inner = find_model(field.annotation)
        for value in WRONG if inner is None else list_wrong_values(inner):
            yield {name: value}
            yield {name: [value]}


def test_every_type_of_error_has_a_sentence_of_ours() -> None:
    assert TYPES.keys() == set(get_args(core_schema.ErrorType))
    for kind, described in TYPES.items():
        error = {"type": kind, "loc": ("body", "name"), "ctx": described["example_context"] or {}}

        (found,) = list_invalid_fields([error])

        assert found["message"] not in {described["example_message_python"], described.get("example_message_json")}, (
            kind
        )


@pytest.mark.parametrize("name", SHAPES)
def test_whatever_is_wrong_with_a_body_is_said_in_words_of_its_own(name: str) -> None:
    shape: BodyShape = SHAPES[name]
    adapter = TypeAdapter(shape.model)
    for value in list_wrong_values(shape.model):
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            errors = error.errors()
            located = [{**one, "loc": ("body", *one["loc"])} for one in errors]
            for raw, translated in zip(errors, list_invalid_fields(located, shape), strict=True):
                assert raw["type"] in {*SENTENCES, "extra_forbidden"}, raw
                assert raw["msg"] not in translated["message"]
