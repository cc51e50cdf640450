"""Contenders beside this function: what else one would build for the same task, each written as well as we can."""
