"""F20: are changed weights, graphs and records refused, is no pickle executed, and does no packet leave the machine?

The graphs are those of the built-in pack, loaded through the store as the product loads them. One byte is changed at a
time; a graph is also renamed to what its own digest would call it.
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
SMALL_BYTES = 2 * 2**20
"""Larger graphs take a tenth of a second to build again: they get fewer flips."""


class RecordingStore(WeightsStore):
    """Remembers what was asked of it, and reads packaged weights from copies that can be damaged.

    Attributes:
        loads: How to ask again for every graph.
        copies: Copies of packaged weights by file name.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "cache", folder / "models")
        self.graphs_dir = folder / "cache" / "graphs"
        self.loads: list[Callable[[], bytes]] = []
        self.copies: dict[str, tuple[WeightsFile, Path]] = {}
        self._copies_dir = folder / "copies"

    def load_graph(self, file: WeightsFile, build: Callable[[bytes], bytes], **options: Any) -> bytes:
        """Load a graph as the store does, and remember how."""
        load = partial(super().load_graph, file, build, **options)
        self.loads.append(load)
        return load()

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
        _check_control(store, outcome)
        _flip_graphs(store, plan.choose(1_000, 30), chance, outcome, rename=False)
        _flip_graphs(store, plan.choose(50, 4), chance, outcome, rename=True)
        _flip_weights(store, plan.choose(200, 6), chance, outcome)
        _flip_records(store, plan.choose(500, 20), chance, outcome)
        _load_pickles(Path(folder), outcome)
    if not plan.short:  # the tests of the commands observe it too
        await asyncio.to_thread(_observe_egress, outcome)
    return outcome


def _flip_byte(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ chance.randrange(1, 256)]) + content[at + 1 :]


def _check_control(store: RecordingStore, outcome: Outcome) -> None:
    """See that the store reads its cache at all: without the weights a graph still comes, and without both it fails."""
    load, graph = store.loads[0], store.loads[0]()
    moved = {path: path.with_suffix(".away") for _, path in store.copies.values()}
    for path, away in moved.items():
        path.rename(away)
    cached = load() == graph
    for path, away in moved.items():
        away.rename(path)
    outcome.require_control(cached, "an intact cached graph is used")


def _find_cached(store: RecordingStore, graph: bytes) -> Path:
    return next(path for path in store.graphs_dir.iterdir() if path.read_bytes() == graph)


def _flip_graphs(store: RecordingStore, count: int, chance: random.Random, outcome: Outcome, *, rename: bool) -> None:
    graphs = [(load, graph, _find_cached(store, graph)) for load in list(store.loads) for graph in (load(),)]
    small = [one for one in graphs if len(one[1]) < SMALL_BYTES]
    for at in range(count):
        load, graph, path = chance.choice(graphs if at % 20 == 0 else small)
        changed, target = _flip_byte(graph, chance), path
        if rename:
            path.unlink()
            target = path.with_name(path.name.replace(_digest(graph), _digest(changed)))
        target.write_bytes(changed)
        kind = "renamed to its own digest" if rename else "in place"
        outcome.check(
            _is_refused(load) or load() == graph, f"a graph of {len(graph):,} bytes with one changed, {kind}, is used"
        )
        target.unlink(missing_ok=True)
        path.write_bytes(graph)
    outcome.notes.append(f"{count} flips in graphs{' renamed to their digests' if rename else ''}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flip_weights(store: RecordingStore, count: int, chance: random.Random, outcome: Outcome) -> None:
    files = sorted(store.copies.values(), key=lambda entry: entry[0].filename)
    contents = {path: path.read_bytes() for _, path in files}
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
