"""The bundled PostgreSQL: its cluster, server, account and tuning."""
