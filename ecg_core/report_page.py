"""A page of chapters, and its two renderings: one self-contained HTML file, and Markdown.

The HTML needs nothing but itself: no script, no font, no picture of its own on another host. It
holds its figures as inline SVG, whose ink takes the page's colour in the light and in the dark.
"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE_FILE = Path(__file__).with_name("report_page.css")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Commands:
    """Lines to type."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns; the first column names the row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A figure by its file without the ending, as seen from the page, in words, and as SVG."""

    file: str
    caption: str
    svg: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.file.rsplit("/", 1)[-1]


Block = Text | Commands | Table | Picture


@dataclass(frozen=True)
class Chapter:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        """The heading as a place in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A title, one line that no reader may miss, and chapters."""

    title: str
    warning: str
    chapters: tuple[Chapter, ...]


def to_markdown(page: Page) -> str:
    """Return the page as Markdown, whose pictures are PNG files."""
    parts = [f"# {page.title}", f"**{page.warning}**"]
    for chapter in page.chapters:
        parts.append(f"## {chapter.title}")
        parts += [_block_markdown(block) for block in chapter.blocks]
    return "\n\n".join(parts) + "\n"


def _block_markdown(block: Block) -> str:
    match block:
        case Text(text):
            return text
        case Commands(lines):
            return "\n".join(["```sh", *lines, "```"])
        case Picture(file, caption, _):
            return f"![{caption}]({file}.png)\n\n*{caption}*"
        case Table(columns, rows):
            table = [columns, ("---",) * len(columns), *rows]
            return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in table)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def to_html(page: Page) -> str:
    """Return the page as one file of HTML."""
    links = "".join(
        f'<a href="#{chapter.anchor}">{html.escape(chapter.title)}</a>' for chapter in page.chapters
    )
    body = "\n".join(_chapter_html(chapter) for chapter in page.chapters)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(page.title)}</title>
<link rel="icon" href="data:,">
<style>
{STYLE_FILE.read_text()}</style>
</head>
<body>
<header><h1>{html.escape(page.title)}</h1>
<p class="warning">{html.escape(page.warning)}</p>
<nav aria-label="Chapters">{links}</nav></header>
<main>
{body}
</main>
</body>
</html>
"""


def _chapter_html(chapter: Chapter) -> str:
    blocks = "\n".join(_grouped(chapter.blocks))
    title = html.escape(chapter.title)
    return f'<section id="{chapter.anchor}">\n<h2>{title}</h2>\n{blocks}\n</section>'


def _grouped(blocks: Sequence[Block]) -> Iterator[str]:
    """Yield each block's HTML, with neighbouring pictures side by side."""
    pictures: list[str] = []
    for block in blocks:
        if isinstance(block, Picture):
            pictures.append(_block_html(block))
            continue
        if pictures:
            yield f'<div class="pictures">{"".join(pictures)}</div>'
            pictures = []
        yield _block_html(block)
    if pictures:
        yield f'<div class="pictures">{"".join(pictures)}</div>'


def _block_html(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Commands(lines):
            return f"<pre>{html.escape(chr(10).join(lines))}</pre>"
        case Picture(_, caption, svg):
            drawing = _inline(block.name, caption, svg)
            return f"<figure>{drawing}<figcaption>{html.escape(caption)}</figcaption></figure>"
        case Table(columns, rows):
            head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
            body = "\n".join(_row_html(columns, row) for row in rows)
            return (
                f'<div class="table" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
                f"<tbody>\n{body}\n</tbody></table></div>"
            )


def _row_html(columns: tuple[str, ...], row: tuple[str, ...]) -> str:
    """Return a row whose cells know their column, for a screen too narrow for a table."""
    cells = "".join(
        f'<td data-of="{html.escape(name, quote=True)}">{_cell_html(cell)}</td>'
        for name, cell in zip(columns[1:], row[1:], strict=True)
    )
    return f'<tr><th scope="row">{html.escape(row[0])}</th>{cells}</tr>'


def _cell_html(cell: str) -> str:
    """Return a cell's text, which leads to a page where it is the address of one."""
    text = html.escape(cell, quote=True)
    return f'<a href="{text}">{text}</a>' if re.fullmatch(r"https?://\S+", cell) else text


def _inline(name: str, caption: str, svg: str) -> str:
    """Return the drawing for a page: no prologue, sized by the page, its ids its own."""
    drawing = svg[svg.index("<svg ") :].strip()
    drawing = re.sub(r' (width|height)="[\d.]+pt"', "", drawing, count=2)
    # ids are names of the whole page; every figure has a figure_1
    drawing = re.sub(r'( id="|"#|url\(#)', rf"\g<1>{name}-", drawing)
    label = html.escape(f"{name.replace('_', ' ')}: {caption}", quote=True)
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
