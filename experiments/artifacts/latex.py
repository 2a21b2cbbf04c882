"""Tables for a paper: tables.tex, which pdflatex reads with the package booktabs."""

import re
from collections.abc import Sequence

from experiments.artifacts.tables import Table
from linear_cifar.config import AXES

# What stands for characters that are special in LaTeX, or that pdflatex lacks. After \\ a [ or * would begin
# an argument.
_COMMANDS = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {character: f"${character}$" for character in "<>|"}
    | {character: f"{{{character}}}" for character in "[*"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "−": "$-$", "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$", "…": r"\ldots{}"}
    | {"η": r"$\eta$", "λ": r"$\lambda$", "μ": r"$\mu$", "ε": r"$\varepsilon$"}
)


def format_latex(tables: Sequence[Table], source: str) -> str:
    """Return the printed rows of tables as LaTeX in ASCII; a comment names their `source`."""
    needs = r"needs \usepackage{booktabs}; a ? is a character that pdflatex lacks"
    text = "\n\n".join([f"% {' '.join(source.split())}\n% {needs}", *map(_format_table, tables)])
    return re.sub(r"[^\n -~]", "?", text) + "\n"


def _format_table(table: Table) -> str:
    columns, *rows = table.printed
    symbols = [AXES[name].symbol if name in AXES else name for name in columns]
    head, *lines = (" & ".join(map(_escape, row)) + r" \\" for row in (symbols, *rows))
    body, notes = "\n".join(lines), "\n".join(rf"\par {_escape(note)}" for note in table.notes)
    return rf"""\begin{{table}}
\centering\footnotesize
\caption{{{_escape(table.title.rstrip(":"))}}}\label{{tab:{table.name}}}
\begin{{tabular}}{{{"r" * (len(columns) - 1)}l}}
\toprule
{head}
\midrule
{body}
\bottomrule
\end{{tabular}}
{notes}
\end{{table}}"""


def _escape(text: str) -> str:
    """Return a text as one line of LaTeX, with math for symbols and the signs of numbers."""
    return re.sub(r"(?<![\w.)])-(?=\d)", "−", " ".join(text.split())).translate(_COMMANDS)
