"""Ids increase whatever the clock does, and contain their creation time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from vultus.utils.ids import IdGenerator, new_id

moments = st.lists(st.integers(min_value=0, max_value=2**48 - 2), min_size=1, max_size=50)


@given(moments)
def test_ids_increase_though_the_clock_stands_or_is_set_back(clock: list[int]) -> None:
    maker = IdGenerator()

    ids = [maker.make_id(now) for now in clock]

    assert ids == sorted(set(ids))


@given(moments)
def test_an_id_is_a_version_7_uuid_of_its_millisecond(clock: list[int]) -> None:
    maker = IdGenerator()

    for now in sorted(set(clock)):
        made = maker.make_id(now + 1)
        assert (made.version, made.variant, made.int >> 80) == (7, RFC_4122, now + 1)


def test_threads_never_share_an_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_id(), range(4000)))

    assert len(set(ids)) == 4000


def test_a_full_millisecond_borrows_from_the_next() -> None:
    maker = IdGenerator()
    first = maker.make_id(1000)
    maker._random = 2**74 - 1

    second = maker.make_id(1000)

    assert second.int >> 80 == 1001
    assert second > first


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5), st.booleans())
def test_ids_in_bulk_increase_between_single_ones(counts: list[int], nearly_full: bool) -> None:
    maker = IdGenerator()
    ids = [maker.make_id()]
    if nearly_full:
        maker._unix_ms += 10**6  # the clock does not advance
        maker._random = 2**74 - 2**33

    for count in counts:
        ids += [UUID(bytes=row.tobytes()) for row in maker.make_ids(count)]
        ids.append(maker.make_id())

    assert ids == sorted(set(ids))
    assert {(made.version, made.variant) for made in ids} == {(7, RFC_4122)}
