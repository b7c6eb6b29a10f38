"""Sessions run graphs on one thread per call, on all cores where permitted, and refuse what they cannot do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from vultus.errors import SetupError, WeightsError
from vultus.models.runtime import OnnxSession, count_usable_cores, onnx_session, session, use_all_cores
from vultus.models.runtime.onnx_session import CPU_PROVIDER, DeviceSession
from vultus.models.runtime.openvino_session import OpenVinoSession, has_bf16
from vultus.models.runtime.session import CompiledGraph, GraphSession
from vultus.models.weights.graph_builder import GraphBuilder

SIDE = 32


def openvino(graph: bytes) -> GraphSession:
    pytest.importorskip("openvino")
    return OpenVinoSession(graph, "fp32")


def cuda(graph: bytes) -> GraphSession:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("needs an NVIDIA GPU and onnxruntime-gpu[cuda,cudnn]")
    return DeviceSession(graph, "cuda")


@pytest.fixture(params=[OnnxSession, openvino, cuda], ids=["onnxruntime", "openvino", "cuda"])
def load(request: pytest.FixtureRequest) -> Callable[[bytes], GraphSession]:
    loader: Callable[[bytes], GraphSession] = request.param
    return loader


def doubling(batch: int | str = "n") -> bytes:
    """Return a graph that outputs the three numbers of each image doubled, and their sum."""
    graph = GraphBuilder()
    double, sums = graph.add_node("Add", "x", "x"), graph.add_node("ReduceSum", "x", graph.add_constant(np.array([1])))
    return graph.build_graph(
        "two", {"x": (TensorProto.FLOAT, (batch, 3))}, {"double": (double, (batch, 3)), "sums": (sums, (batch, 1))}
    )


def convolving() -> bytes:
    """Return a graph with enough work for several threads."""
    graph = GraphBuilder()
    kernel = np.random.default_rng(1).normal(size=(32, 3, 3, 3)).astype(np.float32)
    found = graph.add_node("Conv", "images", graph.add_constant(kernel), pads=[1, 1, 1, 1])
    shape = ("n", 3, SIDE, SIDE)
    return graph.build_graph(
        "convolution", {"images": (TensorProto.FLOAT, shape)}, {"y": (found, ("n", 32, SIDE, SIDE))}
    )


@pytest.mark.parametrize("batch", ["n", 1, 2, 5, 8])
def test_any_number_of_images_runs_in_a_graph_made_for_a_fixed_one(
    load: Callable[[bytes], GraphSession], batch: int | str
) -> None:
    values = np.arange(15, dtype=np.float32).reshape(5, 3)

    doubled, summed = load(doubling(batch)).run(values)

    np.testing.assert_array_equal(doubled, 2 * values)
    np.testing.assert_array_equal(summed, values.sum(axis=1, keepdims=True).reshape(5, 1))


def test_bytes_that_are_no_graph_are_a_set_up_error(load: Callable[[bytes], GraphSession]) -> None:
    with pytest.raises(WeightsError, match="cannot load"):
        load(b"no graph")


def test_concurrent_threads_get_the_outputs_of_one_thread(load: Callable[[bytes], GraphSession]) -> None:
    network = load(convolving())
    images = np.random.default_rng(2).normal(size=(24, 1, 3, SIDE, SIDE)).astype(np.float32)
    alone = [network.run(image)[0] for image in images]

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda image: network.run(image)[0], images))

    np.testing.assert_array_equal(together, alone)


def test_all_cores_are_used_inside_the_block_only_and_while_alone(
    load: Callable[[bytes], GraphSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "count_usable_cores", lambda: 3)
    network = load(convolving())
    compiled: list[int] = []
    compile_ = network._compile_graph

    def compile_counted(graph: bytes, threads: int) -> CompiledGraph:
        compiled.append(threads)
        return compile_(graph, threads)

    monkeypatch.setattr(network, "_compile_graph", compile_counted)
    image = np.random.default_rng(3).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    (narrow,) = network.run(image)

    with use_all_cores(is_alone=lambda: False):
        network.run(image)
    before = list(compiled)
    with use_all_cores():
        (wide,) = network.run(image)
        network.run(image)
        with ThreadPoolExecutor(1) as elsewhere:
            assert elsewhere.submit(network._get_compiled_graph, 1).result() is network._single_core_graph
    assert network._get_compiled_graph(1) is network._single_core_graph

    assert (before, compiled) == ([], [] if isinstance(network, DeviceSession) else [3])
    np.testing.assert_allclose(wide, narrow, atol=1e-4)


def test_onnx_runtime_is_configured_with_a_thread_count_and_without_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "count_usable_cores", lambda: 3)
    made: list[tuple[int, str]] = []

    def load(graph: bytes, options: Any, providers: list[Any]) -> Any:
        spinning = options.get_session_config_entry("session.intra_op.allow_spinning")
        made.append((options.intra_op_num_threads, spinning))
        return ort.InferenceSession(graph, options, providers=providers)

    monkeypatch.setattr(onnx_session, "_load_session", load)
    with use_all_cores():
        OnnxSession(doubling()).run(np.zeros((1, 3), np.float32))

    assert made == [(1, "0"), (3, "0")]


def test_a_device_the_installed_onnx_runtime_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU_PROVIDER])

    with pytest.raises(SetupError, match=r"has no CUDAExecutionProvider: .*onnxruntime-gpu"):
        DeviceSession(doubling(), "cuda")


def test_a_session_that_silently_took_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ONNX Runtime does where the package has CUDA and the machine has not: it warns and uses the CPU."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU_PROVIDER])
    cpu_only = ort.InferenceSession(doubling(), providers=[CPU_PROVIDER])
    monkeypatch.setattr(onnx_session, "_load_session", lambda *_: cpu_only)
    monkeypatch.setattr(ort, "preload_dlls", lambda: sys.stdout.write("Failed to load libcudart.so\n"))
    monkeypatch.setattr(onnx_session, "_load_cuda", onnx_session._load_cuda.__wrapped__)

    with pytest.raises(SetupError, match=r"on the CPU though inference\.device is cuda.* Failed to load libcudart\.so"):
        DeviceSession(doubling(), "cuda")


def test_a_device_sees_only_numbers_of_images_it_is_prepared_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another number of images a device would plan every layer again."""
    runs: list[tuple[Any, int]] = []
    compiled = onnx_session._build_compiled_graph

    def build_counted(loaded: Any) -> CompiledGraph:
        whole = compiled(loaded)

        def infer(values: NDArray[Any]) -> list[NDArray[np.float32]]:
            runs.append((loaded, len(values)))
            return whole.infer(values)

        return replace(whole, infer=infer)

    monkeypatch.setattr(onnx_session, "get_provider", lambda _: CPU_PROVIDER)
    monkeypatch.setattr(
        onnx_session, "_load_session", lambda graph, *_: ort.InferenceSession(graph, providers=[CPU_PROVIDER])
    )
    monkeypatch.setattr(onnx_session, "_build_compiled_graph", build_counted)
    session = DeviceSession(doubling(), "coreml")
    prepared = list(runs)
    images = np.arange(3 * 37, dtype=np.float32).reshape(37, 3)
    doubled, summed = session.run(images)
    session.run(images[:1])
    session.run(images[:3])

    assert [count for _, count in prepared] == [1, 2, 4, 8, 16]
    assert [count for _, count in runs[5:]] == [16, 16, 8, 1, 4]
    assert len(set(runs)) == len({loaded for loaded, _ in runs}) == 5  # each of them receives one number
    np.testing.assert_array_equal(doubled, 2 * images)
    np.testing.assert_array_equal(summed, images.sum(axis=1, keepdims=True))


