"""What Python applications behind Litepilot may use. The program itself comes with the same wheel.

    litepilot.django     for INSTALLED_APPS: settings, database backend, commands, checks, signals
    litepilot.flask      a Flask extension
    litepilot.starlette  for Starlette and FastAPI: middleware, dependency, health route
    litepilot.wsgi, litepilot.asgi
                         the replay middleware around any WSGI or ASGI application
    litepilot.node       who is primary, as the files in the database's directory say
    litepilot.admin      what the node's admin port says
    litepilot.reading, litepilot.settings
                         `LITEFS = {…}` as a litepilot.yml, and back

On a replica SQLite refuses a write: "attempt to write a readonly database", "database is locked", or
with a WAL "disk I/O error", at the write or at the commit. The middlewares turn that refusal into an
empty answer with `Litepilot-Replay: primary`, upon which Litepilot sends the same request to the
primary; the client sees only the primary's answer.

A request that is replayed has run twice, the first time without being able to write to the database.
What it did besides (a mail, a call to another service) has happened twice. A response of which the
client has already got the beginning cannot be taken back: then the exception passes through, as it
would without the middleware.

Nothing here elects, routes or replicates: the program does.
"""
