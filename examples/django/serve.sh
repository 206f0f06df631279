#!/bin/sh
# What Litepilot starts: gunicorn, and beside it the migrations of this release, once in the whole
# cluster, as soon as there is a primary. Beside and not before, so that a replica serves reads before the
# primary has them.
set -eu
release=$(cat */migrations/*.py | sha256sum | cut -c -12)
litepilot on-primary --once "migrate-$release" --wait 10m -- python manage.py migrate --noinput &
exec gunicorn --bind 127.0.0.1:8000 --workers 2 config.wsgi
