"""The files of a run: results, measures, tables, figures and provenance, written and read back."""
