"""The sections of the configuration: frozen, the unit in the name, impossible combinations rejected at start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator, model_validator

from vultus.utils.configuration import (
    normalise_values,
    require_intended,
    require_network,
    require_origin,
    require_source_entry,
    split_words,
)

Runtime = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda", "coreml"]

Network = Annotated[str, AfterValidator(require_network)]
Origin = Annotated[str, AfterValidator(require_origin)]
SourceEntry = Annotated[str, AfterValidator(require_source_entry)]

QUEUE_PER_WORKER, MIN_QUEUE = 7, 14
"""Photos that may wait in a burst, per worker and at least: sixteen clients of two workers are served in turn."""


class Section(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A group of settings."""

    @model_validator(mode="before")
    @classmethod
    def normalise_values(cls, values: Any) -> Any:
        """Expand `~` in paths, and take words in any case."""
        return normalise_values(cls, values)

    @field_validator("*", mode="before")
    @classmethod
    def validate_intended(cls, value: object, info: ValidationInfo) -> object:
        """Refuse an empty text and a truth value for a number."""
        return require_intended(cls.model_fields[info.field_name or ""], value)


class ServerSettings(Section):
    """Where the API listens and what it accepts."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 lets the system choose.")
    max_body_bytes: int = Field(64 * 2**20, ge=1024, description="Longest request body; reading stops there with 413.")
    max_json_bytes: int = Field(256 * 2**10, ge=1024, description="Longest JSON body.")
    max_bodies_bytes: int = Field(
        512 * 2**20, ge=1024, description="Bodies held in memory, all requests together, before new ones get 503."
    )
    max_requests: int = Field(512, ge=1, description="Requests in flight before new ones get 503.")
    max_connections: int = Field(
        4096, ge=64, description="Open connections; fewer where the limit of open files does not allow as many."
    )
    max_connections_per_address: int = Field(
        1024, ge=8, description="Open connections of one address, of IPv6 of one /64 network; not of trusted proxies."
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$",
        description="Path under which a proxy publishes the API, such as /faces.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="Addresses and networks of proxies whose X-Forwarded-* headers count, separated by commas."
    )
    cors_origins: tuple[Origin, ...] = Field(
        (), description="Origins whose pages may call the API from a browser, separated by commas; * for all."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate and those that vouch for it; with it the API speaks TLS alone."
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key, without a password.")
    metrics: Literal["separate", "shared", "off"] = Field(
        "separate", description="Where `GET /metrics` answers, without a key: on a port of its own, the API's, nowhere."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of `/metrics`, on the same address; unset: the one after the API's."
    )

    @field_validator("trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def parse_list(cls, value: object) -> object:
        """Split the comma-separated text of an environment variable."""
        return split_words(value)

    @model_validator(mode="after")
    def validate_tls(self) -> Self:
        """Validate that certificate and key come together."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("server.tls_certificate and server.tls_key belong together: set both, or neither")
        return self

    @property
    def metrics_listener_port(self) -> int:
        """Port of `/metrics` where it has its own; after one that the system chooses comes another such."""
        return self.metrics_port if self.metrics_port is not None else (self.port + 1) % 65536 if self.port else 0

    @model_validator(mode="after")
    def validate_ports(self) -> Self:
        """Validate that the two ports differ: the system would let both be bound, and only one be listened on."""
        if self.metrics == "separate" and self.port and self.metrics_port == self.port:
            raise ValueError("server.metrics_port must differ from server.port; set server.metrics to shared for one")
        return self

    @model_validator(mode="after")
    def validate_body_budget(self) -> Self:
        """Validate that the budget admits the largest body."""
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError("server.max_bodies_bytes must be at least server.max_body_bytes")
        return self


class PhotoSettings(Section):
    """Limits on photos, checked before a pixel is decoded."""

    max_bytes: int = Field(25 * 2**20, ge=1, description="Largest photo file.")
    max_pixels: int = Field(60_000_000, ge=1, description="Most pixels of one photo (width times height).")
    max_photos: int = Field(20, ge=1, description="Photos in one registration.")
    max_faces: int = Field(
        100, ge=1, description="Faces of a photo that are analysed, the largest; the answer says how many are left out."
    )
    decode_timeout_s: float = Field(
        2.0,
        gt=0,
        description="Processor time for decoding a photo; beyond, its worker is replaced and the photo refused.",
    )
    memory_budget: int = Field(
        512 * 2**20,
        ge=2**20,
        description="Memory for decoding, bytes, all photos together; a photo that needs more is refused.",
    )


