"""Alembic's environment and the revisions, inside the package so that an installed Vultus can migrate."""
