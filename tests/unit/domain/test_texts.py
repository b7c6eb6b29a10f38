"""The one rule for texts: what is kept, in which form, and how any text is shown."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pytest

from vultus.domain.metadata import normalize_metadata
from vultus.domain.texts import normalize_moment, normalize_text
from vultus.utils.characters import escape_json, escape_text

INVISIBLE = [
    *("\x00", "\x07", "\x1b", "\x7f", "\x80", "\x85", "\x9b", "\x9f", "\t", "\n", "\r"),
    *("\u00ad", "\u034f", "\u061c", "\u115f", "\u180e", "\u200b", "\u200e", "\u200f", "\u2028", "\u2029"),
    *(chr(code) for code in (*range(0x202A, 0x202F), *range(0x2060, 0x2070))),
    *("\u2800", "\u3164", "\ue000", "\ufe0f", "\ufeff", "\uffa0", "\ufff9", "\ufffc", "\ufffd", "\ufffe", "\uffff"),
    *("\ud800", "\udfff", "\U000e0001", "\U000e0041", "\U000e0100", "\U000f0000", "\U0010ffff", "\u0378"),
]
LANGUAGES = {
    "Chinese": "张伟",
    "an ideograph with a variant": "葛\U000e0100城",
    "Arabic": "محمد بن عبد الله",
    "Persian, with a non-joiner": "نسترن می\u200cخواهم",
    "Hindi, with a joiner": "क्\u200dष नमस्ते",
    "Sinhala, with a joiner": "ශ්\u200dරී ලංකා",
    "Thai": "สมชาย",
    "Hebrew with points": "מֹשֶׁה",
    "Bengali, with a joiner before a mark": "র\u200d্যাব",
    "Tibetan": "བསྒྲུབས་",
    "Vietnamese": "Nguyễn Thị Minh Khai",
    "Hangul": "김민준",
    "emoji": "team 👩\u200d💻 ❤\ufe0f 👋🏽",
    "punctuation": "O’Neill-Müller, Jr. <b> [/x] $' \\x1b",
}


@pytest.mark.parametrize("char", INVISIBLE, ids=lambda char: f"U+{ord(char):04X}")
def test_what_is_invisible_or_commands_is_refused_and_shown_as_an_escape(char: str) -> None:
    with pytest.raises(ValueError, match=f"U\\+{ord(char):04X}"):
        normalize_text(f"A{char}da", max_length=200)

    shown = escape_text(f"A{char}da")
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.startswith("A\\")


def test_a_byte_that_is_not_utf_8_is_named_as_one() -> None:
    name = b"Jos\xe9".decode("utf-8", "surrogateescape")

    with pytest.raises(ValueError, match=r"must not contain \\xe9, a byte that is not UTF-8"):
        normalize_text(name, max_length=200)
    assert escape_text(name) == r"Jos\xe9"


@pytest.mark.parametrize("name", LANGUAGES.values(), ids=LANGUAGES)
def test_names_of_every_language_stay_as_they_are(name: str) -> None:
    assert normalize_text(name, max_length=200) == unicodedata.normalize("NFC", name)
    assert escape_text(name) == name
    assert escape_json(json.dumps(name, ensure_ascii=False)) == json.dumps(name, ensure_ascii=False)


@pytest.mark.parametrize(
    "text",
    ["A\u200dda", "A\u200cda", "张\u200d伟", "\u200dनमस्ते", "नमस्ते\u200d", "م\u200cA", "a\ufe0f", "e\u0301\U000e0100"],
)
def test_a_joiner_or_variant_where_no_language_needs_it_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an invisible character"):
        normalize_text(text, max_length=200)


@pytest.mark.parametrize("text", ["\u0301", "\u0301Ada", "Ada \u0308Ada", "\u200d\u0301", "Ada" + "\u0301" * 31])
def test_a_mark_stands_on_a_letter_and_does_not_pile_up(text: str) -> None:
    with pytest.raises(ValueError, match=r"a mark without a letter|an invisible character|after 30 others"):
        normalize_text(text, max_length=200)

    assert escape_text(text)[0] in "\\A"
    assert normalize_text("A" + "\u0323" * 30, max_length=200) == "\u1ea0" + "\u0323" * 29


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" E-7 ", "E-7"),
        ("\u3000山田\u3000太郎\u00a0", "山田 太郎"),
        ("Zoe\u0308", "Zoë"),
        ("\u212b", "\u00c5"),
        ("x" * 200 + "   ", "x" * 200),
    ],
)
def test_texts_are_kept_in_one_form(text: str, kept: str) -> None:
    assert normalize_text(text, max_length=200) == kept
    assert normalize_text(kept, max_length=200) == kept


@pytest.mark.parametrize("text", ["", "   ", "\u00a0\u3000"])
def test_a_blank_text_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="empty or blank"):
        normalize_text(text, max_length=200)


@pytest.mark.parametrize("text", ["x" * 201, "ü" * 201, "x" * 10**7])
def test_length_is_counted_in_characters(text: str) -> None:
    normalize_text("😀" * 200, max_length=200)
    with pytest.raises(ValueError, match=f"at most 200 characters; it has {len(text)}"):
        normalize_text(text, max_length=200)


def test_every_character_can_be_shown() -> None:
    # From the end of the ideographs on nearly none is assigned, but the invisible ones and variants of plane 14.
    tried = (range(0x32400), range(0xE0000, 0xE0200), range(0x32400, 0x110000, 97), range(0x10FF00, 0x110000))
    shown = escape_text("".join(map(chr, chain(*tried))))

    assert not [char for char in shown if unicodedata.category(char) in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}]
    shown.encode()


def test_json_is_escaped_as_json() -> None:
    texts = ["\x1b[31m\x9b\u202e", "\udce9", "\U000e0041 張", "\u2028"]

    shown = escape_json(json.dumps(texts, ensure_ascii=False, indent=1))

    assert json.loads(shown) == texts
    assert not any(char in shown for text in texts for char in text if char not in " [31m張")


def test_metadata_follow_the_rule_in_keys_and_values() -> None:
    assert normalize_metadata({" Zoe\u0308 ": ["Zoe\u0308", "two\nlines ", ""]}) == {"Zoë": ["Zoë", "two\nlines", ""]}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"a": "\u202e"}, "U\\+202E"),
        ({"a\x9b": 1}, "U\\+009B"),
        ({"": 1}, "empty"),
        ({"a": "x" * 2001}, "2000 characters"),
        ({str(number): "x" * 1900 for number in range(9)}, "16,384 characters"),
        ({"a": 1, " a": 2}, "'a' twice"),
        ({"a": [[[[[[[[1]]]]]]]]}, "nested deeper"),
        ({"a": [1] * 500}, "500 values"),
        ({"a": float("inf")}, "finite"),
    ],
)
def test_metadata_that_cannot_be_kept_are_refused(metadata: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        normalize_metadata(metadata)


@pytest.mark.parametrize(
    "moment",
    [datetime(9999, 12, 31, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), datetime(2030, 1, 1)],  # noqa: DTZ001
)
def test_moments_out_of_range_or_without_a_zone_are_refused(moment: datetime) -> None:
    with pytest.raises(ValueError, match="must"):
        normalize_moment(moment)
