"""Contenders beside this function: other ways to do the same task, each written as well as we can."""
