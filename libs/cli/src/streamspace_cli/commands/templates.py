"""What can be launched."""

from typing import Annotated

import typer

from streamspace_cli import complete
from streamspace_cli.output import Column, Format, at
from streamspace_cli.run import Run, command, group

app = group("Templates: what can be launched.")

_COLUMNS = (
    Column("Id", "id"),
    Column("Name", "displayName"),
    Column("Categories", "categories"),
    Column("Runtimes", lambda item: [r for r in item.get("runtimes", ()) if r != "null"]),
    Column("Unusable", "unusable"),
)
_DETAILS = (
    Column("Id", "id"),
    Column("Name", "displayName"),
    Column("Description", "description"),
    Column("Categories", "categories"),
    Column("Tags", "tags"),
    Column("Runtimes", "runtimes"),
    Column("CPU", "defaultResources.cpu"),
    Column("Memory", "defaultResources.memory"),
    Column("Catalog", "catalogId"),
    Column("File", "path"),
    Column("Unusable", "unusable"),
    at("Updated", "updatedAt"),
)


@command(app, "list")
def list_(
    run: Run,
    search: Annotated[str | None, typer.Argument(help="Words in name or description.")] = None,
    category: Annotated[str | None, typer.Option(help="Only of this category.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    catalog: Annotated[
        str | None,
        typer.Option(help="Only of this catalog.", autocompletion=complete.catalogs),
    ] = None,
) -> None:
    """List templates."""
    with run.api() as api:
        found = api.pages(
            "/templates", search=search, category=category, tag=tag, catalog_id=catalog
        )
        run.printer.many(found, _COLUMNS)


@command(app)
def show(
    run: Run,
    template: Annotated[str, typer.Argument(help="Its id.", autocompletion=complete.templates)],
) -> None:
    """Show a template; as JSON or YAML, with its manifest."""
    with run.api() as api:
        found = api.get(f"/templates/{template}")
    run.printer.one(found, _DETAILS)
    if run.printer.format is Format.TABLE:
        run.note("Its manifest is shown with -o yaml.")
