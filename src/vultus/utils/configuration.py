"""Reads configuration from environment and file, and describes what is wrong with it, without repeating values.

What is unknown is passed on as it was found, for the model to refuse together with every other mistake.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from vultus.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

PREFIX = "VULTUS_"
SEPARATOR = "__"
FILE_VARIABLE = "VULTUS_CONFIG"

_OTHER_VARIABLES = re.compile(r"VULTUS_(TEST_\w+|BENCH_\w+|LFW)")  # of the tests and benchmarks of this project

# What Kubernetes and Docker put into every container beside a service whose name begins with "vultus".
_SERVICE_LINKS = re.compile(
    r"VULTUS_(\w+_)?(ENV_\w+|SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR|START|END))?)"
)
_SERVICE_ADDRESS_NAME = re.compile(r"VULTUS_(\w+_)?(PORT|NAME)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://|/\w")

_ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")

_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?")

_MESSAGES = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "finite_number": "must be a number",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_pattern_mismatch": "must be a path such as /faces, without a slash at its end",  # server.root_path
    "value_error": "{error}",
}


def read_environment(model: type[BaseModel], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the environment sets, by section and field; a variable of nothing but blanks is unset.

    Names are read in any case. Unknown ones are returned too, but not those that service links inject.
    """
    found: dict[str, Any] = {}
    for name, value in environ.items():
        variable = name.upper()
        if not variable.startswith(PREFIX) or not value.strip() or _is_of_others(variable, value):
            continue
        section, separator, field = variable.removeprefix(PREFIX).lower().partition(SEPARATOR)
        if not separator or section not in model.model_fields:
            found.setdefault(variable.removeprefix(PREFIX).lower(), value)
        elif isinstance(inner := found.setdefault(section, {}), dict):
            inner[field] = value
    return found


def _is_of_others(variable: str, value: str) -> bool:
    if variable == FILE_VARIABLE or _OTHER_VARIABLES.fullmatch(variable) or _SERVICE_LINKS.fullmatch(variable):
        return True
    return bool(_SERVICE_ADDRESS_NAME.fullmatch(variable) and _SERVICE_ADDRESS.match(value))


def read_configuration_file(path: Path) -> dict[str, Any]:
    """Return what a TOML file sets, by section and field.

    Raises:
        SetupError: It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SetupError(f"The configuration file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SetupError(f"The configuration file {path} is not written in UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        # Its message names line and column and quotes one character at most.
        raise SetupError(f"The configuration file {path} is not TOML: {error}.") from None


def normalise_values(model: type[BaseModel], values: Any) -> Any:
    """Return values with `~` expanded in paths, and words of a list of words in the case that the list has."""
    if not isinstance(values, Mapping):
        return values
    return {
        name: _normalise_value(model.model_fields[name].annotation, value)
        if name in model.model_fields and isinstance(value, (str, Path))
        else value
        for name, value in values.items()
    }


def _normalise_value(annotation: Any, value: str | Path) -> Any:
    kinds = set(_list_types(annotation))
    if Path in kinds and str(value).strip():
        try:
            return Path(value).expanduser()
        except RuntimeError:
            raise ValueError(f"{value} names the home directory of a user who has none") from None
    words = {str(word).casefold(): word for word in kinds if isinstance(word, str)}
    return words.get(value.strip().casefold(), value) if isinstance(value, str) else value


def require_intended(field: FieldInfo, value: Any) -> Any:
    """Return the value of a setting, unless nobody can have meant it.

    Raises:
        ValueError: An empty text, which a template leaves where its variable is unset: it must not become another
            folder, another database or all networks. Or a truth value for a number.
    """
    kinds = set(_list_types(field.annotation))
    if isinstance(value, str) and not value.strip() and field.default != "" and Ellipsis not in kinds:
        raise ValueError("must not be empty; leave it out for the default")
    if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
        raise ValueError("must be a number")
    return value


def _list_types(annotation: Any) -> Iterator[Any]:
    """Yield the types and the literal words that an annotation consists of."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif inner := get_args(annotation):
        for part in inner:
            yield from _list_types(part)
    else:
        yield annotation


