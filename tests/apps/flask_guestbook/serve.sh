#!/bin/sh
# Starts the guestbook under gunicorn on 127.0.0.1:8000; its first start creates its environment.
# $GUESTBOOK_DB names another database, arguments go to gunicorn.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv=$("$here/../venv.sh")
export GUESTBOOK_DB="${GUESTBOOK_DB:-$here/data/db/db.sqlite3}"
mkdir -p "$(dirname -- "$GUESTBOOK_DB")"
# exec, so that signals to this process are signals to gunicorn.
exec "$venv/bin/gunicorn" --config "$here/gunicorn.conf.py" --bind 127.0.0.1:8000 \
    --worker-class gthread --workers 2 --threads 4 "$@"
