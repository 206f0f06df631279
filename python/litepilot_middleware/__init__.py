"""Lets an application that writes where Litepilot expected a read run on any node.

On a replica SQLite refuses a write: "attempt to write a readonly database", "database is locked", or
with a WAL "disk I/O error", at the write or at the commit. These middlewares turn that refusal into an empty answer with `Litepilot-Replay: primary`, upon which Litepilot sends the
same request to the primary; the client sees only the primary's answer.

    wsgi.ReplayReadonlyWrites    around any WSGI application
    asgi.ReplayReadonlyWrites    around any ASGI application
    django.ReplayReadonlyWrites  first in Django's MIDDLEWARE (Django turns exceptions into pages
                                 before anything around it could see them)

A request that is replayed has run twice, the first time without being able to write to the
database. What it did besides (a mail, a call to another service) has happened twice.

A response of which the client has already got the beginning cannot be taken back: then the
exception passes through, as it would without the middleware.
"""
