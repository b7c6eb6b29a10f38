"""Quality of a face: size, sharpness, brightness and pose, from its crop and its landmarks.

Pose is estimated from the position of the nose relative to eyes and mouth. The face is modelled as a plane through eyes
and mouth, with the tip of the nose in front of it (compare Gee and Cipolla (1994), "Determining the gaze of faces in
images", Image and Vision Computing 12(10)): a rotation shortens the plane and moves the nose along it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from vultus.domain import DetectedFace, FloatArray, Pixels, Quality
from vultus.models.imaging.alignment import compute_tilt_deg

NOSE_HEIGHT = 0.45
"""Distance of the tip of the nose from the plane of eyes and mouth, as a fraction of the distance of the eyes."""

FACE_AREA = slice(1, 4)
"""The middle three of five strips of the crop, in x and in y: face without hair, background and black borders."""


def measure_quality(face: DetectedFace, chip: Pixels, template: FloatArray) -> Quality:
    """Return size, sharpness, brightness and pose of a face.

    Args:
        face: In pixels of the original photo.
        chip: Its aligned crop, (side, side, 3) uint8.
        template: (5, 2) landmarks of a frontal face in pixels of the crop.
    """
    fifth = len(chip) // 5
    middle = slice(FACE_AREA.start * fifth, FACE_AREA.stop * fifth)
    grey = cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY)[middle, middle]
    yaw, pitch = estimate_pose_deg(face.landmarks, template)
    return Quality(
        size_px=min(face.box.width, face.box.height),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        brightness=float(grey.mean()) / 255,
        yaw_deg=yaw,
        pitch_deg=pitch,
        roll_deg=compute_tilt_deg(face.landmarks),
    )


def estimate_pose_deg(landmarks: FloatArray, template: FloatArray) -> tuple[float, float]:
    """Estimate yaw and pitch in degrees from five landmarks, relative to a frontal face.

    Args:
        landmarks: (5, 2) at any scale and roll.
        template: (5, 2) of a frontal face.

    Returns:
        Yaw, positive when the nose points to the image's right, and pitch, positive when it points down; −90..90.
    """
    nose, width, height = _compute_face_frame(landmarks)
    front_nose, front_width, front_height = _compute_face_frame(template)
    depth = NOSE_HEIGHT * front_width
    # In units of the frontal face: the plane is shortened by the cosine, the nose moves by depth times the sine.
    scale = max(width / front_width, height / front_height, 1e-9)
    cos_yaw, cos_pitch = (width / front_width / scale, height / front_height / scale)
    across = nose[0] / scale - front_nose[0] * cos_yaw
    down = nose[1] / scale - front_nose[1] * cos_pitch
    return (
        math.degrees(math.atan2(across, depth * max(cos_yaw, 1e-9))),
        math.degrees(math.atan2(down, depth * max(cos_pitch, 1e-9))),
    )


def _compute_face_frame(points: FloatArray) -> tuple[tuple[float, float], float, float]:
    """Return the nose relative to the middle of the eyes, the width and the height, along the face's axes.

    Width is the mean of the distances of the eyes and of the mouth corners; height is from eyes to mouth.
    """
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    across = (points[1] - points[0]) + (points[4] - points[3])
    across = across / max(float(np.hypot(*across)), 1e-9)
    down = np.array([-across[1], across[0]])
    width = float(((points[1] - points[0]) @ across + (points[4] - points[3]) @ across) / 2)
    nose, to_mouth = points[2] - eyes, mouth - eyes
    # The base of the nose stays on the line from eyes to mouth when the head turns; the line may be slanted.
    height = max(float(to_mouth @ down), 1e-9)
    nose_down = float(nose @ down)
    nose_across = float(nose @ across) - float(to_mouth @ across) * nose_down / height
    return (nose_across, nose_down), width, height
