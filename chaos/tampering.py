"""F20: are changed weights, graphs and records refused, is no pickle executed, and does no packet leave the machine?

The weights are those of the built-in pack, loaded through the store as the product loads them. One byte is changed at a
time. Graphs are built from the weights whenever they are loaded: none lies on the disk that could be changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import pickle
import shutil
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.egress import observe_scenario

from chaos.outcome import Outcome, Plan
from vultus.errors import WeightsError
from vultus.models.catalog.entries import PublishedFile
from vultus.models.pipelines import PipelineRegistry
from vultus.models.weights.state_dicts import read_state_dict
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from vultus.models.catalog.entries import WeightsFile

BAR = "all refused, 0 executed, 0 packets"


class RecordingStore(WeightsStore):
    """Reads packaged weights from copies that can be damaged.

    Attributes:
        copies: Copies of packaged weights by file name.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "models")
        self.copies: dict[str, tuple[WeightsFile, Path]] = {}
        self._copies_dir = folder / "copies"

    def _locate_file(self, file: WeightsFile) -> tuple[Path | None, str]:
        path, remedy = super()._locate_file(file)
        if path is None or isinstance(file, PublishedFile):
            return path, remedy
        if file.filename not in self.copies:
            self._copies_dir.mkdir(exist_ok=True)
            self.copies[file.filename] = file, Path(shutil.copy(path, self._copies_dir / file.filename))
        return self.copies[file.filename][1], remedy


async def measure(plan: Plan) -> Outcome:
    """Change bytes, plant pickles, and observe the traffic of a service."""
    outcome, chance = Outcome(), plan.make_random()
    with tempfile.TemporaryDirectory(prefix="vultus-chaos-") as folder:
        store = RecordingStore(Path(folder))
        PipelineRegistry.load(InferenceSettings(pack="builtin"), PhotoSettings(), store)
        _look_for_caches(Path(folder), outcome)
        _flip_weights(store, plan.choose(1_000, 30), chance, outcome)
        _flip_records(store, plan.choose(500, 20), chance, outcome)
        _load_pickles(Path(folder), outcome)
    if not plan.short:  # the tests of the commands observe it too
        await asyncio.to_thread(_observe_egress, outcome)
    return outcome


def _flip_byte(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ chance.randrange(1, 256)]) + content[at + 1 :]


def _look_for_caches(folder: Path, outcome: Outcome) -> None:
    written = [path.name for path in folder.rglob("*") if path.is_file() and path.parent.name != "copies"]
    outcome.check(not written, f"loading networks leaves files that a start may believe: {written}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flip_weights(store: RecordingStore, count: int, chance: random.Random, outcome: Outcome) -> None:
    files = sorted(store.copies.values(), key=lambda entry: entry[0].filename)
    contents = {path: path.read_bytes() for _, path in files}
    intact = not any(_is_refused(partial(store.read_weights, file)) for file, _ in files)
    outcome.require_control(intact, "intact weights are read")
    for at in range(count):
        file, path = files[at % len(files)]
        path.write_bytes(_flip_byte(contents[path], chance))
        outcome.check(_is_refused(partial(store.read_weights, file)), f"{file.filename} with a changed byte is read")
        path.write_bytes(contents[path])
    outcome.notes.append(f"{count} flips in packaged weights")


def _is_refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except WeightsError:
        return True
    return False


def _flip_records(store: RecordingStore, count: int, chance: random.Random, outcome: Outcome) -> None:
    """Change the file that holds pinned digests: weights are then refused, or found right by the digest as it was."""
    file = PublishedFile("chaos.onnx", None)
    folder = store.ensure_models_dir()
    weights = folder / file.filename
    weights.write_bytes(chance.randbytes(5_000))
    store.installation.add_pinned_digest(file.filename, _digest(weights.read_bytes()))
    records = folder / "records.json"
    genuine, intact = records.read_bytes(), weights.read_bytes()
    for _ in range(count):
        records.write_bytes(_flip_byte(genuine, chance))
        weights.write_bytes(_flip_byte(intact, chance))
        outcome.check(
            _is_refused(partial(store.read_weights, file)), "weights and record changed, and the weights read"
        )
        weights.write_bytes(intact)
        records.write_bytes(genuine)
    outcome.notes.append(f"{count} flips in the record of digests")


class _Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> Any:
        return self._reduced


def _build_pickles(marker: Path) -> dict[str, bytes]:
    """Return pickles that create a file when they are executed, by what they use."""
    path = str(marker)
    code, command = f"open({path!r}, 'w').close()", f"touch {path}"
    pickled = {
        "a method of a path": pickle.dumps(_Call(Path.touch, marker)),
        "exec": pickle.dumps(_Call(exec, code)),
        "eval": pickle.dumps(_Call(eval, code)),
        "open": pickle.dumps(_Call(io.open, path, "w")),
        "exec in protocol 0": pickle.dumps(_Call(exec, code), protocol=0),
        "exec in protocol 4": pickle.dumps(_Call(exec, code), protocol=4),
        "INST": f"(S{code!r}\ni__builtin__\nexec\n.".encode(),
        "OBJ": f"(c__builtin__\nexec\nS{code!r}\no.".encode(),
        "os.system": f"cos\nsystem\n(S{command!r}\ntR.".encode(),
        "posix.system": f"cposix\nsystem\n(S{command!r}\ntR.".encode(),
        "subprocess": f"csubprocess\ncall\n((S'touch'\nS{path!r}\nltR.".encode(),
        "getattr": f"c__builtin__\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S{command!r}\ntR.".encode(),
        "a call in a dictionary": f"ccollections\nOrderedDict\n(tR(S'a'\nc__builtin__\nexec\n(S{code!r}\ntRs.".encode(),
    }
    archives = {}
    for name, content in pickled.items():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", content)
        archives[f"{name}, zipped"] = stream.getvalue()
    return pickled | archives


def _load_pickles(folder: Path, outcome: Outcome) -> None:
    marker = folder / "executed"
    pickles = _build_pickles(marker)
    executed = 0
    for name, content in pickles.items():
        if not name.endswith("zipped"):
            _unpickle(content)
            executed += marker.exists()
            marker.unlink(missing_ok=True)
    plain = len(pickles) // 2
    outcome.require_control(executed == plain, f"{executed} of {plain} pickles run when Python unpickles them")
    for name, content in pickles.items():
        refused = _is_refused(partial(read_state_dict, content))
        outcome.check(refused and not marker.exists(), f"a pickle with {name} is {'executed' if refused else 'read'}")
        marker.unlink(missing_ok=True)


def _unpickle(content: bytes) -> None:
    try:
        made = pickle.loads(content)
        if isinstance(made, io.IOBase):
            made.close()
    except Exception:  # noqa: BLE001  what a planted call raises does not matter
        return


def _observe_egress(outcome: Outcome) -> None:
    """Start a service in a network namespace of its own, register and recognise, and see what leaves."""
    observed = {}
    for scenario in ("onnxruntime-alone", "address", "service"):
        with tempfile.TemporaryDirectory(prefix="vultus-chaos-", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o711)
            try:
                observed[scenario] = observe_scenario(scenario, Path(folder))
            except pytest.skip.Exception as error:
                outcome.notes.append(f"egress not observed: {error}")
                return
    outcome.require_control(
        observed["onnxruntime-alone"]["names"] and observed["address"]["unreachable"],
        "a name that ONNX Runtime looks up by itself, and a packet to another host",
    )
    outcome.check(not any(observed["service"].values()), f"a service sends: {observed['service']}")
