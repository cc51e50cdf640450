"""The sections; `tests/benchmarks/__main__.py` lists them in their order."""
