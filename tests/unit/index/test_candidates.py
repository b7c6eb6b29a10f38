"""The candidate index against an exact search of the same vectors."""

import threading

import numpy as np
import pytest

from vultus.index.candidates import CandidateIndex
from vultus.index.coding import Coder

DIMENSION = 64
RISK = 1e-6


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def cone(rng: np.random.Generator, count: int) -> np.ndarray:
    """Vectors of a narrow cone, as face networks make them."""
    return unit(np.eye(DIMENSION)[0] * 2 + 0.12 * rng.standard_normal((count, DIMENSION)))


def indexed(vectors: np.ndarray, first: int = 1) -> CandidateIndex:
    coder = Coder(vectors.mean(axis=0))
    index = CandidateIndex(coder)
    for at in range(0, len(vectors), 7_000):
        some = vectors[at : at + 7_000]
        index.append(np.arange(first + at, first + at + len(some)), coder.encode(some))
    return index


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    return cone(np.random.default_rng(1), 70_000)


@pytest.fixture(scope="module")
def index(gallery: np.ndarray) -> CandidateIndex:
    return indexed(gallery)


def test_every_face_above_the_cosine_is_proposed_and_few_others(index: CandidateIndex, gallery: np.ndarray) -> None:
    """In order or not: what an exact search finds above the cosine is among the proposals."""
    rng = np.random.default_rng(2)
    for tidy in (False, True):
        if tidy:
            index.tidy()
        for at in rng.integers(0, len(gallery), 100):
            probe = unit(gallery[at] + 0.02 * rng.standard_normal(DIMENSION))
            cosines = gallery @ probe
            floor = float(np.partition(cosines, -3)[-3])
            hunt = index.hunt(probe)
            first = hunt.closest(50)
            assert at + 1 in first
            assert len(first) < 100
            proposed = hunt.above((floor, RISK))[0]
            assert set(np.flatnonzero(cosines >= floor) + 1) <= {*first, *proposed}
            assert len(proposed) < 5_000
            at_once = index.hunt(probe).above((floor, RISK))[0]
            assert set(at_once) - set(first) == set(proposed), "what was proposed before is left out, and nothing else"


def test_a_stricter_cosine_proposes_fewer(index: CandidateIndex, gallery: np.ndarray) -> None:
    """The number of candidates follows what was found."""
    hunt = index.hunt(gallery[5])
    counts = [len(hunt.above((cosine, RISK))[0]) for cosine in (0.999, 0.97, 0.95, 0.9)]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] > 1_000


def test_more_than_there_are_gives_all(gallery: np.ndarray) -> None:
    """A small index proposes everybody when asked for more."""
    small = indexed(gallery[:30])
    assert sorted(small.hunt(gallery[3]).closest(400)) == list(range(1, 31))
    assert sorted(small.hunt(gallery[3]).above((-1.0, RISK))[0]) == list(range(1, 31))


def test_an_empty_index_proposes_nobody() -> None:
    """No rows, no candidates, no error."""
    empty = CandidateIndex(Coder(np.zeros(DIMENSION, np.float32)))
    hunt = empty.hunt(unit(np.ones(DIMENSION)))
    assert len(empty) == len(hunt.closest(400)) == len(hunt.above((0.5, RISK))[0]) == 0


def test_what_was_erased_is_neither_proposed_nor_kept(gallery: np.ndarray) -> None:
    """Erased rows go from proposals at once, their codes are overwritten, and tidying closes the gaps."""
    index = indexed(gallery[:5_000])
    alive = np.setdiff1d(np.arange(1, 5_001), np.arange(1, 5_001, 3))
    assert index.retain(alive) == 5_000 - len(alive)
    assert index.retain(alive) == 0
    assert len(index) == len(alive)
    assert 1 not in index.hunt(gallery[0]).closest(400)
    code = index.coder.encode(gallery[:1])[0]
    held = index._codes
    assert not (held.planes[0][: held.count] == code[:32]).all(axis=1).any()
    assert held.count == 5_000
    index.tidy()
    assert index._codes.count == len(index) == len(alive)
    assert index.bytes == 138 * len(alive)
    assert 2 in index.hunt(gallery[1]).closest(10)


def test_it_grows_and_says_up_to_where_it_goes(gallery: np.ndarray) -> None:
    """Rows beyond the first room find new room; `last` follows the greatest number, or what is said."""
    index = indexed(gallery[:40_000])
    assert len(index) == 40_000
    assert index.last == 40_000
    index.append(np.array([40_005]), index.coder.encode(gallery[40_000:40_001]), last=40_009)
    assert index.last == 40_009
    assert 40_005 in index.hunt(gallery[40_000]).closest(1)


def test_searches_go_on_while_faces_come_and_go(gallery: np.ndarray) -> None:
    """A face that stays is found in every search, while another thread appends, erases and tidies."""
    index = indexed(gallery[:20_000])
    stop = threading.Event()
    misses: list[int] = []

    def search() -> None:
        while not stop.is_set():
            closest, above = index.hunt(gallery[77]).closest(20), index.hunt(gallery[77]).above((0.99, RISK))[0]
            if 78 not in closest or 78 not in above:
                misses.append(1)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for round_ in range(12):
        new = gallery[20_000 + 3_000 * round_ :][:3_000]
        index.append(np.arange(100_000 + 3_000 * round_, 100_000 + 3_000 * round_ + len(new)), index.coder.encode(new))
        keep = np.setdiff1d(
            index._codes.numbers[: index._codes.count], 100_000 + 3_000 * round_ + np.arange(0, 3_000, 2)
        )
        index.retain(keep)
        index.tidy()
    stop.set()
    for thread in threads:
        thread.join()
    assert misses == []
