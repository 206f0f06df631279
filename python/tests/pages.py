"""The documentation's code, so that it is tried as it stands there."""

import pathlib
import re

_DOCS = pathlib.Path(__file__).parents[2] / "docs"


def python(page, beginning):
    """The block of Python on that page of `docs/` that begins so."""
    text = (_DOCS / page).read_text()
    return re.search(rf"```python\n({re.escape(beginning)}.*?)```", text, re.DOTALL)[1]
