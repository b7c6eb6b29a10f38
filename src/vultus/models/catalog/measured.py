"""Measurements: thresholds by embedding space, landmarks of each detector in dlib's crop, quality rules."""

from __future__ import annotations

from vultus.domain import Calibration, QualityRule
from vultus.models.imaging.alignment import AlignmentTemplate

LFW_SOURCE = "LFW deep-funnelled, 13,233 photos, all pairs of different people; vultus evaluate pairs"
MATCHED_SOURCE = (
    "653,000 pairs of adults of one sex and age band in half of UTKFace; rates of any two people on LFW "
    "deep-funnelled, 13,233 photos; one person under two names left out; thresholds of rates below 1e-4 as far above "
    "those of LFW as at 1e-4; vultus evaluate packs"
)

CALIBRATIONS = {
    "sface-ead01796": Calibration(  # sface
        points=((1e-1, 0.1764), (1e-2, 0.2911), (1e-3, 0.3833), (1e-4, 0.4933), (1e-5, 0.5639), (1e-6, 0.6219)),
        anybody=((1e-1, 0.2069), (1e-2, 0.2991), (1e-3, 0.3676), (1e-4, 0.4294), (1e-5, 0.5000), (1e-6, 0.5580)),
        worst_group=((0.352, 0.1764), (0.0705, 0.2911), (8.6e-3, 0.3833), (5.5e-4, 0.4933)),
        margin=0.03,
        source=MATCHED_SOURCE,
        logistic=(31.66, -10.69),
        missed=((0.0046, 0.4294), (0.0147, 0.4933), (0.0166, 0.5000), (0.0482, 0.5580)),
    ),
    "sface-3b11ec48": Calibration(  # retinaface-mobilenet+sface
        points=((1e-1, 0.1777), (1e-2, 0.2940), (1e-3, 0.3896), (1e-4, 0.5248), (1e-5, 0.5957), (1e-6, 0.6456)),
        anybody=((1e-1, 0.2154), (1e-2, 0.3067), (1e-3, 0.3749), (1e-4, 0.4380), (1e-5, 0.5089), (1e-6, 0.5588)),
        worst_group=((0.360, 0.1777), (0.0748, 0.2940), (8.6e-3, 0.3896), (5.5e-4, 0.5248)),
        margin=0.03,
        source=MATCHED_SOURCE,
        logistic=(32.54, -11.42),
        missed=((0.0028, 0.4380), (0.0114, 0.5089), (0.0157, 0.5248), (0.0305, 0.5588)),
    ),
    "mobilefacenet-f960ec8a": Calibration(  # yunet-n+mobilefacenet
        points=((1e-1, 0.1904), (1e-2, 0.3182), (1e-3, 0.4233), (1e-4, 0.5378), (1e-5, 0.6082), (1e-6, 0.6630)),
        anybody=((1e-1, 0.1433), (1e-2, 0.2552), (1e-3, 0.3402), (1e-4, 0.4142), (1e-5, 0.4846), (1e-6, 0.5394)),
        worst_group=((0.307, 0.1904), (0.0562, 0.3182), (6.2e-3, 0.4233), (5.5e-4, 0.5378)),
        margin=0.04,
        source=MATCHED_SOURCE,
        logistic=(27.63, -8.03),
        missed=((0.0102, 0.4142), (0.0318, 0.4846), (0.0714, 0.5378), (0.0730, 0.5394)),
    ),
    "dlib-resnet-8fd92ff4": Calibration(  # builtin
        points=((1e-1, 0.9040), (1e-2, 0.9458), (1e-3, 0.9601), (1e-4, 0.9623), (1e-5, 0.9738), (1e-6, 0.9810)),
        anybody=((1e-1, 0.8829), (1e-2, 0.9111), (1e-3, 0.9293), (1e-4, 0.9437), (1e-5, 0.9552), (1e-6, 0.9624)),
        worst_group=((0.727, 0.9040), (0.0936, 0.9458), (7.9e-3, 0.9601), (3.6e-3, 0.9623)),
        margin=0.01,
        source=f"{MATCHED_SOURCE}. The pack confuses people of some groups far more often than others: at its default "
        "threshold 9 of 100 pairs of young Asian women, of whom one in 460 of all matched pairs",
        logistic=(177.90, -162.27),
        missed=((0.1523, 0.9437), (0.1882, 0.9458), (0.4172, 0.9552), (0.6490, 0.9624)),
        # At 1e-4 it misses two of three genuine pairs: no threshold makes this network strict and useful.
        default_fmr=1e-2,
    ),
    "mobilefacenet-112040fa": Calibration(  # retinaface-mobilenet+mobilefacenet
        points=((1e-1, 0.1433), (1e-2, 0.2552), (1e-3, 0.3402), (1e-4, 0.4146), (1e-5, 0.4825), (1e-6, 0.6172)),
        margin=0.04,
        source=LFW_SOURCE,
        logistic=(27.95, -8.24),
    ),
}
"""By embedding space: another detector, template or preprocessing of the same weights has other thresholds.

Points of matched strangers: the lowest threshold at which their false match rate does not exceed the rate, and at
which the 95 % interval of no group ends above ten times the rate, as far as a group resolves it. The worst group is
that of the highest rate with at least 10 false matches. Missed are photos of one person in LFW, at thresholds of
anybody and at the default one.
"""

