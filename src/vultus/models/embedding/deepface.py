"""Networks of the package DeepFace, an optional extra that is imported only when one of them is requested.

Its weights are files in $DEEPFACE_HOME/.deepface/weights (without the variable: in the home directory). They are used
in place and never downloaded by this process.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vultus.errors import WeightsError
from vultus.models.embedding.inputs import build_deepface_input
from vultus.models.embedding.network import CropInput, NetworkEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TASK = "facial_recognition"


@dataclass(frozen=True, slots=True)
class DeepfaceModel:
    """A loaded network, with the parts of its embedding space's id.

    Attributes:
        embedder: The network.
        crop_input: Its input format.
        weights: File of the weights.
        weights_sha256: Of that file, lower-case hexadecimal.
    """

    embedder: NetworkEmbedder
    crop_input: CropInput
    weights: Path
    weights_sha256: str


def load_deepface(name: str) -> DeepfaceModel:
    """Load a recognition network by DeepFace's name for it, such as `Facenet512`, `ArcFace` or `Dlib`.

    Raises:
        WeightsError: DeepFace or a dependency of the network is not installed, the name is unknown, or the weights are
            missing.
    """
    # Of DeepFace's engines, the one that is always installed here; it also determines which file is loaded.
    os.environ.setdefault("DEEPFACE_BACKEND_ENGINE", "onnx")
    try:
        from deepface.commons import weight_utils  # noqa: PLC0415 - an optional extra
        from deepface.modules import modeling  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise WeightsError(f"DeepFace cannot be used: {error}. Install it: pip install 'vultus[deepface]'") from error
    known = sorted(modeling.AVAILABLE_MODELS[TASK])
    if name not in known:
        raise WeightsError(f"DeepFace has no recognition network '{name}', only {', '.join(known)}.")
    with _load_only_from_disk(weight_utils, name) as files:
        try:
            client = modeling.get_model_class(TASK, name)()
        except (ImportError, ValueError, RuntimeError) as error:
            raise WeightsError(f"DeepFace's {name} cannot be loaded: {error}") from error
    spec = build_deepface_input(max(client.input_shape), client.output_shape)
    (weights,) = files
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return DeepfaceModel(NetworkEmbedder(_DeepfaceSession(client), spec), spec, weights, digest)


@contextmanager
def _load_only_from_disk(weight_utils: Any, name: str) -> Iterator[list[Path]]:
    """Make DeepFace load its weights without downloading them; yield the list of files it requests."""
    files: list[Path] = []

    def find_weights(file_name: str, source_url: str | list[str], compress_type: str | None = None) -> str:
        path = Path(os.environ.get("DEEPFACE_HOME") or Path.home()) / ".deepface" / "weights" / file_name
        if not path.is_file():
            source = source_url if isinstance(source_url, str) else source_url[0]
            raise WeightsError(
                f"DeepFace's {name} needs {path}, which does not exist. "
                f"Place it there{_format_unpacking_hint(compress_type)} from {source}, or let DeepFace do so: "
                f'DEEPFACE_BACKEND_ENGINE={os.environ["DEEPFACE_BACKEND_ENGINE"]} python -c "from deepface.modules '
                f"import modeling; modeling.build_model('{TASK}', '{name}')\""
            )
        files.append(path)
        return str(path)

    original = weight_utils.download_weights_if_necessary
    weight_utils.download_weights_if_necessary = find_weights
    try:
        yield files
    finally:
        weight_utils.download_weights_if_necessary = original


def _format_unpacking_hint(compress_type: str | None) -> str:
    return f", unpacked ({compress_type})," if compress_type else ""


class _DeepfaceSession:
    """A network of DeepFace as a `NetworkSession`.

    One call at a time: its networks are not documented as thread-safe, and most use every core in a single call.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = threading.Lock()

    def run(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Return the (n, dimension) vectors of (n, side, side, 3) crops, cut centrally if the input is not square."""
        width, height = self._client.input_shape
        top, left = (values.shape[1] - height) // 2, (values.shape[2] - width) // 2
        with self._lock:
            vectors = self._client.forward(values[:, top : top + height, left : left + width])
        return (np.array(vectors, np.float32).reshape(len(values), -1),)
