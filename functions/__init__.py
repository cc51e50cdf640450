"""What this HTTP function does, from the request down to the batch. Imports `shared`, never the other way."""
