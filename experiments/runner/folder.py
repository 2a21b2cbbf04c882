"""The names of the files in an experiment's folder."""

# Version of config.json, tables.json and the CSV files, see experiments/FILES.md.
SCHEMA = 9
CONFIG, TABLES, LATEX = "config.json", "tables.json", "tables.tex"
RESULTS, HISTORY, MEASURES = "results.csv", "history.csv", "measures.csv"
BEST, VALUES, COMPARE, PROBABILITIES = "best_params.npz", "values.npz", "compare.csv", "probabilities.parquet"
BLOCKS = "blocks"
# Formats of the figures; the first two are the default.
FORMATS = ("png", "svg", "pdf")
