"""gunicorn's settings for this guestbook; whatever the command line says goes before them."""

import pathlib

chdir = str(pathlib.Path(__file__).parent)
wsgi_app = "app:app"
control_socket_disable = True
