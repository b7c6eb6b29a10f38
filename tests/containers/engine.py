"""Builds the image without a container registry and runs it by Podman, as far as this machine lets it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
BASE = "debian:trixie-slim"
IMAGE = "localhost/vultus-under-test"
BUILD_S, STARTUP_S, STOP_S = 1200, 120, 90
OWN_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""What this machine's pip needs to reach its index; a base that is made here gets them."""

HARDENED = (
    *("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--pids-limit=512", "--memory=4g"),
    *("--shm-size=256m", "--tmpfs=/tmp:mode=1777,size=512m,noexec,nosuid,nodev"),
)


def call(*words: str, check: bool = True, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done


@cache
def build_image() -> str:
    """Return the image that the Dockerfile makes, with weights if they can be had; skip where it cannot be made."""
    for program in ("podman", "buildah"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, which builds and runs images")
    require_base()
    build = ("buildah", "bud", "--isolation=chroot", "--format=docker", "--layers", f"--tag={IMAGE}")
    done = call(*build, "--build-arg=MODELS=sface", ".", check=False, timeout_s=BUILD_S)
    if "could not be fetched" in done.stdout + done.stderr:
        done = call(*build, ".", check=False, timeout_s=BUILD_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return IMAGE


def require_base() -> None:
    """Make sure that the base is here: from a registry, else of Debian's packages."""
    if call("podman", "image", "exists", BASE, check=False).returncode == 0:
        return
    if call("buildah", "pull", BASE, check=False, timeout_s=120).returncode == 0:
        return
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        pytest.skip(f"no registry has {BASE}, and debootstrap, which would make one as root, is not installed")
    with tempfile.TemporaryDirectory() as folder:
        suite = BASE.partition(":")[2].removesuffix("-slim")
        made = call(
            "debootstrap", "--variant=minbase", "--include=ca-certificates", suite, folder, check=False, timeout_s=600
        )
        if made.returncode:
            pytest.skip(f"the base cannot be made: {made.stderr[-200:]}")
        for file in filter(os.path.exists, OWN_FILES):
            shutil.copy(file, folder + file)
        archive = subprocess.Popen(
            [
                "tar",
                "-C",
                folder,
                "--exclude=./var/cache/apt/archives/*.deb",
                "--exclude=./proc/*",
                "--exclude=./sys/*",
                "-c",
                ".",
            ],
            stdout=subprocess.PIPE,
        )
        subprocess.run(
            ["podman", "import", "-", BASE], stdin=archive.stdout, check=True, capture_output=True, timeout=300
        )
        assert archive.wait() == 0


@cache
def find_runner() -> tuple[str, ...]:
    """Return how a container is run here, up to its options; skip where none runs."""
    image = build_image()
    limits = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")  # where Podman may not raise its own
    said = ""
    for runtime in ((), ("--runtime=crun",), ("--runtime=runc",)):
        for extra in ((), limits):
            words = ("podman", *runtime, "run", "--network=host", *extra)
            tried = call(*words, "--rm", "--entrypoint=true", image, check=False)
            if tried.returncode == 0:
                return words
            said = tried.stderr.strip().splitlines()[-1]
    pytest.skip(f"containers do not run here: {said[-200:]}")


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def make_volume() -> Iterator[str]:
    """Yield the name of a volume for data; that of its ledger of erasures comes and goes with it."""
    name = f"vultus-test-{os.getpid()}-{find_port()}"
    names = (name, f"{name}-custody")
    for one in names:
        call("podman", "volume", "create", one)
    try:
        yield name
    finally:
        call("podman", "volume", "rm", "--force", *names, check=False)


def mount(volume: str) -> tuple[str, str]:
    return f"--volume={volume}:/var/lib/vultus", f"--volume={volume}-custody:/var/lib/vultus-custody"


class Container:
    """A running container of the service."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.address = f"http://127.0.0.1:{port}"

    def execute(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return call("podman", "exec", self.name, *words, check=check)

    def read_logs(self) -> str:
        done = call("podman", "logs", self.name)
        return done.stdout + done.stderr

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTUP_S
        while True:
            try:
                if httpx.get(f"{self.address}/v1/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            running = json.loads(call("podman", "inspect", self.name).stdout)[0]["State"]["Running"]
            assert running and time.monotonic() < deadline, self.read_logs()[-3000:]
            time.sleep(0.2)


@contextmanager
def running(volume: str, *options: str) -> Iterator[Container]:
    """Run the service hardened on a volume, wait until it serves, and stop it as an orchestrator does."""
    port = find_port()
    name = f"{volume}-{port}"
    ports = (f"--env=VULTUS_SERVER__PORT={port}", f"--env=VULTUS_SERVER__METRICS_PORT={find_port()}")
    words = (*find_runner(), "--detach", f"--name={name}", *HARDENED, *mount(volume), *ports)
    call(*words, *options, build_image())
    container = Container(name, port)
    try:
        container.wait_until_ready()
        yield container
        call("podman", "stop", f"--time={STOP_S}", name, timeout_s=STOP_S + 30)
        state = json.loads(call("podman", "inspect", name).stdout)[0]["State"]
        assert state["ExitCode"] == 0, container.read_logs()[-3000:]
        assert "Traceback" not in container.read_logs()
    finally:
        call("podman", "rm", "--force", name, check=False)
