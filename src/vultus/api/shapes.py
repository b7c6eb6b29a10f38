"""What a route reads of a body: which fields there are, which of them are photos, which may come several times."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args, get_origin

from fastapi import UploadFile
from pydantic import BaseModel

from vultus.schemas.base import ApiModel


@dataclass(frozen=True)
class BodyShape:
    """What a route reads of a body.

    Attributes:
        model: Of the form or JSON.
        is_form: Whether it is a form.
    """

    model: type[ApiModel]
    is_form: bool

    @cached_property
    def photos(self) -> tuple[str, ...]:
        """Names of the fields of a form that are photos."""
        return tuple(name for name, field in self.model.model_fields.items() if _has_upload(field.annotation))

    @cached_property
    def lists(self) -> frozenset[str]:
        """Names of the fields of a form that may come several times."""
        return frozenset(
            name for name, field in self.model.model_fields.items() if get_origin(field.annotation) is list
        )

    def list_known_names(self, path: tuple[int | str, ...]) -> tuple[str, ...]:
        """Return the names that are known where a path of fields leads; none where it leads to no object.

        Args:
            path: Of fields and positions in lists, from the body on.
        """
        model: type[BaseModel] | None = self.model
        for step in path:
            if model is None:
                return ()
            if isinstance(step, str):
                model = find_model(model.model_fields[step].annotation) if step in model.model_fields else None
        return tuple(model.model_fields) if model else ()


def _has_upload(annotation: Any) -> bool:
    return annotation is UploadFile or any(map(_has_upload, get_args(annotation)))


def find_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model in a type such as `list[Model]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := find_model(part))), None)
