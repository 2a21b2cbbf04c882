"""Whether devices tell one another anything in a compiled program."""

# As HLO calls them; asynchronous ones, such as all-reduce-start, contain the same words.
COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast",
)  # fmt: skip


def collectives(program: str) -> list[str]:
    """The collectives in a program's HLO."""
    return [name for name in COLLECTIVES if name in program]
