"""Calibration of a collection on its own faces: request and response."""

from __future__ import annotations

from dataclasses import asdict
from typing import Self
from uuid import UUID

from pydantic import Field, model_validator

from vultus.schemas.base import ApiModel, CollectionId, Cosine, Name, Number, PersonId, Rate, SpaceId, WholeNumber
from vultus.schemas.galleries import PolicyWire
from vultus.services.calibration.calibration import CalibrationState


class CalibrationIn(ApiModel):
    """What to measure; an empty object returns a report and changes nothing."""

    target_fmr: Number | None = Field(None, gt=0, lt=1, description="Propose a threshold for this false match rate.")
    target_fpir: Number | None = Field(
        None, gt=0, lt=1, description="Or for this false positive identification rate; with neither, the policy's aim."
    )
    apply: bool = Field(False, description="Store the calibration, and the target, if one is given, as the policy's.")
    sample: WholeNumber = Field(
        5_000, ge=100, le=20_000, description="Most faces compared; persons of a larger gallery are drawn at random."
    )
    seed: WholeNumber = Field(0, ge=0, le=2**32 - 1, description="Of the draw.")
    group_by: Name | None = Field(None, description="Metadata key to report error rates by.", examples=["site"])

    @model_validator(mode="after")
    def validate_single_target(self) -> Self:
        """Reject two targets: they would contradict each other."""
        if self.target_fmr is not None and self.target_fpir is not None:
            raise ValueError("give at most one of target_fmr and target_fpir")
        return self


class RateOut(ApiModel):
    """A share of trials with its two-sided 95 % interval."""

    value: Rate = Field(examples=[0.0001])
    low: Rate = Field(examples=[8.1e-05])
    high: Rate = Field(examples=[0.000124])
    hits: int = Field(examples=[1249])
    trials: int = Field(examples=[12_490_000])
    interval: str = Field(description="Method of the interval.", examples=["jackknife over persons"])


class OwnPointOut(ApiModel):
    """What a threshold means for the gallery."""

    threshold: Cosine = Field(examples=[0.9451])
    stated_fmr: Rate = Field(description="False match rate the new calibration gives the threshold.", examples=[0.0001])
    origin: str = Field(description="`own`, or `pack` where the own faces cannot resolve the rate.", examples=["own"])
    expected_errors: Rate = Field(
        description="False matches that rate means among the comparisons made.", examples=[1249]
    )
    resolved: bool = Field(description="Whether they are at least 10.", examples=[True])
    fmr: RateOut = Field(description="False match rate among the enrolled faces.")
    fnmr: RateOut | None = Field(
        description="False non-match rate among them; null where nobody has two faces.",
        examples=[RateOut.build_example(value=0.152, low=0.131, high=0.176, hits=1140, trials=7500)],
    )
    expected_fpir: Rate = Field(description="Of a search of the whole gallery: 1 − (1 − FMR)^N.", examples=[0.393])
    measured_fpir: RateOut = Field(
        description="Share of the faces that reach the threshold with another person.",
        examples=[RateOut.build_example(value=0.311, low=0.29, high=0.333, hits=1555, trials=5000)],
    )


_PROPOSED = OwnPointOut.build_example(
    threshold=0.9634,
    stated_fmr=2.01e-06,
    expected_errors=25.1,
    fmr=RateOut.build_example(value=2e-06, low=1.1e-06, high=3.7e-06, hits=25),
    fnmr=RateOut.build_example(value=0.681, low=0.65, high=0.711, hits=5108, trials=7500),
    expected_fpir=0.01,
    measured_fpir=RateOut.build_example(value=0.0086, low=0.005, high=0.015, hits=43, trials=5000),
)


class SuspiciousOut(ApiModel):
    """Two persons who may be one, enrolled twice."""

    first_person_id: PersonId
    second_person_id: UUID = Field(examples=["019f0c2e-6b00-7cc2-b3c4-d5e6f7081920"])
    similarity: Cosine | None = Field(
        description="Of their most similar faces; null without the permission `scores`.", examples=[0.9921]
    )


class CurvePointOut(ApiModel):
    """What a threshold means."""

    threshold: Cosine = Field(examples=[0.9451])
    fmr: Rate | None = Field(
        description="False match rate measured among the collection's own faces; null where they were not compared.",
        examples=[0.0001],
    )
    fnmr: Rate | None = Field(
        description="False non-match rate measured among them, or else published for the network; null where unknown.",
        examples=[0.152],
    )
    stated_fmr: Rate = Field(description="False match rate of any two people by the calibration.", examples=[0.0001])
    worst_group_fmr: Rate | None = Field(
        description="That of the group with the highest rate; null if not measured.", examples=[0.0036]
    )
    fpir: Rate = Field(
        description="Share of strangers that a search of the whole gallery names, by the calibration.", examples=[0.393]
    )


