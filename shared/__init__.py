"""What a second function on the same project would reuse: configuration, database, engine client, logging."""
