"""JSON merge patch, RFC 7396: how every PATCH changes what is stored."""

from __future__ import annotations

from typing import Any


def merge_patch(document: Any, patch: Any) -> Any:
    """Return a document with a patch applied; neither is changed.

    RFC 7396, section 2: a member that the patch does not name stays, null removes it, objects are merged member by
    member, and any other value, arrays too, replaces what was there.

    Args:
        document: Any JSON value.
        patch: Any JSON value.
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
