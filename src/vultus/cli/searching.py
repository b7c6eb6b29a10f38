"""`vultus search-by`: how a collection is searched; through an HNSW graph only after its recall loss was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli.common import COMMAND_LINE, JsonOption, load_settings, out, print_json, print_table, run_command
from vultus.cli.opening import open_services
from vultus.domain import Collection, HnswGraph, SearchMode
from vultus.evaluation.page import format_percent
from vultus.schemas.galleries import CollectionOut
from vultus.services.search.hnsw import DEFAULT_ACCEPTED_LOSS, DEFAULT_SAMPLE, MAX_SAMPLE, GraphRequest, HnswBuilder

if TYPE_CHECKING:
    from vultus.settings import Settings

COLUMNS = ("m", "ef construction", "ef search", "searched for", "lost", "share lost", "exact ms", "HNSW ms")


def search_by(
    collection: Annotated[str, typer.Argument(help="Id or name.")],
    mode: Annotated[SearchMode, typer.Argument(help="auto and exact drop the graph that hnsw builds.")],
    m: Annotated[int, typer.Option(min=2, max=100, help="Most neighbours of a face in the graph.")] = 16,
    ef_construction: Annotated[int, typer.Option(min=4, max=1000, help="Candidates for them.")] = 64,
    ef_search: Annotated[int, typer.Option(min=1, max=1000, help="Candidates of a search.")] = 100,
    accept_loss: Annotated[
        float, typer.Option(min=0, max=1, help="Share of mates that may be lost; beyond it nothing is changed.")
    ] = DEFAULT_ACCEPTED_LOSS,
    sample: Annotated[
        int, typer.Option(min=100, max=MAX_SAMPLE, help="Most persons searched for to measure it.")
    ] = DEFAULT_SAMPLE,
    as_json: JsonOption = False,
) -> None:
    """Set how a collection is searched.

    `hnsw` builds a graph, measures what it loses and may be refused.
    """
    request = GraphRequest(m, ef_construction, ef_search, accept_loss, sample)

    async def set_search_mode(settings: Settings) -> Collection:
        async with open_services(settings) as services:
            if mode is not SearchMode.HNSW:
                return await services.collections.update_collection(COMMAND_LINE, collection, search=mode)
            job = HnswBuilder(services.database, services.spaces, services.collections)
            return await job.enable(COMMAND_LINE, collection, request)

    done = run_command(set_search_mode(load_settings()))
    if as_json:
        print_json(CollectionOut.from_domain(done).model_dump(mode="json"))
        return
    if done.graph:
        _show_graph_loss(done.name, done.graph)
    out.print(f"Collection '{done.name}' is searched by {done.search} from now on.", soft_wrap=True)


def _show_graph_loss(name: str, graph: HnswGraph) -> None:
    loss = graph.loss
    row = (
        graph.m,
        graph.ef_construction,
        graph.ef_search,
        f"{loss.probes:,} {loss.of}",
        loss.lost,
        f"{format_percent(loss.share)} ({format_percent(loss.low)} to {format_percent(loss.high)})",
        f"{loss.exact_ms:.1f}",
        f"{loss.graph_ms:.1f}",
    )
    print_table(f"{name}: an HNSW graph against an exact search", COLUMNS, [row])
    if loss.of == "neighbours":
        out.print("No mate could be measured: no person has two faces that find each other.", soft_wrap=True)
    out.print(
        "An erased face is not found, but its vector stays in the graph until PostgreSQL's autovacuum has run.",
        soft_wrap=True,
    )
