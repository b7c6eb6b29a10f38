"""`vultus search-by`: how a collection is searched; along a graph only after its loss was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli.common import Json, load_settings, out, print_json, print_table, run
from vultus.domain import Actor, Collection, Graph, SearchMode
from vultus.evaluation.page import percent
from vultus.main import open_services
from vultus.schemas.galleries import CollectionOut
from vultus.services.search.hnsw import ACCEPTED_LOSS, DEFAULT_SAMPLE, MOST_SAMPLE, GraphWanted, OwnGraph

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
    ] = ACCEPTED_LOSS,
    sample: Annotated[
        int, typer.Option(min=100, max=MOST_SAMPLE, help="Most persons searched for to measure it.")
    ] = DEFAULT_SAMPLE,
    as_json: Json = False,
) -> None:
    """Set how a collection is searched; hnsw builds a graph, measures what it loses and may be refused."""
    wanted = GraphWanted(m, ef_construction, ef_search, accept_loss, sample)

    async def work(settings: Settings) -> Collection:
        async with open_services(settings) as services:
            if mode is not SearchMode.HNSW:
                return await services.collections.change(collection, search=mode, actor=Actor("cli"))
            job = OwnGraph(services.database, services.pipelines, services.collections)
            return await job.turn_on(collection, wanted, actor=Actor("cli"))

    done = run(work(load_settings()), as_json=as_json)
    if as_json:
        print_json(CollectionOut.of(done).model_dump(mode="json"))
        return
    if done.graph:
        _show(done.name, done.graph)
    out.print(f"Collection '{done.name}' is searched by {done.search} from now on.", soft_wrap=True)


def _show(name: str, graph: Graph) -> None:
    loss = graph.loss
    row = (
        graph.m,
        graph.ef_construction,
        graph.ef_search,
        f"{loss.probes:,} {loss.of}",
        loss.lost,
        f"{percent(loss.share)} ({percent(loss.low)} to {percent(loss.high)})",
        f"{loss.exact_ms:.1f}",
        f"{loss.graph_ms:.1f}",
    )
    print_table(f"{name}: an HNSW graph against an exact search", COLUMNS, [row])
    if loss.of == "neighbours":
        out.print("No mate could be measured: no person has two faces that find each other.", soft_wrap=True)
    out.print(
        "An erased face is not found, but its vector stays in the graph until PostgreSQL's autovacuum has been by.",
        soft_wrap=True,
    )
