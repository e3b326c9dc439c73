"""The report as one HTML page that needs nothing from elsewhere.

`page.html` (Jinja2, every value escaped) says what is where, `page.css` how it looks, `page.js` sorts, finds and lets the keyboard
walk through the charts. Names come from models, which may be anybody's: beside the escaping, the page's content security policy
allows no script but `page.js`, and no request.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from ...errors import MissingDependencyError

FOLDER = Path(__file__).parent


def render(document: dict) -> str:
    """The page of `Overview.to_dict()`, whose infinities and NaNs have become None.

    Raises: MissingDependencyError without Jinja2.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise MissingDependencyError("the page needs Jinja2: pip install 'infold[report]'") from None
    from . import charts, text

    script, style = ((FOLDER / f"page.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(text, name) for name in ("size", "milliseconds", "error")}
    return environment.get_template("page.html").render(
        document, charts=charts, script=Markup(script), style=Markup(style), digest=digest
    )
