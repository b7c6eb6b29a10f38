"""A key ring in HashiCorp Vault's transit engine, or OpenBao's: the master key never leaves it.

Vault is asked when a process starts and when keys are rotated, not for every person: what it wraps is the
installation's keys.
"""

from __future__ import annotations

import base64
import binascii
import threading
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vultus.errors import KeyRingError

if TYPE_CHECKING:
    from vultus.settings import KeyRingSettings

KEY_TYPE = "aes256-gcm96"
LOGIN_S = 60.0
KUBERNETES_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class VaultKeyRing:
    """A key of the transit engine, which wraps by AES-256 in Galois/Counter Mode.

    Args:
        settings: With the address of Vault and how to log in there.
    """

    def __init__(self, settings: KeyRingSettings) -> None:
        self._settings = settings
        self._name: dict[str, Any] = {"name": settings.vault_key, "mount_point": settings.vault_mount}
        self._lock = threading.Lock()
        self._client: Any = None
        self._ends_at = 0.0

    @property
    def description(self) -> str:
        """Which key, and where."""
        settings = self._settings
        return f"the key '{settings.vault_mount}/{settings.vault_key}' of Vault at {settings.vault_address}"

    def exists(self) -> bool:
        """Return whether the key is there."""
        return bool(self._read_versions())

    def ensure_unused(self, custody: Path) -> None:
        """Refuse a key that was rotated; whether another installation uses one that was not, Vault does not tell."""
        if len(versions := self._read_versions()) > 1 or max(versions, default=1) > 1:
            raise KeyRingError(
                f"{self.description} was rotated, so it wraps keys already, and {custody / 'keys.json'} is not there. "
                "Put that back from your copy. If this installation is new, make a key of its own and name it in "
                "VULTUS_KEY_RING__VAULT_KEY: two installations must not share one."
            )

    def create(self) -> None:
        """Make the key, unless it is there."""
        if not self.exists():
            self._call("create_key", key_type=KEY_TYPE, **self._name)

    def list_versions(self) -> dict[int, datetime]:
        """Return when each version of the key that still unwraps was made."""
        return self._read_versions()

    def wrap(self, key: bytes, context: str) -> str:
        """Return the key as Vault encrypts it, with the context as associated data."""
        answer = self._call("encrypt_data", plaintext=_encode(key), associated_data=_encode(context), **self._name)
        return str(answer["ciphertext"])

    def unwrap(self, wrapped: str, context: str) -> bytes:
        """Return the key that Vault encrypted."""
        answer = self._call("decrypt_data", ciphertext=wrapped, associated_data=_encode(context), **self._name)
        try:
            return base64.b64decode(answer["plaintext"], validate=True)
        except binascii.Error as error:
            raise KeyRingError(f"{self.description} answered with what is no key.") from error

    def rotate(self) -> None:
        """Add a version."""
        self._call("rotate_key", **self._name)

    def retire_old_versions(self) -> None:
        """Let no version but the newest unwrap, and delete the others."""
        newest = max(self._read_versions())
        for setting in ("min_encryption_version", "min_decryption_version"):  # which must not be the greater one
            self._call("update_key_configuration", **self._name | {setting: newest})
        self._call("trim_key", min_version=newest, **self._name)

    def _read_versions(self) -> dict[int, datetime]:
        found = self._call("read_key", may_lack=True, **self._name)
        if found is None:
            return {}
        if found.get("type") != KEY_TYPE:
            raise KeyRingError(f"{self.description} is of type '{found.get('type')}'; make one of type {KEY_TYPE}.")
        least = found["min_decryption_version"]
        return {
            int(version): datetime.fromtimestamp(made_at, UTC)
            for version, made_at in found["keys"].items()
            if int(version) >= least
        }

    def _call(self, operation: str, *, may_lack: bool = False, **arguments: Any) -> Any:
        """Return what an operation of the transit engine answers.

        Args:
            operation: Name of a method of `hvac.api.secrets_engines.Transit`.
            may_lack: Whether None is returned if there is no such key.
            arguments: Of the method.

        Raises:
            KeyRingError: Vault cannot be reached, is sealed, or refuses.
        """
        if find_spec("hvac") is None:
            raise KeyRingError("The key ring is in Vault, and hvac is not installed: pip install 'vultus[vault]'.")
        from hvac.exceptions import InvalidPath, VaultError  # noqa: PLC0415 - an optional extra
        from requests import RequestException  # noqa: PLC0415 - comes with it

        try:
            answer = getattr(self._log_in().secrets.transit, operation)(**arguments)
        except InvalidPath as error:
            if may_lack:
                return None
            raise self._describe(error) from error
        except VaultError as error:
            raise self._describe(error) from error
        except RequestException as error:
            raise KeyRingError(
                f"Vault at {self._settings.vault_address} cannot be reached ({type(error).__name__}): check "
                "VULTUS_KEY_RING__VAULT_ADDRESS, and VULTUS_KEY_RING__VAULT_CA_FILE if its certificate is not public."
            ) from error
        if isinstance(answer, dict):
            return answer.get("data")
        if not answer.ok or answer.is_redirect:
            raise KeyRingError(
                f"{self.description} answers with status {answer.status_code} from {answer.headers.get('Location')}; "
                "set VULTUS_KEY_RING__VAULT_ADDRESS to the server that answers itself."
            )
        return None

    def _log_in(self) -> Any:
        """Return a client with a token, of a login that is not older than a minute."""
        import hvac  # noqa: PLC0415 - an optional extra
        from requests import Session  # noqa: PLC0415 - comes with it

        with self._lock:
            if self._client is not None and time.monotonic() < self._ends_at:
                return self._client
            settings, session = self._settings, Session()
            session.trust_env = False  # neither proxies nor passwords of other programs
            session.verify = str(settings.vault_ca_file or True)
            client = hvac.Client(
                str(settings.vault_address),
                token=_read(settings.vault_token_file) if settings.vault_token_file else "",
                session=session,
                timeout=settings.vault_timeout_s,
                namespace=settings.vault_namespace,
                allow_redirects=False,
            )
            if settings.vault_secret_id_file is not None:
                client.auth.approle.login(settings.vault_role, _read(settings.vault_secret_id_file))
            elif settings.vault_token_file is None:
                client.auth.kubernetes.login(settings.vault_role, _read(KUBERNETES_TOKEN))
            self._client, self._ends_at = client, time.monotonic() + LOGIN_S
            return client

    def _describe(self, error: Exception) -> KeyRingError:
        """Return an answer of Vault in a sentence."""
        reasons = "; ".join(getattr(error, "errors", None) or ()) or type(error).__name__
        return KeyRingError(_SENTENCES.get(type(error).__name__, _OTHER).format(self.description, reasons))


_OTHER = "{} answers '{}'."
_SENTENCES = {
    "Forbidden": "{} refuses this server ('{}'). Its policy needs read on keys/…, update on encrypt/… and decrypt/…, "
    "and for a rotation update on keys/…/rotate, keys/…/config and keys/…/trim; or its login has ended.",
    "InvalidPath": "{} is not there ('{}'). Enable the transit engine and make the key, or name it in "
    "VULTUS_KEY_RING__VAULT_MOUNT and VULTUS_KEY_RING__VAULT_KEY.",
    "InvalidRequest": "{} did not wrap the keys of this installation, or they were changed ('{}'). Name the key that "
    "did in VULTUS_KEY_RING__VAULT_KEY.",
    "VaultDown": "{} cannot be used: Vault is sealed or in maintenance ('{}'). Unseal it.",
    "VaultNotInitialized": "{} cannot be used: Vault is not initialised ('{}').",
}
"""By the class of the error, in the order of hvac's names."""


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise KeyRingError(
            f"The file {file}, with which this server logs in to Vault, cannot be read: {reason}."
        ) from error


def _encode(value: bytes | str) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
