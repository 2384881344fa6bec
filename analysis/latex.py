r"""Tables for LaTeX: booktabs, escaped, to be taken in by `\input`.

A short table floats and has a caption and a label; one that fills more than a page is a longtable. The first line of
every file names the packages that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.tables import Table

LONGEST_FLOAT = 40
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": "$<$",
    ">": "$>$",
    **dict.fromkeys("\n\r\t\x0b\x0c", " "),
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "Δ": r"$\Delta$",
    "₂": r"$_2$",
    "³": r"$^3$",
    "→": r"$\rightarrow$",
    "\u00a0": "~",
    "\u202f": r"\,",
}
_TRANSLATION = str.maketrans(_SPECIAL)


def latex(table: Table, *, caption: str, label: str) -> str:
    r"""A LaTeX table.

    Args:
        table: cells as people read them.
        caption: above the table; plain text.
        label: for `\ref{tab:label}`.
    """
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    head, body = _line(table.headings), "".join(f"{_line(row)}\n" for row in table.rows)
    title = rf"\caption{{{escaped(caption)}}}\label{{tab:{label}}}"
    if len(table.rows) > LONGEST_FLOAT:
        return _long(columns, title, head, body)
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}[htbp]\n\\centering\n"
        f"{title}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is written; signs of mathematics in math mode."""
    return text.translate(_TRANSLATION)


def _long(columns: str, title: str, head: str, body: str) -> str:
    return (
        "% needs \\usepackage{booktabs,longtable}\n"
        f"\\begin{{longtable}}{{{columns}}}\n{title}\\\\\n\\toprule\n{head}\n\\midrule\n\\endfirsthead\n"
        f"\\toprule\n{head}\n\\midrule\n\\endhead\n\\bottomrule\n\\endlastfoot\n{body}\\end{{longtable}}\n"
    )


def _line(cells: Sequence[str]) -> str:
    # A bracket after the line before would be taken for the argument of its \\.
    words = [f"{{{text}}}" if (text := escaped(cell)).startswith("[") else text for cell in cells]
    return " & ".join(words) + r" \\"
