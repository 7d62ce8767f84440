"""The page stands by itself: valid, escaped, with every link and id resolved inside it."""

import re
from html.parser import HTMLParser

from ecg_core.report_page import Chapter, Commands, Page, Picture, Table, Text, to_html, to_markdown

SVG = (
    '<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg xmlns="http://www.w3.org/2000/svg" '
    'xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" height="5pt" viewBox="0 0 10 5">'
    '<defs><path id="m1" d="M 0 0"/><clipPath id="c1"/></defs>'
    '<use xlink:href="#m1" clip-path="url(#c1)"/></svg>\n'
)
PAGE = Page(
    title="A <title> & more",
    warning="DEMO SCALE: 3 < 5",
    chapters=(
        Chapter("First, of all", (Text("a < b & c"), Picture("report/one", "Caption <1>", SVG))),
        Chapter(
            "Second",
            (
                Picture("two", "Caption", SVG),
                Table(("name", "value"), (("a|b", "<1>"),)),
                Commands(("make repro", "dvc params diff > x")),
            ),
        ),
    ),
)


class Reader(HTMLParser):
    """What a page refers to, and whether every tag that opens closes."""

    void = frozenset({"meta", "link", "br", "path", "use", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        names = ("href", "xlink:href", "src")
        self.links += [values[name] for name in names if name in values]
        self.links += re.findall(r"url\(([^)]*)\)", " ".join(values.values()))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_every_link_leads_inside_the_page_and_no_id_is_there_twice() -> None:
    reader = read(to_html(PAGE))
    assert len(set(reader.ids)) == len(reader.ids)
    inside = {f"#{name}" for name in reader.ids} | {"data:,"}
    assert set(reader.links) <= inside
    assert {"#first-of-all", "#second", "#one-m1", "#two-c1"} <= set(reader.links)


def test_text_is_escaped_and_scripts_are_none() -> None:
    page = to_html(PAGE)
    for text in ("A &lt;title&gt; &amp; more", "a &lt; b &amp; c", "&lt;1&gt;", "diff &gt; x"):
        assert text in page
    assert "<script" not in page
    assert "@import" not in page


def test_an_address_in_a_table_is_a_link_and_nothing_else_is() -> None:
    rows = (
        ("a", "http://127.0.0.1:5000/#/runs/1"),
        ("b", "see http://x.org"),
        ("c", "javascript:x"),
    )
    page = to_html(Page("t", "w", (Chapter("c", (Table(("name", "value"), rows),)),)))
    outside = [link for link in read(page).links if not link.startswith(("#", "data:"))]
    assert outside == ["http://127.0.0.1:5000/#/runs/1"]


def test_a_drawing_takes_the_pages_width_and_says_what_it_shows() -> None:
    page = to_html(PAGE)
    assert 'width="10pt"' not in page
    assert 'viewBox="0 0 10 5"' in page
    assert 'aria-label="one: Caption &lt;1&gt;"' in page


def test_markdown_has_the_same_chapters_with_pictures_as_files() -> None:
    text = to_markdown(PAGE)
    assert text.startswith("# A <title> & more\n\n**DEMO SCALE: 3 < 5**\n\n## First, of all\n")
    assert "![Caption <1>](report/one.png)" in text
    assert "| name | value |\n| --- | --- |\n| a\\|b | <1> |" in text
    assert "```sh\nmake repro\n" in text
