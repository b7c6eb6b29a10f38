"""Clients that are generated from the description of the API register and recognise at a running server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.faces import portrait
from tests.serving import serving

HERE = Path(__file__).parent
EXPECTED = {
    "verdict": "match",
    "person": True,
    "reasons": ["above_threshold"],
    "listed": 1,
    "code": "invalid_request",
}
GENERATOR = "openapi-python-client==0.29.1"
PACKAGES = ("@hey-api/openapi-ts@0.99.0", "typescript@5.9.3", "@types/node@20")
COMPILE = "--strict --target es2022 --module commonjs --moduleResolution node10 --skipLibCheck --types node"


def run(*command: str | Path, cwd: Path, **more: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"the generator cannot be installed: {done.stderr[-200:]}")


def generate_python(folder: Path) -> list[str | Path]:
    """In an environment of its own: the generator holds back a library of ours."""
    install(sys.executable, "-m", "venv", "environment", cwd=folder)
    bin_ = folder / "environment" / "bin"
    install(bin_ / "pip", "install", "--quiet", "--disable-pip-version-check", GENERATOR, cwd=folder)
    path = {"env": {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}}
    command = (bin_ / "openapi-python-client", "generate", "--path", "openapi.json", "--output-path", "client")
    said = run(*command, cwd=folder, **path)
    assert "warning" not in said.lower(), said
    shutil.copy(HERE / "use.py", folder / "client")
    return [bin_ / "python", folder / "client" / "use.py"]


def generate_typescript(folder: Path) -> list[str | Path]:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    (folder / "package.json").write_text('{"private": true}')
    install(npm, "install", "--no-audit", "--no-fund", "--no-package-lock", *PACKAGES, cwd=folder)
    bin_ = folder / "node_modules" / ".bin"
    run(bin_ / "openapi-ts", "-i", "openapi.json", "-o", "client", "-c", "@hey-api/client-fetch", cwd=folder)
    shutil.copy(HERE / "use.ts", folder)
    run(bin_ / "tsc", *COMPILE.split(), "--lib", "es2022,dom,dom.iterable", "--outDir", "js", "use.ts", cwd=folder)
    return ["node", folder / "js" / "use.js"]


@pytest.mark.usefixtures("unmeasured_processes")
@pytest.mark.parametrize("generate", [generate_python, generate_typescript])
def test_a_generated_client_registers_and_recognises(generate: Any, data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "ada.jpg").write_bytes(portrait())
    with serving(data_dir, first_key=True) as (address, key, _):
        (tmp_path / "openapi.json").write_bytes(httpx.get(f"{address}/openapi.json").content)

        said = run(*generate(tmp_path), address, key, tmp_path / "ada.jpg", cwd=tmp_path)

    assert json.loads(said) == EXPECTED
