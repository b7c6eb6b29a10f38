"""A photo is analyzed into embedded faces, in the photo's own pixels."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.faces import astronaut, encoded, nobody, portrait
from tests.networks import share_networks
from tests.packs import describe_pipeline

from vultus.domain import DETECTION, Analysis, Box, Want
from vultus.errors import ImageTooLargeError
from vultus.models.catalog.measured import CALIBRATIONS, get_quality_rules
from vultus.models.imaging.memory_budget import MemoryBudget
from vultus.models.pipeline import AnalysisRequest, FacePipeline
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels

EYE = (204, 100)


def vector_of(analysis: Analysis) -> FloatArray:
    (face,) = analysis.faces
    assert face.embedding is not None
    return face.embedding.vector


def enlarged(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def test_a_portrait_is_analyzed(pipeline: FacePipeline) -> None:
    photo = portrait()

    analysis = pipeline.analyze_photo(photo)

    (face,) = analysis.faces
    assert (analysis.width, analysis.height) == (512, 512)
    assert analysis.sha256 == hashlib.sha256(photo).hexdigest()
    assert set(analysis.timings_ms) == {"decode", "detect", "align", "embed"}
    assert face.embedding is not None
    assert face.embedding.space_id == pipeline.space.id
    assert np.linalg.norm(face.embedding.vector) == pytest.approx(1, abs=1e-5)
    assert face.face.landmarks.dtype == np.float32


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_photo_turned_without_exif_is_analyzed_as_if_it_were_upright(pipeline: FacePipeline, quarters: int) -> None:
    sent = np.ascontiguousarray(np.rot90(astronaut()[:, :400], quarters))

    analysis = pipeline.analyze_photo(encoded(sent, "PNG"), Want(crops=True))

    upright = pipeline.analyze_photo(encoded(astronaut()[:, :400], "PNG"))
    ((face,), (expected,)) = analysis.faces, upright.faces
    assert vector_of(analysis) @ vector_of(upright) > 0.9999
    assert (analysis.height, analysis.width) == sent.shape[:2]
    box = face.face.box
    again = np.rot90(sent[max(0, int(box.top)) : int(box.bottom), max(0, int(box.left)) : int(box.right)], -quarters)
    whole = expected.face.box
    assert again.shape[:2] == pytest.approx((whole.height, whole.width), abs=2)
    turned_deg = expected.quality.roll_deg - face.quality.roll_deg
    assert turned_deg % 360 == pytest.approx(90 * quarters, abs=0.1)
    assert face.crop is not None
    assert vector_of(pipeline.analyze_photo(face.crop.jpeg, Want(turned=False))) @ vector_of(upright) > 0.99


def test_a_photo_that_is_not_to_be_turned_is_searched_as_it_is(pipeline: FacePipeline) -> None:
    lying = encoded(np.ascontiguousarray(np.rot90(astronaut())))

    assert pipeline.analyze_photo(lying, Want(turned=False)).faces == ()


def test_a_small_face_of_a_very_long_photo_is_found_sharp(pipeline: FacePipeline) -> None:
    strip = np.full((9000, 300, 3), 127, np.uint8)
    strip[6100:6400] = astronaut()[:300, 80:380]

    analysis = pipeline.analyze_photo(encoded(strip))

    (face,) = analysis.faces
    assert face.face.box.centre == pytest.approx((225 - 80, 6100 + 120), abs=12)
    assert vector_of(analysis) @ vector_of(pipeline.analyze_photo(portrait())) > 0.99


def test_without_embedding_there_is_everything_else(pipeline: FacePipeline) -> None:
    analysis = pipeline.analyze_photo(portrait(), DETECTION)

    assert analysis.faces[0].embedding is None
    assert analysis.faces[0].quality.sharpness > 0
    assert "embed" not in analysis.timings_ms


def test_a_photo_without_people_has_no_faces(pipeline: FacePipeline) -> None:
    assert pipeline.analyze_photo(nobody()).faces == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_a_camera_gives_the_same_vector(pipeline: FacePipeline, orientation: int) -> None:
    picture = astronaut()
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: np.rot90(picture, 2).transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    tags = Image.Exif()
    tags[0x0112] = orientation

    analysis = pipeline.analyze_photo(encoded(np.ascontiguousarray(stored), exif=tags))

    assert vector_of(analysis) @ vector_of(pipeline.analyze_photo(portrait())) > 0.99
    np.testing.assert_allclose(analysis.faces[0].face.landmarks[0], EYE, atol=5)


def test_a_phone_photo_is_analyzed_in_its_own_pixels(pipeline: FacePipeline) -> None:
    photo = encoded(enlarged(astronaut()[:384], 4000, 3000), quality=85)

    analysis = pipeline.analyze_photo(photo)

    assert (analysis.width, analysis.height) == (4000, 3000)
    np.testing.assert_allclose(analysis.faces[0].face.landmarks[0], np.array(EYE) * 4000 / 512, atol=40)
    assert analysis.faces[0].quality.size_px == pytest.approx(87 * 4000 / 512, rel=0.15)
    assert vector_of(analysis) @ vector_of(pipeline.analyze_photo(portrait())) > 0.97


def test_a_small_face_on_a_phone_photo_is_cropped_from_the_full_photo(pipeline: FacePipeline) -> None:
    canvas = np.full((3000, 4000, 3), 120, np.uint8)
    canvas[1200:1712, 1800:2312] = astronaut()

    analysis = pipeline.analyze_photo(encoded(canvas, quality=92))

    assert vector_of(analysis) @ vector_of(pipeline.analyze_photo(portrait())) > 0.99
    sharpness = pipeline.analyze_photo(portrait()).faces[0].quality.sharpness
    assert analysis.faces[0].quality.sharpness == pytest.approx(sharpness, rel=0.25)


def test_faces_come_from_left_to_right(pipeline: FacePipeline) -> None:
    row = np.concatenate([astronaut()[:256, 96:352]] * 4, axis=1)

    lefts = [face.face.box.left for face in pipeline.analyze_photo(encoded(row)).faces]

    assert len(lefts) == 4
    assert lefts == sorted(lefts)


def test_known_faces_are_not_embedded_again(pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    row = encoded(np.concatenate([astronaut()[:256, 96:352]] * 3, axis=1))
    expected = pipeline.analyze_photo(row).faces
    embedded: list[int] = []
    embed = pipeline._embedder.embed

    def count_and_embed(chips: Pixels) -> FloatArray:
        embedded.append(len(chips))
        return embed(chips)

    monkeypatch.setattr(pipeline._embedder, "embed", count_and_embed)
    box = expected[1].face.box
    moved = Box(box.left + 0.2 * box.width, box.top, box.right + 0.2 * box.width, box.bottom)
    elsewhere = Box(0, 250, 10, 256)

    analysis = pipeline.analyze_photo(row, Want(crops=True, known_boxes=(moved, elsewhere)))

    assert [face.embedding is None for face in analysis.faces] == [False, True, False]
    assert [face.quality for face in analysis.faces] == [face.quality for face in expected]
    assert all(face.crop is not None for face in analysis.faces)
    for at in (0, 2):
        np.testing.assert_allclose(analysis.faces[at].vector, expected[at].vector, atol=1e-5)
    assert embedded == [2]


def test_a_photo_of_known_faces_only_is_not_embedded(pipeline: FacePipeline) -> None:
    (face,) = pipeline.analyze_photo(portrait()).faces
    known, new = pipeline.analyze_photos(
        [AnalysisRequest(portrait(), Want(known_boxes=(face.face.box,))), AnalysisRequest(portrait(angle=5))]
    )

    assert isinstance(known, Analysis)
    assert isinstance(new, Analysis)
    assert [one.embedding for one in known.faces] == [None]
    assert known.timings_ms["embed"] == 0
    assert vector_of(new) @ face.vector > 0.9


def test_other_photos_of_a_face_are_closer_than_another_face(pipeline: FacePipeline) -> None:
    threshold = pipeline.calibration.get_threshold(1e-4)
    original = vector_of(pipeline.analyze_photo(portrait()))

    for photo in (portrait(angle=12), portrait(scale=0.7), portrait(brightness=0.6), portrait(mirror=True)):
        assert vector_of(pipeline.analyze_photo(photo)) @ original > threshold


def test_threads_get_the_results_of_one_thread(pipeline: FacePipeline) -> None:
    photos = [portrait(angle=angle) for angle in (-10, -5, 0, 5, 10, 15)]
    alone = [vector_of(pipeline.analyze_photo(photo)) for photo in photos]

    with ThreadPoolExecutor(3) as threads:
        together = [vector_of(analysis) for analysis in threads.map(pipeline.analyze_photo, photos)]

    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    share_networks(monkeypatch)
    small = FacePipeline.load(InferenceSettings(), PhotoSettings(max_pixels=1000), WeightsStore())

    with pytest.raises(ImageTooLargeError):
        small.analyze_photo(portrait())


def test_all_memory_is_released_after_success_and_failure(pipeline: FacePipeline) -> None:
    pipeline.analyze_photo(portrait())
    with pytest.raises(Exception, match="truncated"):
        pipeline.analyze_photo(portrait()[:20_000])

    assert isinstance(pipeline.budget, MemoryBudget)
    assert pipeline.budget.available == PhotoSettings().memory_budget


def test_opencv_stays_on_the_thread_that_called_it(pipeline: FacePipeline) -> None:
    assert cv2.getNumThreads() == 1


@pytest.mark.parametrize(
    ("space_id", "setting", "expected"),
    [("dlib-resnet-8fd92ff4", None, 40), ("mobilefacenet-f960ec8a", None, 24), ("mobilefacenet-f960ec8a", 60, 60)],
)
def test_the_smallest_face_follows_the_detector_unless_set(space_id: str, setting: int | None, expected: int) -> None:
    assert describe_pipeline(space_id, min_face_px=setting)._finder.min_face_px == expected


def test_the_pack_is_accessible(pipeline: FacePipeline) -> None:
    assert (pipeline.pack.name, pipeline.space.id) == ("builtin", "dlib-resnet-8fd92ff4")
    assert pipeline.calibration is CALIBRATIONS[pipeline.space.id]
    assert (pipeline.enrol_rule, pipeline.recognize_rule) == get_quality_rules("mtcnn")
