"""Settings from the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from vultus.errors import SetupError
from vultus.settings import Settings, describe_mistakes


def variables(model: type[BaseModel], prefix: str = "VULTUS_") -> Iterator[str]:
    """Yield the variable of every section and field."""
    for name, field in model.model_fields.items():
        yield prefix + name.upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variables(field.annotation, f"{prefix}{name.upper()}__")


@pytest.mark.parametrize("variable", list(variables(Settings)))
def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv(variable, raising=False)
    unset = Settings()
    monkeypatch.setenv(variable, "")

    assert Settings() == unset


@pytest.mark.parametrize("given", [{"server": {"host": ""}}])
def test_an_option_cannot_select_all_networks_by_naming_none(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="host"):
        Settings(**given)


def test_a_pool_has_a_connection_for_readers_beside_that_for_writers() -> None:
    with pytest.raises(ValidationError, match="pool_size"):
        Settings(database={"pool_size": 1})


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the configuration file in a data directory of its own."""
    monkeypatch.setenv("VULTUS_DATA_DIR", str(tmp_path))
    return tmp_path / "vultus.toml"


def mistakes(**options: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Settings(**options)
    return dict(describe_mistakes(caught.value, options))


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("VULTUS_LOG_LEVEL", "VULTUS_LOG__LEVEL"),
        ("VULTUS_PORT", "VULTUS_SERVER__PORT"),
        ("VULTUS_SERVR__PORT", "VULTUS_SERVER__PORT"),
        ("VULTUS_SERVER__PRT", "VULTUS_SERVER__PORT"),
        ("vultus_server__prt", "VULTUS_SERVER__PORT"),
        ("VULTUS_DATA_DIRECTORY", "VULTUS_DATA_DIR"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str
) -> None:
    monkeypatch.setenv(variable, "8001")

    assert mistakes() == {variable.upper(): f"there is no such setting; did you mean {nearest}?"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VULTUS_PORT", "tcp://10.0.0.1:8000"),
        ("VULTUS_API_PORT", "udp://10.0.0.1:8000"),
        ("VULTUS_SERVICE_HOST", "10.0.0.1"),
        ("VULTUS_NAME", "/web/vultus"),
        ("VULTUS_ENV_VULTUS_DATA_DIR", "/data"),
        ("VULTUS_SERVICE_PORT_HTTP", "8000"),
        ("VULTUS_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("VULTUS_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("VULTUS_TEST_MODELS", "/models"),
    ],
)
def test_service_links_and_variables_of_tests_set_nothing(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    unset = Settings()
    monkeypatch.setenv(variable, value)

    assert Settings() == unset


def test_a_section_has_no_value_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_LOG", "debug")

    assert "VULTUS_LOG__LEVEL" in mistakes()["VULTUS_LOG"]


@pytest.mark.parametrize(
    ("variable", "value", "mistake"),
    [
        ("VULTUS_INFERENCE__WORKERS", "0", "must be at least 1"),
        ("VULTUS_SERVER__PORT", "99999", "must be at most 65535"),
        ("VULTUS_SERVER__PORT", "many", "must be a whole number"),
        ("VULTUS_SERVER__PORT", "80.5", "must be a whole number"),
        ("VULTUS_INFERENCE__WORKERS", "100000", "must be at most 1024"),
        ("VULTUS_DATABASE__POOL_WAIT_S", "inf", "must be a number"),
        ("VULTUS_JOBS__SWEEP_INTERVAL_S", "nan", "must be a number"),
        ("VULTUS_MODELS__OFFLINE", "perhaps", "must be true or false"),
        ("VULTUS_LOG__FORMAT", "xml", "must be 'text' or 'json'"),
        ("VULTUS_SERVER__ROOT_PATH", "faces/", "must be a path such as /faces, without a slash at its end"),
    ],
)
def test_a_wrong_value_is_described_once_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, mistake: str
) -> None:
    monkeypatch.setenv(variable, value)

    assert mistakes() == {variable: mistake}


def test_metrics_have_another_port_than_the_api() -> None:
    with pytest.raises(ValidationError, match="must differ from"):
        Settings(server={"port": 8000, "metrics_port": 8000})

    assert Settings(server={"port": 8000, "metrics_port": 8000, "metrics": "shared"}).server.port == 8000
    assert Settings(server={"port": 0, "metrics_port": 0}).server.metrics_listener_port == 0


def test_an_option_is_named_as_it_was_written() -> None:
    assert mistakes(server={"port": 99999}) == {"--port": "must be at most 65535"}


def test_words_are_taken_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_LOG__LEVEL", "debug")
    monkeypatch.setenv("VULTUS_LOG__FORMAT", "JSON")

    assert (Settings().log.level, Settings().log.format) == ("DEBUG", "json")


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VULTUS_DATA_DIR", "~/vultus")
    monkeypatch.setenv("VULTUS_KEY_RING__FILE", "~/keys/ring")

    assert Settings().data_dir == tmp_path / "vultus"
    assert Settings().key_ring_file == tmp_path / "keys" / "ring"


def test_options_precede_the_environment_which_precedes_the_file(
    configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration.write_text('[server]\nhost = "::1"\nport = 1\n[log]\nlevel = "error"\n[photos]\nmax_photos = 3\n')
    monkeypatch.setenv("VULTUS_SERVER__PORT", "2")
    monkeypatch.setenv("VULTUS_LOG__LEVEL", "warning")
    monkeypatch.setenv("VULTUS_PHOTOS__MAX_PHOTOS", "")

    found = Settings(server={"port": 3})

    assert (found.server.host, found.server.port) == ("::1", 3)
    assert (found.log.level, found.photos.max_photos) == ("WARNING", 3)


def test_the_file_may_lie_elsewhere_and_name_the_data_directory(
    configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = configuration.with_name("mine.toml")
    elsewhere.write_text('data_dir = "/srv/vultus"')
    monkeypatch.delenv("VULTUS_DATA_DIR")
    monkeypatch.setenv("VULTUS_CONFIG", str(elsewhere))

    assert Settings().data_dir == Path("/srv/vultus")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('data_dir = ""', "data_dir"),
        ('[database]\nurl = " "', "database.url"),
        ('[server]\nhost = ""', "server.host"),
        ('[models]\ndir = ""', "models.dir"),
        ('[key_ring]\nfile = ""', "key_ring.file"),
        ('[inference]\npack = ""', "inference.pack"),
    ],
)
def test_an_empty_text_in_the_file_is_no_folder_and_no_database(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, text: str, key: str
) -> None:
    configuration.write_text(text)
    monkeypatch.setenv("VULTUS_CONFIG", str(configuration))
    monkeypatch.delenv("VULTUS_DATA_DIR")

    assert mistakes() == {f"{configuration}: {key}": "must not be empty; leave it out for the default"}


def test_an_empty_list_or_prefix_in_the_file_is_none(configuration: Path) -> None:
    configuration.write_text('[server]\nroot_path = ""\ntrusted_proxies = ""\n')

    assert (Settings().server.root_path, Settings().server.trusted_proxies) == ("", ())


@pytest.mark.parametrize("text", ["[server]\nport = true", "[photos]\ndecode_timeout_s = false"])
def test_a_truth_value_is_no_number(configuration: Path, text: str) -> None:
    configuration.write_text(text)

    assert list(mistakes().values()) == ["must be a number"]


def test_an_unknown_or_wrong_key_of_the_file_is_refused_by_name(configuration: Path) -> None:
    configuration.write_text('[servr]\nport = 1\n[server]\nprt = 1\n[log]\nlevel = "loud"\n')

    assert mistakes() == {
        f"{configuration}: servr": "there is no such setting; did you mean server?",
        f"{configuration}: server.prt": "there is no such setting; did you mean server.port?",
        f"{configuration}: log.level": "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"[server", "is not TOML"), (b"\xff", "UTF-8"), (b'data_dir = "/srv"', "VULTUS_CONFIG")],
)
def test_a_file_that_cannot_be_used_is_named(configuration: Path, text: bytes, words: str) -> None:
    configuration.write_bytes(text)

    with pytest.raises(SetupError, match=words):
        Settings()


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VULTUS_CONFIG", str(tmp_path / "none.toml"))

    with pytest.raises(SetupError, match=r"none\.toml cannot be read: No such file"):
        Settings()


def test_a_password_that_others_can_read_is_warned_of(configuration: Path) -> None:
    configuration.write_text('[database]\nurl = "postgresql://u:secret@h/d"\n')
    configuration.chmod(0o600)
    assert Settings().cautions == ()

    configuration.chmod(0o644)

    (caution,) = Settings().cautions
    assert "chmod 600" in caution
    assert "secret" not in caution
