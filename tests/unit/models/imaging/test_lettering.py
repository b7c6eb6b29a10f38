"""Names in any script become letters, not boxes; what no font has is said."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import features

from vultus.models.imaging.lettering import render_text

needs_raqm = pytest.mark.skipif(not features.check("raqm"), reason="the machine has no FriBiDi")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("José Ñandú", "Jose Nandu"),
        ("Дмитрий", "Дмитрик"),
        ("Ελένη", "Ελενη"),
        ("张伟", "李娜"),
        ("山田太郎 (Tarō)", "山田次郎 (Jirō)"),
        ("김민준", "박민준"),
        ("สมชาย", "สมหญิ"),
        ("Հայկ", "Հակյ"),
        ("👩 Ada", "👨 Ada"),
        pytest.param("محمد", "محمود", marks=needs_raqm),
        pytest.param("नमस्ते", "नमस्कार", marks=needs_raqm),
        pytest.param("ශ්\u200dරී", "ශ්රී", marks=needs_raqm),
    ],
)
def test_every_letter_is_drawn_as_itself(first: str, second: str) -> None:
    one, other = render_text(first, 28), render_text(second, 28)

    assert one is not None
    assert other is not None
    assert one.any()
    assert not np.array_equal(one, other)


@needs_raqm
def test_arabic_is_written_from_right_to_left_with_joined_letters() -> None:
    joined, separate = render_text("ببب", 40), render_text("ب ب ب", 40)
    mixed = render_text("محمد Ada", 40)

    assert joined is not None
    assert separate is not None
    assert mixed is not None
    assert joined.shape[1] < separate.shape[1]
    latin = render_text("Ada", 40)
    assert latin is not None
    assert np.array_equal(mixed[:, : latin.shape[1] // 2], latin[:, : latin.shape[1] // 2])


@pytest.mark.parametrize("text", ["\U00013000", "Ada \U00013000", "\U000e0041\ue000"])
def test_letters_without_a_font_are_said(text: str) -> None:
    assert render_text(text, 28) is None


def test_without_layout_a_script_that_joins_is_not_written_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _: False)

    assert render_text("محمد", 28) is None
    assert render_text("José 张伟", 28) is not None