class InferenceSettings(Section):
    """How the networks run."""

    pack: str | None = Field(None, description="Networks of new collections: a pack's name, or DETECTOR+EMBEDDER.")
    extra_packs: tuple[str, ...] = Field(
        (), description="Further packs to load, separated by commas: those that other collections use or migrate to."
    )
    quality: str | None = Field(None, description="Network that scores the quality of a face: `ediffiqa-tiny`.")
    liveness: str | None = Field(
        None, description="Network that detects presentation attacks: `minifasnet`, `facenox`, or the mean of several."
    )
    workers: int = Field(
        default_factory=lambda: max(1, os.cpu_count() or 1),
        ge=1,
        le=1024,
        description="Processes that analyse photos, one thread each; threads in commands.",
    )
    max_queue: int = Field(
        default_factory=lambda given: max(MIN_QUEUE, QUEUE_PER_WORKER * given.get("workers", 1)),
        ge=1,
        description="Photos that wait in a burst before new ones get 503; fewer while more come than can be served.",
    )
    max_batch: int = Field(4, ge=1, le=64, description="Most queued photos that a worker takes together.")
    photo_timeout_s: float = Field(
        60.0, gt=0, description="A worker process that takes longer for a photo is replaced, the photo refused."
    )
    min_face_px: int | None = Field(
        None,
        ge=20,
        description="Smallest face looked for, in pixels of a photo scaled to at most max_side_px; unset: 40 with "
        "MTCNN, 24 with other detectors.",
    )
    max_side_px: int = Field(1600, ge=320, description="Longer side of the image the detector sees.")
    runtime: Literal["auto"] | Runtime = Field(
        "auto", description="What runs the networks; `auto` takes OpenVINO where it is installed and bf16 gains."
    )
    precision: Literal["auto"] | Precision = Field(
        "auto", description="Of embedding networks; `auto` takes bf16 where the processor and OpenVINO have it."
    )
    device: Device = Field(
        "cpu", description="Where ONNX Runtime runs networks for images of one size; never the CPU instead."
    )

    @field_validator("extra_packs", mode="before")
    @classmethod
    def parse_extra_packs(cls, value: object) -> object:
        """Split the comma-separated text of an environment variable."""
        return split_words(value)

    @model_validator(mode="after")
    def validate_runtime(self) -> Self:
        """Validate that only OpenVINO computes in bf16, and only ONNX Runtime runs on other devices than the CPU."""
        if self.precision == "bf16" and self.runtime == "onnxruntime":
            raise ValueError("inference.precision bf16 needs OpenVINO: set inference.runtime to openvino or auto")
        if self.device != "cpu" and (self.runtime == "openvino" or self.precision == "bf16"):
            raise ValueError(
                f"inference.device {self.device} is ONNX Runtime's, in fp32: inference.runtime openvino and "
                "inference.precision bf16 are for the device cpu"
            )
        return self


class ModelSettings(Section):
    """Pretrained networks beyond the built-in ones."""

    dir: Path | None = Field(None, description="Where downloaded and imported weights lie.")
    mirror: str | None = Field(None, description="Base URL that serves files instead of their publishers.")
    usage: Literal["any", "commercial"] = Field(
        "any", description="`commercial` refuses networks whose licence does not allow commercial use without doubt."
    )
    timeout_s: float = Field(30.0, gt=0, description="Read timeout of downloads.")
    offline: bool = Field(
        default=False, description="Never fetch the recommended pack; `vultus models pull` and `import` still do."
    )


class IndexSettings(Section):
    """How large collections are searched."""

    exact_limit: int = Field(
        10_000, ge=1_000, description="Faces up to which a collection is searched in SQL; beyond, by candidate index."
    )
    risk: float = Field(
        1e-5, gt=0, le=1e-2, description="Probability that a face at the deciding cosine is not a candidate."
    )
    candidates: int = Field(50, ge=20, description="Faces compared for a probe before it is known how many it takes.")
    interval_s: float = Field(1.0, gt=0, description="Pause between checks for new and erased faces.")
    watch_share: float = Field(0.001, ge=0, le=1, description="Share of searches by index that are repeated exactly.")
    watch_limit: float = Field(
        0.001, ge=0, le=1, description="Share of persons lost, of those checked, beyond which SQL searches instead."
    )


class JobSettings(Section):
    """Work done in the background by the server."""

    sweep_interval_s: float = Field(60.0, gt=0, description="Pause between sweeps that erase what has expired.")
    carry_interval_s: float = Field(5.0, gt=0, description="Pause between checks for faces to backfill.")
    idempotency_hours: float = Field(24.0, gt=0, description="How long an Idempotency-Key is remembered.")
    outbox_hours: float = Field(
        168.0, gt=0, description="How long events and numbers of erased templates are kept for those that follow them."
    )
    sighting_hours: float = Field(
        168.0, gt=0, description="How long sightings are kept, where that is shorter: who was seen where, and when."
    )
    decision_days: float = Field(
        183.0, gt=0, description="How long decision records are kept, where a collection's policy asks for them."
    )
    audit_days: float | None = Field(
        None,
        ge=30,
        description="How long entries of the audit record are kept, at least 30 days; indefinitely unless set.",
    )
    scrub_hour: int = Field(
        3,
        ge=-1,
        le=23,
        description="Hour of the day, UTC, in which the files are rewritten that hold bytes of what was erased, if "
        "anything was; -1: only by `vultus scrub`.",
    )


