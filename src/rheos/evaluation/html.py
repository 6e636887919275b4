"""Parts of a page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from matplotlib.figure import Figure as Plot

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }}
table {{ border-collapse: collapse; width: 100%; margin: 1rem 0; }}
th, td {{ text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #d8dee4; vertical-align: top; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }} dt {{ color: #57606a; }}
dd {{ margin: 0; }} img {{ max-width: 100%; }} img.samples {{ image-rendering: pixelated; }}
table.samples {{ table-layout: fixed; }} table.samples th:first-child {{ width: 6.5rem; }}
table.samples img {{ width: 100%; }}
.remark {{ border-left: 4px solid #bf8700; padding-left: .8rem; }}
@media print {{ body {{ margin: 0; font-size: 11pt; }} img, tr {{ break-inside: avoid; }}
h2, h3, thead {{ break-after: avoid; }} }}
</style></head><body>
{body}
</body></html>
"""


def whole(title: str, body: Sequence[str]) -> str:
    """The page with these parts, under its title."""
    return _PAGE.format(title=html.escape(title), body="\n".join([f"<h1>{html.escape(title)}</h1>", *body]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in cells."""
    first = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table>"


def picture(data: bytes, caption: str, *, samples: bool = False) -> str:
    """A PNG; of samples their pixels are kept sharp."""
    kind = " class=samples" if samples else ""
    return f'<img{kind} alt="{html.escape(caption)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def png(plot: Plot) -> bytes:
    """A plot as a PNG, the same bytes for the same plot."""
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
