"""The candidate index against an exact search of the same vectors."""

import threading

import numpy as np
import pytest

from vultus.index.candidates import CandidateIndex
from vultus.index.coding import Quantizer

DIMENSION = 64
RISK = 1e-6


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def cone(rng: np.random.Generator, count: int) -> np.ndarray:
    """Vectors of a narrow cone, as face networks make them."""
    return unit(np.eye(DIMENSION)[0] * 2 + 0.12 * rng.standard_normal((count, DIMENSION)))


def indexed(vectors: np.ndarray, first: int = 1) -> CandidateIndex:
    quantizer = Quantizer(vectors.mean(axis=0))
    index = CandidateIndex(quantizer)
    for at in range(0, len(vectors), 7_000):
        some = vectors[at : at + 7_000]
        index.add_faces(np.arange(first + at, first + at + len(some)), quantizer.encode_vectors(some))
    return index


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    return cone(np.random.default_rng(1), 70_000)


@pytest.fixture(scope="module")
def index(gallery: np.ndarray) -> CandidateIndex:
    return indexed(gallery)


def test_every_face_above_the_cosine_is_proposed_and_few_others(index: CandidateIndex, gallery: np.ndarray) -> None:
    """Compacted or not: what an exact search finds above the cosine is among the proposals."""
    rng = np.random.default_rng(2)
    for tidy in (False, True):
        if tidy:
            index.compact_rows()
        for at in rng.integers(0, len(gallery), 100):
            probe = unit(gallery[at] + 0.02 * rng.standard_normal(DIMENSION))
            cosines = gallery @ probe
            floor = float(np.partition(cosines, -3)[-3])
            probe_search = index.start_search(probe)
            first = probe_search.nearest(50)
            assert at + 1 in first
            assert len(first) < 100
            proposed = probe_search.above_similarity((floor, RISK))[0]
            assert set(np.flatnonzero(cosines >= floor) + 1) <= {*first, *proposed}
            assert len(proposed) < 5_000
            in_one_step = index.start_search(probe).above_similarity((floor, RISK))[0]
            assert set(in_one_step) - set(first) == set(proposed), (
                "what was proposed before is left out, and nothing else"
            )


def test_a_stricter_cosine_proposes_fewer(index: CandidateIndex, gallery: np.ndarray) -> None:
    """The number of candidates follows what was found."""
    probe_search = index.start_search(gallery[5])
    counts = [len(probe_search.above_similarity((cosine, RISK))[0]) for cosine in (0.999, 0.97, 0.95, 0.9)]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] > 1_000


def test_a_count_beyond_the_size_returns_all(gallery: np.ndarray) -> None:
    """A small index proposes everybody when more are requested."""
    small = indexed(gallery[:30])
    assert sorted(small.start_search(gallery[3]).nearest(400)) == list(range(1, 31))
    assert sorted(small.start_search(gallery[3]).above_similarity((-1.0, RISK))[0]) == list(range(1, 31))


def test_an_empty_index_proposes_nobody() -> None:
    """No rows, no candidates, no error."""
    empty = CandidateIndex(Quantizer(np.zeros(DIMENSION, np.float32)))
    probe_search = empty.start_search(unit(np.ones(DIMENSION)))
    assert len(empty) == len(probe_search.nearest(400)) == len(probe_search.above_similarity((0.5, RISK))[0]) == 0


def test_what_was_erased_is_neither_proposed_nor_kept(gallery: np.ndarray) -> None:
    """Erased rows are no longer proposed, their codes are overwritten, and compaction closes the gaps."""
    index = indexed(gallery[:5_000])
    alive = np.setdiff1d(np.arange(1, 5_001), np.arange(1, 5_001, 3))
    assert index.retain_faces(alive) == 5_000 - len(alive)
    assert index.retain_faces(alive) == 0
    assert len(index) == len(alive)
    assert 1 not in index.start_search(gallery[0]).nearest(400)
    code = index.quantizer.encode_vectors(gallery[:1])[0]
    held = index._codes
    assert not (held.segments[0][: held.count] == code[:32]).all(axis=1).any()
    assert held.count == 5_000
    index.compact_rows()
    assert index._codes.count == len(index) == len(alive)
    assert index.size_bytes == 138 * len(alive)
    assert 2 in index.start_search(gallery[1]).nearest(10)


def test_erased_numbers_leave_the_index_and_others_change_nothing(gallery: np.ndarray) -> None:
    """Numbers that were never indexed, or are erased already, count as nothing."""
    index = indexed(gallery[:100])
    assert index.erase_faces(np.array([3, 7, 7, 5_000])) == 2
    assert index.erase_faces(np.array([3])) == 0
    assert len(index) == 98
    assert 3 not in index.start_search(gallery[2]).nearest(100)
    assert 4 in index.start_search(gallery[3]).nearest(10)
    assert not index._codes.segments[0][2].any(), "the code is overwritten"


def test_it_grows_and_reports_its_last_number(gallery: np.ndarray) -> None:
    """Capacity grows with the rows; `last_number` is the greatest number, or the one passed."""
    index = indexed(gallery[:40_000])
    assert len(index) == 40_000
    assert index.last_number == 40_000
    index.add_faces(np.array([40_005]), index.quantizer.encode_vectors(gallery[40_000:40_001]), last_number=40_009)
    assert index.last_number == 40_009
    assert 40_005 in index.start_search(gallery[40_000]).nearest(1)


def test_searches_continue_while_faces_are_added_and_erased(gallery: np.ndarray) -> None:
    """A face that stays is found in every search, while another thread appends, erases and compacts."""
    index = indexed(gallery[:20_000])
    stop = threading.Event()
    misses: list[int] = []

    def search() -> None:
        while not stop.is_set():
            closest, above = (
                index.start_search(gallery[77]).nearest(20),
                index.start_search(gallery[77]).above_similarity((0.99, RISK))[0],
            )
            if 78 not in closest or 78 not in above:
                misses.append(1)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for round_ in range(12):
        new = gallery[20_000 + 3_000 * round_ :][:3_000]
        index.add_faces(
            np.arange(100_000 + 3_000 * round_, 100_000 + 3_000 * round_ + len(new)),
            index.quantizer.encode_vectors(new),
        )
        keep = np.setdiff1d(
            index._codes.numbers[: index._codes.count], 100_000 + 3_000 * round_ + np.arange(0, 3_000, 2)
        )
        index.retain_faces(keep)
        index.compact_rows()
    stop.set()
    for thread in threads:
        thread.join()
    assert misses == []
