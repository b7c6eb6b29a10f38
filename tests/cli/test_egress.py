"""Nothing leaves the machine by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.egress import SCENARIOS, observe_scenario


@pytest.fixture(scope="module")
def observations() -> Iterator[dict[str, dict[str, Any]]]:
    """Observations by scenario; scenarios mostly wait, so they run concurrently."""
    with ExitStack() as folders, ThreadPoolExecutor() as pool:
        runs = {}
        for scenario in SCENARIOS:
            data_dir = Path(
                folders.enter_context(tempfile.TemporaryDirectory(prefix="vultus-test-", ignore_cleanup_errors=True))
            )
            runs[scenario] = pool.submit(observe_scenario, scenario, data_dir)
        yield {scenario: run.result() for scenario, run in runs.items()}


def test_a_service_that_starts_registers_and_recognises_contacts_nobody(
    observations: dict[str, dict[str, Any]],
) -> None:
    assert observations["service"] == {"names": [], "connections": [], "unreachable": 0}


def test_the_same_observation_sees_what_onnx_runtime_sends_unless_disabled(
    observations: dict[str, dict[str, Any]],
) -> None:
    assert any("microsoft" in name for name in observations["onnxruntime-alone"]["names"])
    assert observations["onnxruntime-alone"]["connections"]


def test_the_same_observation_sees_a_packet_without_a_name(observations: dict[str, dict[str, Any]]) -> None:
    assert observations["address"] == {"names": [], "connections": [], "unreachable": 1}


@pytest.mark.usefixtures("unmeasured_processes")
@pytest.mark.parametrize(
    ("before", "environment", "is_loaded"),
    [
        pytest.param("", {}, True, id="alone"),
        pytest.param("import onnxruntime", {}, False, id="after-onnxruntime"),
        pytest.param("import onnxruntime", {"ORT_DISABLE_TELEMETRY": "0"}, False, id="after-onnxruntime-switched-on"),
        pytest.param("import onnxruntime", {"ORT_DISABLE_TELEMETRY": "1"}, True, id="after-onnxruntime-switched-off"),
    ],
)
def test_no_network_is_loaded_where_onnx_runtime_may_have_started_reporting(
    before: str, environment: dict[str, str], is_loaded: bool
) -> None:
    load = f"""
{before}
import vultus.models.runtime as runtime, vultus.errors, onnx
from onnx import TensorProto, helper
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
try:
    runtime.OnnxSession(model.SerializeToString())
    print("loaded")
except vultus.errors.SetupError as error:
    print(error.detail)
"""
    inherited = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    output = subprocess.run(
        [sys.executable, "-c", load], env=inherited | environment, capture_output=True, text=True, check=True
    ).stdout

    assert ("loaded" in output) is is_loaded
    assert ("ORT_DISABLE_TELEMETRY=1" in output) is not is_loaded