DLIB_CHIPS = {
    "mtcnn": AlignmentTemplate(150, ((46.6, 44.9), (100.4, 45.0), (74.0, 77.1), (49.5, 103.7), (97.0, 104.5))),
    "retinaface-mobilenet": AlignmentTemplate(
        150, ((46.2, 45.4), (101.4, 45.4), (73.9, 77.3), (50.4, 103.8), (97.4, 104.0))
    ),
    "yunet": AlignmentTemplate(150, ((46.4, 44.2), (100.6, 45.2), (72.7, 77.2), (49.8, 100.9), (96.5, 102.6))),
    "yunet-n": AlignmentTemplate(150, ((46.6, 45.1), (101.9, 45.3), (74.4, 77.4), (48.9, 102.1), (97.8, 102.2))),
    "centerface": AlignmentTemplate(150, ((46.3, 46.1), (101.9, 44.9), (73.4, 78.2), (50.1, 104.9), (96.4, 103.8))),
}
"""Median landmarks of a detector in crops of LFW faces by dlib's own aligner: of 243 for MTCNN, else of 400."""

DEFAULT_DLIB_CHIP = DLIB_CHIPS["retinaface-mobilenet"]
"""For detectors that were not measured; they were trained on landmarks of the same origin."""

DLIB_FIVE_POINTS = AlignmentTemplate(
    150, ((110.96, 46.35), (89.61, 47.9), (37.06, 46.37), (58.41, 47.91), (74.01, 87.78))
)
"""The mean face of dlib's own aligner, with 25 % padding, in the order of its five-point predictor."""

DLIB_FACE_SQUARE = (0.2, 4.3, 135.9)
"""Left, top and side of dlib's own detection in dlib's crop, pixels: median of 1,189 LFW photos."""

MIN_FACES_PX = {"mtcnn": 40}
"""Smallest face looked for, by detector family, unless the setting says otherwise.

MTCNN's boxes are wider: looking for 40 pixels it finds 70 of 72 faces of 24 pixels, and YuNet none, nor 18 of 72 of 32.
"""

DEFAULT_MIN_FACE_PX = 24

MIN_SCORES = {"mtcnn": (0.9, 0.8), "yunet": (0.86, 0.6), "retinaface": (0.98, 0.6)}
"""Least detection scores for enrolment and for recognition, by detector family: their scores are not comparable.

Of 3,973 faces of LFW, UTK and NUAA that passed at 0.7, 5 have less than 0.86 with YuNet, and none less than 0.98 with
RetinaFace; of 17 animals' faces 14 have less than 0.86 with YuNet.
"""

DEFAULT_MIN_SCORES = (0.7, 0.6)
"""For families that were not measured."""

MIN_FACE_SCORE = 0.85
"""Least face score for enrolment: see `docs/results/photos.md`, "What is not a face"."""


def get_min_face_px(detector_family: str) -> int:
    """Return the smallest face to look for with a detector, in pixels of a photo scaled to at most `max_side_px`."""
    return MIN_FACES_PX.get(detector_family, DEFAULT_MIN_FACE_PX)


def get_quality_rules(detector_family: str) -> tuple[QualityRule, QualityRule]:
    """Return the quality rules of enrolment and of recognition.

    A Gaussian blur of 4 pixels leaves LFW's crops a sharpness of 2 to 12, below 9.2 for 99 of 100. Of its 13,232 faces
    as they are, 1.2 % fail the first rule (23 by sharpness, 143 by pose) and 0.1 % the second. Brightness follows skin
    tone too, so its limits only refuse what hardly shows a face: LFW's and UTK's faces lie in 0.15 to 0.84, and 75 of
    480 webcam photos above 0.85, each of which matches its person's other photos ("Light" in `docs/results/photos.md`).
    """
    enrol, recognize = MIN_SCORES.get(detector_family, DEFAULT_MIN_SCORES)
    return (
        QualityRule(
            enrol,
            40,
            10,
            max_yaw_deg=45,
            max_pitch_deg=60,
            min_brightness=0.05,
            max_brightness=0.95,
            min_face_score=MIN_FACE_SCORE,
        ),
        QualityRule(recognize, 25, 5, max_yaw_deg=60, max_pitch_deg=75, min_brightness=0.03, max_brightness=0.97),
    )


def list_earlier_quality_rules(detector_family: str) -> tuple[QualityRule, ...]:
    """Return the rules of enrolment and of recognition that new collections had before; stored policies hold them."""
    enrol, recognize = (0.9, 0.8) if detector_family == "mtcnn" else (0.7, 0.6)
    return (
        QualityRule(enrol, 40, 10, max_yaw_deg=45, max_pitch_deg=60, min_brightness=0.12, max_brightness=0.85),
        QualityRule(recognize, 25, 5, max_yaw_deg=60, max_pitch_deg=75, min_brightness=0.05, max_brightness=0.92),
    )
