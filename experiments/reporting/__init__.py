"""The report page: claims with their verdicts, its sections, and its templates."""
