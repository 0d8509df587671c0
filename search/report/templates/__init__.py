"""The templates of the pages, and how they are read: everything is escaped, and a name that is missing is an error."""

from pathlib import Path

import jinja2


def templates() -> jinja2.Environment:
    """Reads the templates beside this file."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