def list_setting_names(model: type[BaseModel]) -> list[tuple[str, ...]]:
    """Return the path of every setting: its field, or its section and field."""
    names: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += [(name, inner) for inner in kind.model_fields]
        else:
            names.append((name,))
    return names


def describe_mistake(
    mistake: ErrorDetails, model: type[BaseModel], *, environ: Mapping[str, str], options: Mapping[str, Any], file: str
) -> tuple[str, str]:
    """Return the name of a wrong setting as its user wrote it, and what is wrong with it.

    Args:
        mistake: Of a `ValidationError`.
        model: All settings.
        environ: The environment that was read.
        options: Settings by section that the command line set.
        file: The configuration file that was read.
    """
    place = tuple(str(part) for part in mistake["loc"])[:2]
    variable = _join_variable(place)
    is_set_here = {name.upper() for name, value in environ.items() if value.strip()}
    if len(place) == 2 and place[1] in options.get(place[0], {}):
        name, is_variable = f"--{place[1].replace('_', '-')}", False
    elif not place or variable in is_set_here or not file:
        name, is_variable = variable, True
    else:
        name, is_variable = f"{file}: {'.'.join(place)}", False
    if mistake["type"] == "extra_forbidden":
        return name, _describe_unknown(place, model, is_variable=is_variable)
    if mistake["type"] in {"model_type", "model_attributes_type"}:
        fields = [
            _format_name(path, is_variable=is_variable) for path in list_setting_names(model) if path[0] == place[0]
        ]
        return name, f"is a section and has no value of its own; set its fields: {', '.join(fields)}"
    template = _MESSAGES.get(mistake["type"])
    if template is None:
        return name, mistake["msg"]
    return name, template.format(**mistake.get("ctx", {}))


def _describe_unknown(place: tuple[str, ...], model: type[BaseModel], *, is_variable: bool) -> str:
    known = list_setting_names(model)
    if not is_variable:
        known += [(section,) for section in dict.fromkeys(path[0] for path in known if len(path) > 1)]
    joined = {"_".join(path).replace(SEPARATOR, "_"): path for path in known}
    wanted = "_".join(place).replace(SEPARATOR, "_")
    same_field = [path for path in known if path[-1] == wanted]
    nearest = [joined[name] for name in get_close_matches(wanted, joined, n=1, cutoff=0.6)]
    if best := (same_field or nearest):
        return f"there is no such setting; did you mean {_format_name(best[0], is_variable=is_variable)}?"
    return "there is no such setting; docs/configuration.md lists all of them"


def _format_name(path: tuple[str, ...], *, is_variable: bool) -> str:
    return _join_variable(path) if is_variable else ".".join(path)


def _join_variable(path: tuple[str, ...]) -> str:
    return PREFIX + SEPARATOR.join(path).upper()


def split_words(value: object) -> object:
    """Return the words of a text that are separated by commas; what is no text as it is."""
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def require_network(text: str) -> str:
    """Return the text of an address or a network.

    Raises:
        ValueError: It is neither, a name for example.
    """
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be addresses and networks, such as 10.0.0.5 or 10.0.0.0/24") from None
    return text


def require_origin(text: str) -> str:
    """Return the text of an origin as browsers send it, or `*`.

    Raises:
        ValueError: It is none, or longer than one.
    """
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise ValueError("must be origins such as https://app.example.org, without a path, or *")
    return text


def require_source_entry(text: str) -> str:
    """Return the text of what sources may be opened: an address, a network, a host or an absolute path.

    Raises:
        ValueError: It is none of these.
    """
    if text.startswith("/"):
        if "/../" in f"{text}/" or text == "/":
            raise ValueError("must name a folder, a file or a device, and not all of them")
        return text.rstrip("/")
    try:
        ip_network(text, strict=False)
    except ValueError:
        if not _HOST.fullmatch(text):
            raise ValueError(
                "must be networks, hosts and absolute paths, such as 192.168.7.0/24, camera.example.org or /srv/videos"
            ) from None
    return text