def test_convolutions_are_of_single_precision(load: Callable[[bytes], GraphSession]) -> None:
    """CUDA computes them in TF32 by default, with errors of thousandths."""
    images = np.random.default_rng(0).normal(size=(4, 3, SIDE, SIDE)).astype(np.float32)

    (found,) = load(convolving()).run(images)

    np.testing.assert_allclose(found, OnnxSession(convolving()).run(images)[0], atol=1e-4)


def test_openvino_without_bf16_is_not_assumed_to_compute_in_bf16() -> None:
    pytest.importorskip("openvino")
    if has_bf16():
        pytest.skip("this processor computes in bf16")

    with pytest.raises(SetupError, match=r"runs a network in f32 though inference\.precision is bf16"):
        OpenVinoSession(convolving(), "bf16")


@pytest.mark.usefixtures("unmeasured_processes")
def test_numpy_and_opencv_work_on_the_thread_that_calls_them() -> None:
    """In a process of its own: another test may have started threads already."""
    code = (
        "import vultus.models.pipeline, numpy, cv2, psutil, os\n"
        "vultus.models.pipeline.limit_threads()\n"
        "square = numpy.ones((2500, 2500), numpy.float32)\n"
        "square @ square; cv2.GaussianBlur(square, (61, 61), 0)\n"
        "print([one.user_time for one in psutil.Process().threads() if one.id != os.getpid()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert [seconds for seconds in json.loads(done.stdout) if seconds > 0.02] == []


@pytest.mark.parametrize(("quota", "most"), [("max 100000\n", None), ("150000 100000\n", 2), ("50000 100000\n", 1)])
def test_cores_are_counted_by_affinity_and_quota(tmp_path: Path, quota: str, most: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    unlimited = count_usable_cores(tmp_path / "missing")

    assert count_usable_cores(file) == min(unlimited, most or unlimited)
    assert unlimited == len(os.sched_getaffinity(0))
