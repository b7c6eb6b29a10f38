"""Messages between the API process and its workers: typed, versioned, validated when decoded, and never executed.

A worker decodes untrusted photos; a compromised worker must not compromise the process that reads its answers. So an
answer consists of plain values of the types declared here, encoded as MessagePack, and everything else is refused.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np

from vultus import errors
from vultus.domain import Analysis, LoadedSpace, SpaceRegistry
from vultus.errors import VultusError
from vultus.models.pipeline import AnalysisRequest

SCHEMA_VERSION: Final = 3
"""Increases with every change of a message; both ends must have the same."""

LENGTH_HEADER = struct.Struct("<Q")
"""Precedes every message: its length in bytes."""

DEFECT_CODE = "defect"
"""Code of an error that nobody raised deliberately."""

Scalar: TypeAlias = str | int | float | bool | None

ERRORS_BY_CODE: dict[str, type[VultusError]] = {
    found.code: found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, VultusError)
}


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """First message of a worker.

    Attributes:
        pid: Its process id.
        version: `SCHEMA_VERSION` of its messages.
    """

    pid: int
    version: Literal[3] = SCHEMA_VERSION


class NetworksLoaded(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What is loaded, the default first."""

    spaces: list[LoadedSpace]


class PhotoBatch(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Photos for a worker, all for one embedding space."""

    space_id: str
    requests: list[AnalysisRequest]


class PhotoAnalyzed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A photo's analysis."""

    analysis: Analysis


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The error that prevented the analysis of a photo, or the loading of the networks.

    Attributes:
        code: Stable code of a `VultusError`, or `DEFECT_CODE`.
        detail: As of `VultusError`.
        facts: As of `VultusError`.
    """

    code: str
    detail: str
    facts: dict[str, Scalar | list[Scalar]] = {}


class BatchAnswer(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One result per photo of a batch, in its order."""

    results: list[PhotoAnalyzed | Failure]


class _Array(msgspec.Struct, frozen=True, array_like=True):
    """An array; no other type of number is sent than float32."""

    dtype: Literal["<f4"]
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data: bytes


def encode_message(message: msgspec.Struct) -> bytearray:
    """Return a message with its header, ready to be sent."""
    encoded = bytearray(LENGTH_HEADER.size)
    _ENCODER.encode_into(message, encoded, LENGTH_HEADER.size)
    LENGTH_HEADER.pack_into(encoded, 0, len(encoded) - LENGTH_HEADER.size)
    return encoded


def decode_hello(received: bytes | bytearray) -> Hello:
    """Return the first message of a worker.

    Raises:
        msgspec.MsgspecError: It is none, or one of another version.
    """
    return _HELLO_DECODER.decode(received)


def encode_loaded(loaded: SpaceRegistry | VultusError) -> bytearray:
    """Return the message that the networks are loaded, or why they are not."""
    return encode_message(_wrap_error(loaded) if isinstance(loaded, VultusError) else NetworksLoaded(list(loaded)))


def decode_loaded(received: bytes | bytearray) -> SpaceRegistry:
    """Return what is loaded.

    Raises:
        VultusError: The error that prevented it.
        msgspec.MsgspecError: The message is another one.
    """
    message = _LOADED_DECODER.decode(received)
    if isinstance(message, Failure):
        raise _unwrap_error(message)
    return SpaceRegistry(*message.spaces)


def decode_batch(received: bytes | bytearray) -> PhotoBatch:
    """Return photos for this worker.

    Raises:
        msgspec.MsgspecError: The message is another one.
    """
    return _BATCH_DECODER.decode(received)


def encode_results(results: list[Analysis | Exception]) -> bytearray:
    """Return the message that answers a batch."""
    return encode_message(BatchAnswer([_wrap_result(result) for result in results]))


def decode_results(received: bytes | bytearray) -> list[Analysis | Exception]:
    """Return the analyses and errors with which a worker answers a batch; a defect is a `RuntimeError`.

    Raises:
        msgspec.MsgspecError: The message is another one.
        ValueError: There is no such error.
    """
    return [_unwrap_result(result) for result in _ANSWER_DECODER.decode(received).results]


def _wrap_result(result: Analysis | Exception) -> PhotoAnalyzed | Failure:
    return _wrap_error(result) if isinstance(result, Exception) else PhotoAnalyzed(result)


def _wrap_error(error: Exception) -> Failure:
    if isinstance(error, VultusError):
        return Failure(error.code, error.detail, error.facts)
    # Its own message may contain personal data.
    detail = f"An analysis failed with {type(error).__name__}; the worker's log has the trace."
    return Failure(DEFECT_CODE, detail)


def _unwrap_result(result: PhotoAnalyzed | Failure) -> Analysis | Exception:
    return _unwrap_error(result) if isinstance(result, Failure) else result.analysis


def _unwrap_error(failure: Failure) -> Exception:
    if failure.code == DEFECT_CODE:
        return RuntimeError(failure.detail)
    if failure.code not in ERRORS_BY_CODE or {"self", "detail"} & failure.facts.keys():
        raise ValueError(f"there is no error {failure.code!r} with such facts")
    return ERRORS_BY_CODE[failure.code](failure.detail, **failure.facts)


def _encode_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _Array("<f4", value.shape, value.astype("<f4", copy=False).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} is not sent between processes")


def _decode_array(expected: Any, value: Any) -> np.ndarray:
    """Return a read-only array over the received bytes; every other custom type is refused."""
    if getattr(expected, "__origin__", expected) is not np.ndarray:
        raise NotImplementedError(f"{expected} is not received from other processes")
    array = msgspec.convert(value, _Array)
    return np.frombuffer(array.data, array.dtype).reshape(array.shape)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_numpy)
_HELLO_DECODER = msgspec.msgpack.Decoder(Hello)
_LOADED_DECODER = msgspec.msgpack.Decoder(NetworksLoaded | Failure)
_BATCH_DECODER = msgspec.msgpack.Decoder(PhotoBatch)
_ANSWER_DECODER = msgspec.msgpack.Decoder(BatchAnswer, dec_hook=_decode_array)
