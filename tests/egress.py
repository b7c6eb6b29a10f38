"""Network traffic of a program, observed in a network namespace of its own whose only host is this one.

`python -m tests.egress SCENARIO` runs a scenario there and prints as JSON which names were looked up, which connections
came to port 443, and how many packets had no route. Every name resolves to this host, so that a client gets as
far as its first TLS message.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LIMIT_S = 120
OBSERVATION_S = 14.0
"""ONNX Runtime 1.32 resolves its publisher's host 9 seconds after it was imported."""

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def observe_scenario(scenario: str, data_dir: Path) -> dict[str, Any]:
    """Run a scenario in a network namespace and return the traffic; skip the test where that is not permitted."""
    enter = ["unshare", "--net", "--mount"]
    if os.geteuid():
        enter += ["--user", "--map-current-user", "--keep-caps"]
    tried = subprocess.run([*enter, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"needs network namespaces: {tried.stderr.strip()}")
    # ONNX Runtime sends nothing where a variable marks a run of tests: none is passed on.
    environment = {"HOME": str(data_dir), "PATH": os.environ["PATH"], "VULTUS_DATA_DIR": str(data_dir)}
    environment["VULTUS_CUSTODY_DIR"] = str(data_dir / "custody")
    environment["VULTUS_MODELS__OFFLINE"] = "true"  # what else would fetch the recommended pack
    ended = subprocess.run(
        [*enter, sys.executable, "-m", "tests.egress", scenario],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    observed: dict[str, Any] = json.loads(ended.stdout)
    return observed


def run_service() -> None:
    """Start the service, register a person, recognise them, and wait."""
    import httpx  # noqa: PLC0415 - the scenario without Vultus must not import it

    from tests.faces import portrait  # noqa: PLC0415
    from tests.serving import serving  # noqa: PLC0415

    began = time.monotonic()
    with serving(Path(os.environ["VULTUS_DATA_DIR"]), first_key=True) as (address, key, _):
        with httpx.Client(base_url=address, headers={"X-API-Key": key}, timeout=60) as client:
            consent = {"consent_purpose": "Tests", "consent_recorded_by": "tests"}
            photo = {"photo": portrait()}
            client.post("/v1/register", data={"name": "Ada", **consent}, files=photo).raise_for_status()
            (face,) = client.post("/v1/recognize", files=photo).raise_for_status().json()["faces"]
            assert face["verdict"] == "match"
        time.sleep(max(0.0, began + OBSERVATION_S - time.monotonic()))


def import_onnxruntime_alone() -> None:
    """Import ONNX Runtime without this project, and wait."""
    subprocess.run([sys.executable, "-c", f"import onnxruntime, time; time.sleep({OBSERVATION_S})"], check=True)


def send_to_an_address() -> None:
    """Try to reach an address of the documentation range without resolving a name."""
    with socket.socket() as client, suppress(OSError):
        client.connect(("192.0.2.1", 443))


SCENARIOS: dict[str, Callable[[], None]] = {
    "service": run_service,
    "onnxruntime-alone": import_onnxruntime_alone,
    "address": send_to_an_address,
}


def _answer_names(names: list[str], server: socket.socket) -> None:
    """Answer every query for an IPv4 address with this host's."""
    while True:
        query, client = server.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        names.append(".".join(labels))
        question = query[12 : at + 5]
        is_ipv4 = question[-4:-2] == b"\x00\x01"
        answer = b"\xc0\x0c" + struct.pack(">HHIH4B", 1, 1, 5, 4, 127, 0, 0, 1) if is_ipv4 else b""
        server.sendto(query[:2] + struct.pack(">5H", 0x8180, 1, is_ipv4, 0, 0) + question + answer, client)


def _accept(connections: list[str], server: socket.socket) -> None:
    while True:
        client, _ = server.accept()
        with client:
            connections.append(client.recv(3).hex())


def _count_unreachable() -> int:
    """Return how many packets the namespace had no route for."""
    counters = Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in counters if line.startswith("Ip:"))
    return int(values[names.index("OutNoRoutes")])


def main() -> None:
    """Set the namespace up, run a scenario, print the observed traffic."""
    names: list[str] = []
    connections: list[str] = []
    with socket.socket() as loopback:
        fcntl.ioctl(loopback, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as resolver:
        resolver.write("nameserver 127.0.0.1\n")
        resolver.flush()
        Path(resolver.name).chmod(0o644)
        subprocess.run(["mount", "--bind", resolver.name, "/etc/resolv.conf"], check=True)
        resolving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        resolving.bind(("127.0.0.1", 53))
        listening = socket.create_server(("", 443))
        threading.Thread(target=_answer_names, args=(names, resolving), daemon=True).start()
        threading.Thread(target=_accept, args=(connections, listening), daemon=True).start()
        SCENARIOS[sys.argv[1]]()
    observed = {"names": names, "connections": connections, "unreachable": _count_unreachable()}
    sys.stdout.write(json.dumps(observed))


if __name__ == "__main__":
    main()
