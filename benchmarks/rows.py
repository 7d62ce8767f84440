"""What every part of the benchmarks hands over: rows of figures, printed and as JSON."""

import argparse
import json
from pathlib import Path

Row = dict[str, object]
"""name, ours, textbook (None: there is none), ratio, unit; bar and met where something is asked."""


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that keeps the description's lines and knows `--json`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    return parser


def row_of(
    name: str,
    ours: float,
    unit: str,
    *,
    textbook: float | None = None,
    ratio: float | None = None,
    bar: str | None = None,
    met: bool | None = None,
    **more: object,
) -> Row:
    """Return a row; `bar` says what is asked of it, `met` whether it is so."""
    row: Row = {"name": name, "ours": ours, "textbook": textbook, "ratio": ratio, "unit": unit}
    if bar is not None:
        row |= {"bar": bar, "met": met}
    return row | more


def line_of(row: Row) -> str:
    """Return a row as a line of a table."""
    text = f"{row['name']:<52} {row['ours']:11.4g} {row['unit']:<10}"
    textbook, ratio = row.get("textbook"), row.get("ratio")
    text += f" textbook {textbook:9.4g}" if textbook is not None else " " * 19
    text += f" ratio {ratio:7.3g}" if ratio is not None else ""
    if "mfu" in row:
        text += f"  MFU {row['mfu']:.2f}"
    if row.get("emulated"):
        text += "  (bf16 computed in fp32)"
    if "bar" in row:
        text += f"  {'meets' if row['met'] else 'MISSES'} {row['bar']}"
    return text.rstrip()


def hand_over(rows: list[Row], file: Path | None) -> None:
    """Print the rows, and write them where asked."""
    print("\n".join(map(line_of, rows)), flush=True)
    if file is not None:
        file.write_text(json.dumps(rows, indent=1) + "\n")
