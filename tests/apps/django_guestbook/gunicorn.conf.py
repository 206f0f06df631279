"""gunicorn's settings for this project; whatever the command line says goes before them."""

import pathlib

chdir = str(pathlib.Path(__file__).parent)
wsgi_app = "config.wsgi"
control_socket_disable = True
