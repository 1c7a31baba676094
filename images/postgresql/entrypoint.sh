#!/bin/sh
# Creates the cluster on the first start, then becomes the server. Arguments go to postgres.
#
#   PGDATA                  data folder, below the volume's root (which may hold lost+found)    /data/pgdata
#   POSTGRES_USER           owner of the database, superuser                                    fanfold
#   POSTGRES_DB             database to create                                                  fanfold
#   POSTGRES_PASSWORD_FILE  file with the owner's password, read on the first start             required
set -eu

user=${POSTGRES_USER:-fanfold}
database=${POSTGRES_DB:-fanfold}

fail() { echo "postgresql: $*" >&2; exit 1; }

# Only [a-z0-9_]: the name goes into SQL.
case "$database$user" in *[!a-z0-9_]*) fail "POSTGRES_USER and POSTGRES_DB may hold a-z, 0-9 and _ only" ;; esac

create_cluster() {
    password_file=${POSTGRES_PASSWORD_FILE:-}
    [ -n "$password_file" ] || fail "set POSTGRES_PASSWORD_FILE to a file with the password of $user"
    [ -s "$password_file" ] || fail "the password file $password_file is missing or empty"
    # Built beside and renamed: a start killed half way leaves nothing that looks like a cluster.
    rm -rf "$PGDATA.new"
    initdb --pgdata="$PGDATA.new" --username="$user" --pwfile="$password_file" --auth=scram-sha-256 \
        --encoding=UTF8 --locale-provider=builtin --locale=C.UTF-8 --data-checksums > /tmp/initdb.log 2>&1 \
        || { cat /tmp/initdb.log >&2; fail "initdb failed; is $(dirname "$PGDATA") writable for uid $(id -u)?"; }
    if [ "$database" != postgres ]; then
        echo "CREATE DATABASE \"$database\" OWNER \"$user\"" \
            | postgres --single -D "$PGDATA.new" -c log_min_messages=fatal postgres > /dev/null
    fi
    [ ! -d "$PGDATA" ] || rmdir "$PGDATA" || fail "$PGDATA is not empty and holds no cluster: move it away"
    mv "$PGDATA.new" "$PGDATA"
    echo "postgresql: created cluster in $PGDATA with database $database" >&2
}

[ -s "$PGDATA/PG_VERSION" ] || create_cluster

found=$(cat "$PGDATA/PG_VERSION")
[ "$found" = 17 ] || fail "$PGDATA was made by PostgreSQL $found; this image is 17: dump it there and restore it here"
# A volume mount with fsGroup opens the folder to the group, which the server refuses.
chmod 0700 "$PGDATA"

exec postgres -D "$PGDATA" -c config_file=/etc/fanfold/postgresql.conf "$@"
