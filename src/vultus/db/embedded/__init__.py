"""The PostgreSQL that Vultus brings along: its cluster, server, account and tuning."""
