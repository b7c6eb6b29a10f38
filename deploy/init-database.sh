#!/bin/sh
# Run once by the image of PostgreSQL, on an empty volume: the service's role owns its database and is no superuser.
set -eu
psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
  --set=password="$(cat "${PASSWORD_FILE:-/run/secrets/database_password}")" <<'SQL'
CREATE ROLE vultus LOGIN PASSWORD :'password';
CREATE DATABASE vultus OWNER vultus;
\connect vultus
CREATE EXTENSION vector;
SQL