class ScoreBinsOut(ApiModel):
    """How similar the compared faces are, in 100 bins of equal width."""

    low: Cosine = Field(description="Where the first bin begins.", examples=[0.72])
    width: float = Field(description="Of a bin, as cosine.", examples=[0.0028])
    genuine: list[int] = Field(description="Comparisons of one person by bin.", examples=[[0, 2, 7]])
    impostor: list[int] = Field(description="Comparisons of different persons by bin.", examples=[[12, 5, 0]])


class CalibrationStateOut(ApiModel):
    """What decides in a collection now, and what other thresholds would mean."""

    collection_id: CollectionId
    contract_id: SpaceId
    pack: str = Field(examples=["builtin"])
    own: bool = Field(
        description="Whether the collection has a calibration of its own; else its pack's holds.", examples=[False]
    )
    source: str = Field(description="What the figures were measured on.", examples=["LFW, all impostor pairs"])
    policy: PolicyWire
    gallery_size: int = Field(description="Templates a search compares.", examples=[5000])
    threshold: Cosine = Field(description="Of a search.", examples=[0.9451])
    beyond_measurement: bool = Field(
        description="The policy asks for a rate stricter than the calibration's data resolve.", examples=[False]
    )
    curve: list[CurvePointOut] = Field(description="By threshold, ascending; the one in effect is among them.")

    @classmethod
    def from_domain(cls, state: CalibrationState) -> Self:
        """Build the response from a service result."""
        return cls(
            collection_id=state.collection.id,
            contract_id=state.space.id,
            pack=state.space.pack,
            own=state.space.id in state.collection.calibrations,
            source=state.calibration.source,
            policy=PolicyWire(**asdict(state.collection.policy)),
            gallery_size=state.gallery_size,
            threshold=state.current.cosine,
            beyond_measurement=state.current.beyond_measurement,
            curve=[CurvePointOut.from_attributes(point) for point in state.curve],
        )


class GroupRatesOut(ApiModel):
    """A group's error rates at one threshold."""

    threshold: Cosine
    fmr: RateOut | None = Field(description="Among the group's persons.")
    fmr_across: RateOut | None = Field(description="With persons of other groups.")
    fnmr: RateOut | None
    fmr_resolved: bool = Field(description="Whether the group is large enough to be compared.")
    fnmr_resolved: bool


class GroupOut(ApiModel):
    """Persons with one value of the metadata key."""

    name: str
    persons: int
    faces: int
    rates: list[GroupRatesOut]


class DifferentialOut(ApiModel):
    """The worst group against the best one, of those that are resolved."""

    threshold: Cosine
    fmr_ratio: Rate | None
    fmr_worst: str | None
    fmr_best: str | None
    fnmr_ratio: Rate | None
    fnmr_worst: str | None
    fnmr_best: str | None


class GroupsOut(ApiModel):
    """Error rates by group."""

    column: str
    groups: list[GroupOut]
    differentials: list[DifferentialOut]
    without_group: int = Field(description="Persons without a value.")


class MeasuredOut(ApiModel):
    """Error rates among the gallery's own comparisons."""

    genuine: int = Field(description="Comparisons of one person.", examples=[7500])
    genuine_persons: int = Field(description="Persons with several faces.", examples=[1200])
    impostor: int = Field(description="Comparisons of different persons.", examples=[12_490_000])
    points: list[OwnPointOut] = Field(
        description="The new calibration, strictest rate last.", examples=[[OwnPointOut.build_example(), _PROPOSED]]
    )
    current: OwnPointOut = Field(description="The threshold that decided before.")
    proposed: OwnPointOut = Field(description="The threshold for the target.", examples=[_PROPOSED])
    beyond_measurement: bool = Field(
        description="The target is stricter than even the pack's data resolve.", examples=[False]
    )
    bins: ScoreBinsOut
    curve: list[CurvePointOut] = Field(
        description="At the edges of the bins and at the two thresholds, ascending; by the new calibration."
    )


class CalibrationOut(ApiModel):
    """A collection measured on its own faces."""

    collection_id: CollectionId
    contract_id: SpaceId
    applied: bool = Field(description="Whether the calibration was stored.", examples=[False])
    policy: PolicyWire = Field(description="As it is now.")
    gallery_size: int = Field(description="Templates a search compares.", examples=[5000])
    persons: int = Field(description="Persons compared.", examples=[2500])
    faces: int = Field(description="Their faces.", examples=[5000])
    sampled: bool = Field(description="Whether they were drawn from more.", examples=[False])
    seed: int = Field(examples=[0])
    measured: MeasuredOut
    closest: SuspiciousOut = Field(description="The two most similar persons, however similar they are.")
    suspicious: list[SuspiciousOut] = Field(description="As alike as the pack's strictest threshold; best first.")
    groups: GroupsOut | None
    source: str = Field(
        description="What came from where.",
        examples=[
            "own gallery on 2026-11-24, 5,000 faces of 2,500 persons (all under live consent); thresholds down to "
            "FMR 1e-06 from there; probability from there. Pack: LFW, all impostor pairs"
        ],
    )
