"""The benchmark, which `python -m experiments.bench` runs. README.md in this folder discusses its figures."""
