"""A request comes in, an answer goes out: one FastAPI application."""
