"""A Flask guestbook on SQLite: the ordinary application that Litepilot is put in front of.

`guestbook` is the application as a user knows it; `probes` are pages that show a test what became
of a request or a response on its way. The database's path comes from GUESTBOOK_DB.
"""

import os

from flask import Flask

import guestbook
import probes
from litepilot_middleware.wsgi import ReplayReadonlyWrites

app = Flask(__name__)
app.config.update(
    # The same on every node, or a session would end with each change of node.
    SECRET_KEY=os.environ.get("GUESTBOOK_SECRET", "not a secret: this is a test application"),
    # Flask answers 500 by itself otherwise, and the middleware below sees no exception.
    PROPAGATE_EXCEPTIONS=True,
)
app.register_blueprint(guestbook.pages)
app.register_blueprint(probes.pages)
app.wsgi_app = ReplayReadonlyWrites(app.wsgi_app)
