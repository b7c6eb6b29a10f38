"""Both key rings by one contract: a file, and the transit engine of a stub that speaks Vault's API (no Vault)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.vaults import ROLE, SECRET_ID, TOKEN, StubVault, run_vault

from vultus.errors import KeyRingError
from vultus.sealing import vault_key_ring
from vultus.sealing.custody import Custody, open_custody
from vultus.sealing.key_ring import FileKeyRing, KeyRing
from vultus.sealing.vault_key_ring import VaultKeyRing
from vultus.settings import KeyRingSettings, Settings

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def server() -> Iterator[StubVault]:
    with run_vault() as vault:
        yield vault


@pytest.fixture
def vault(server: StubVault) -> StubVault:
    url = server.url
    server.__init__(url=url)  # type: ignore[misc]
    return server


def write(folder: Path, content: str) -> Path:
    path = folder / "credential"
    path.write_text(f"{content}\n")
    return path


@pytest.fixture(params=["file", "vault"])
def ring(request: pytest.FixtureRequest, tmp_path: Path, vault: StubVault) -> KeyRing:
    if request.param == "file":
        return FileKeyRing(tmp_path / "ring.json")
    return VaultKeyRing(KeyRingSettings(vault_address=vault.url, vault_token_file=write(tmp_path, TOKEN)))


def test_a_key_opens_only_in_its_context_and_unchanged(ring: KeyRing) -> None:
    assert not ring.exists()
    ring.create()
    assert ring.exists()
    wrapped = ring.wrap(KEY, "a")

    assert ring.unwrap(wrapped, "a") == KEY
    assert ring.wrap(KEY, "a") != wrapped
    ring.create()  # nothing: there is one
    assert ring.unwrap(wrapped, "a") == KEY
    changed = wrapped[:-6] + ("A" if wrapped[-6] != "A" else "B") + wrapped[-5:]
    for value, context in ((wrapped, "b"), (changed, "a")):
        with pytest.raises(KeyRingError, match=r"wrap"):
            ring.unwrap(value, context)


def test_old_versions_unwrap_until_they_are_retired(ring: KeyRing) -> None:
    ring.create()
    old = ring.wrap(KEY, "a")
    ring.rotate()
    new = ring.wrap(KEY, "a")  # by the newest, as soon as there is one
    assert list(ring.list_versions()) == [1, 2]
    assert ring.unwrap(old, "a") == ring.unwrap(new, "a") == KEY

    ring.retire_old_versions()
    ring.retire_old_versions()  # an interrupted one is called again

    assert list(ring.list_versions()) == [2]
    assert ring.unwrap(new, "a") == KEY
    with pytest.raises(KeyRingError):
        ring.unwrap(old, "a")
    ring.rotate()
    ring.retire_old_versions()
    assert list(ring.list_versions()) == [3]


def test_keys_of_persons_stand_on_either(ring: KeyRing, tmp_path: Path) -> None:
    custody = Custody.open(tmp_path / "custody", ring)
    custody.keys.create()
    signing, installation = custody.keys.load().signing_secret, custody.keys.load().installation_id
    (slot,) = custody.person_keys.create_keys([installation])
    custody.keys.rotate()
    custody.person_keys.rewrap_keys()
    custody.keys.retire_old_versions()

    again = Custody.open(tmp_path / "custody", ring)
    assert again.keys.load().signing_secret == signing
    assert again.person_keys.find_keys([(slot, installation)]) == custody.person_keys.find_keys([(slot, installation)])


def test_vault_is_asked_at_the_start_and_not_for_every_person(vault: StubVault, tmp_path: Path) -> None:
    login = {"address": vault.url, "role": ROLE, "secret_id_file": write(tmp_path, SECRET_ID)}
    settings = Settings(data_dir=tmp_path / "data", key_ring={f"vault_{name}": value for name, value in login.items()})
    custody = open_custody(settings)
    custody.keys.create()
    persons = [custody.keys.load().installation_id] * 50
    vault.calls.clear()
    open_custody(settings).keys.read_installation_id()

    slots = custody.person_keys.create_keys(persons)
    custody.person_keys.find_keys(list(zip(slots, persons, strict=True)))

    assert vault.calls == []
    open_custody(settings).keys.load()
    assert sorted({*vault.calls}) == ["POST auth/approle/login", "POST transit/decrypt/vultus"]


def test_a_vault_key_that_was_rotated_is_taken_by_no_new_installation(vault: StubVault, tmp_path: Path) -> None:
    ring = VaultKeyRing(KeyRingSettings(vault_address=vault.url, vault_token_file=write(tmp_path, TOKEN)))
    custody = Custody.open(tmp_path / "custody", ring)
    custody.keys.create()
    custody.keys.rotate()
    with pytest.raises(KeyRingError, match="VAULT_KEY: two installations"):
        Custody.open(tmp_path / "another", ring).keys.create()


def test_it_logs_in_to_vault_as_a_service_of_kubernetes(
    vault: StubVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_key_ring, "KUBERNETES_TOKEN", write(tmp_path, "a-jwt"))
    VaultKeyRing(KeyRingSettings(vault_address=vault.url, vault_role=ROLE)).create()
    assert vault.calls[0] == "POST auth/kubernetes/login"
    assert list(vault.keys) == ["vultus"]


def test_what_is_wrong_with_vault_is_said_in_a_sentence(vault: StubVault, tmp_path: Path) -> None:
    token = write(tmp_path, TOKEN)

    def open_ring(**changes: object) -> VaultKeyRing:
        return VaultKeyRing(KeyRingSettings(vault_address=vault.url, vault_token_file=token, **changes))

    open_ring().create()
    wrapped = open_ring().wrap(KEY, "a")
    open_ring(vault_key="other").create()

    with pytest.raises(KeyRingError, match=r"'transit/other' of Vault at .* did not wrap the keys"):
        open_ring(vault_key="other").unwrap(wrapped, "a")
    with pytest.raises(KeyRingError, match="is not there"):
        open_ring(vault_mount="elsewhere").wrap(KEY, "a")
    vault.denied = "transit/decrypt"
    with pytest.raises(KeyRingError, match=r"refuses this server.*decrypt"):
        open_ring().unwrap(wrapped, "a")
    vault.is_sealed = True
    with pytest.raises(KeyRingError, match=r"Vault is sealed"):
        open_ring().unwrap(wrapped, "a")
    vault.is_sealed, vault.keys["vultus"].type = False, "rsa-4096"
    with pytest.raises(KeyRingError, match="of type 'rsa-4096'; make one of type aes256-gcm96"):
        open_ring().exists()
    token.unlink()
    with pytest.raises(KeyRingError, match=r"logs in to Vault, cannot be read: No such file"):
        open_ring().exists()


def test_a_vault_that_is_not_there_or_redirects_is_named(tmp_path: Path) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(307)
            self.send_header("Location", "http://198.51.100.1/v1/transit/keys/vultus")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        ring = VaultKeyRing(KeyRingSettings(vault_address=address, vault_token_file=write(tmp_path, TOKEN)))
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(KeyRingError, match="307 from http://198"):
            ring.exists()
        thread.join()
    with pytest.raises(KeyRingError, match=r"cannot be reached.*VAULT_ADDRESS"):
        ring.exists()


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"vault_address": "http://127.0.0.1"}, "needs a login"),
        ({"vault_address": "http://127.0.0.1", "vault_token_file": "t", "vault_role": "r"}, "needs a login"),
        ({"vault_address": "http://127.0.0.1", "vault_token_file": "t", "file": "f"}, "a file or in Vault"),
        ({"vault_token_file": "t"}, "belong to vault_address"),
        (
            {"vault_address": "http://127.0.0.1", "vault_token_file": "t", "vault_secret_id_file": "s"},
            "needs vault_role",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, str], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        KeyRingSettings.model_validate(values)
