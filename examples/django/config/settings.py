"""An ordinary Django project on SQLite. What Litepilot asks of it is in the lines with comments."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# The same on every node, or sessions would end with each change of node.
SECRET_KEY = os.environ.get("SECRET_KEY", "not a secret: this is an example")
DEBUG = False
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost 127.0.0.1").split()

# Litepilot sets these headers anew, so a client cannot make them up.
USE_X_FORWARDED_HOST = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

INSTALLED_APPS = [
    "litepilot.django",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "notes",
]

MIDDLEWARE = [
    # First: what writes on a replica after all is sent again to the primary.
    "litepilot.django.middleware.ReplayReadonlyWrites",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

# The database that LITEFS names. Transactions begin IMMEDIATE on the primary, the journal is a WAL.
DATABASES = {"default": {"ENGINE": "litepilot.django.backend", "NAME": "default"}}

# What `manage.py litepilot config` makes a litepilot.yml of. One node. For several, name them as
# RAFT_PEERS: see Litepilot's docs/applications/django.md.
LITEFS = {
    "MOUNT_PATH": BASE_DIR / "data/db",
    "DATABASE_NAME": "notes.sqlite3",
    "PROXY": {"ADDR": "0.0.0.0:8080", "TARGET": "127.0.0.1:8000"},
    # The other keys of litepilot.yml.
    "CONFIG": {
        "node": os.environ.get("LITEPILOT_NODE", "node-1"),
        "data_dir": BASE_DIR / "data/litepilot",
        "proxy": {"rules": ["static", "django"]},
        "litefs": {"engine": "embedded"},  # for production leave it out: LiteFS
        "app": {
            "command": ["gunicorn", "--bind", "127.0.0.1:8000", "--workers", "2", "config.wsgi"],
            "health": "/healthz",
            # Where it can be written, before the first write.
            "on_promote": ["python", "manage.py", "migrate", "--noinput"],
            "hook_timeout": "10m",
        },
    },
}

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
USE_TZ = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
