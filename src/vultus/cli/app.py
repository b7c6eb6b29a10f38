"""`vultus`: serve, register, recognize, import, calibrate, search-by, evaluate, models and further groups."""

from __future__ import annotations

from typing import Annotated

import typer

from vultus import __version__
from vultus.cli import (
    calibrating,
    database,
    doctor,
    evaluate,
    importing,
    keys,
    models,
    packs,
    people,
    searching,
    serving,
    transition,
    vectors,
)

app = typer.Typer(
    name="vultus",
    help="Register people with consent, recognise them, forget them completely.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serving.serve)
app.command()(people.register)
app.command()(people.recognize)
app.command("import")(importing.import_folder)
app.command("import-vectors")(vectors.import_vectors)
app.command()(calibrating.calibrate)
app.command()(searching.search_by)
app.add_typer(evaluate.app, name="evaluate", help="Measure accuracy on a data set of yours.")
evaluate.app.command()(packs.packs)
app.add_typer(models.app, name="models", help="Pretrained networks: licences, weights, and which are used.")
app.add_typer(transition.app, name="transition", help="Change the network of a living gallery.")
app.add_typer(database.app, name="db", help="The database and its schema.")
app.add_typer(keys.app, name="keys", help="API keys.")
app.command()(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vultus {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None: ...


def main() -> None:
    """Run the command line."""
    app()
