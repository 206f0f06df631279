set -eu
export ARA_BASE_DIR="$PWD/data" ARA_DATABASE_NAME="$PWD/data/db/ara.sqlite" ARA_SECRET_KEY=the-same-everywhere
ara-manage migrate --noinput
exec gunicorn --bind 127.0.0.1:8000 --workers 2 ara.server.wsgi
