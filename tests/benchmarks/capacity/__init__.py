"""What a night costs, as far as it can be reckoned: measured costs, the model that follows, and a simulation of it."""