class EventSettings(Section):
    """How events reach those that follow what happens."""

    max_streams: int = Field(200, ge=1, description="Open event streams of a server before new ones get 503.")
    max_streams_per_key: int = Field(32, ge=1, description="Open event streams of a key on a server.")


class WebhookSettings(Section):
    """How events are delivered to webhooks."""

    allowed_networks: tuple[Network, ...] = Field(
        (),
        description="Addresses and networks that deliveries may go to though they are not public, separated by commas; "
        "there also in plain HTTP.",
    )
    timeout_s: float = Field(10.0, gt=0, le=60, description="Longest time for an attempt, from resolving on.")
    first_retry_s: float = Field(
        5.0, gt=0, le=3600, description="Wait after the first failed attempt; three times as long after each further."
    )
    disable_after_hours: float = Field(
        120.0, gt=0, description="A webhook that has failed for so long without a success is disabled."
    )

    @field_validator("allowed_networks", mode="before")
    @classmethod
    def parse_list(cls, value: object) -> object:
        """Split the comma-separated text of an environment variable."""
        return split_words(value)


class LimitSettings(Section):
    """What a key may do within a time, on all servers together."""

    searches_per_hour: int = Field(
        100_000, ge=1, description="Faces that a key without a limit of its own may search for within an hour."
    )
    verification_failures: int = Field(
        5,
        ge=1,
        description="Failed verifications of a person with a key before a wait of 30 s, doubled by every further one "
        "up to an hour; one is forgotten every hour.",
    )


class SourceSettings(Section):
    """Cameras and videos that are watched without a browser."""

    allowed: tuple[SourceEntry, ...] = Field(
        (),
        description="What sources may be opened, separated by commas: addresses, networks, hosts (`*.example.org` for "
        "all below), and absolute paths of folders, files or cameras. Empty: none.",
    )
    fps: float = Field(
        5.0, gt=0, le=60, description="Frames a second that are processed while somebody is there, by source."
    )
    idle_fps: float = Field(2.0, gt=0, le=60, description="The same while nobody is there.")
    max_side_px: int = Field(
        1280, ge=320, le=4096, description="Longer side of the frames that are analysed; larger ones are scaled down."
    )
    per_process: int = Field(8, ge=1, le=16, description="Sources that one process decodes.")
    max_watched: int = Field(
        64, ge=1, description="Sources that this server watches; further ones wait until it or another has room."
    )
    open_timeout_s: float = Field(10.0, gt=0, le=120, description="Wait for a source to answer.")
    read_timeout_s: float = Field(10.0, gt=0, le=120, description="Wait for its next data before it counts as lost.")
    hardware: Literal["cuda", "qsv", "drm", "amf"] | None = Field(
        None, description="Device that decodes, as FFmpeg names it; the processor decodes what it cannot."
    )

    @field_validator("allowed", mode="before")
    @classmethod
    def parse_allowed(cls, value: object) -> object:
        """Split the comma-separated text of an environment variable."""
        return split_words(value)


class LogSettings(Section):
    """What is written to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severity written.")
    format: Literal["text", "json"] = Field("text", description="`json` writes one object per line.")


class LiveSettings(Section):
    """Live recognition: what sessions may take."""

    max_sessions: int = Field(256, ge=1, description="Open sessions of this server, before new ones are refused.")
    max_sessions_per_key: int = Field(32, ge=1, description="Open sessions of a key on this server.")
    max_frame_bytes: int = Field(4 * 2**20, ge=1024, le=2**25, description="Longest frame.")
    max_frame_pixels: int = Field(
        4096 * 2160, ge=1024, description="Most pixels of one frame (width times height); sessions share the workers."
    )
    max_frames_per_second: float = Field(
        30.0, gt=0, le=240, description="Most frames that a session may send; those beyond are dropped and counted."
    )
    max_session_s: float = Field(28_800.0, gt=0, description="Longest session; a ticket may ask for a shorter one.")
    idle_s: float = Field(30.0, gt=0, description="A session without a frame is closed after so long.")
    resume_s: float = Field(10.0, ge=0, description="How long a session whose connection broke keeps its tracks.")
