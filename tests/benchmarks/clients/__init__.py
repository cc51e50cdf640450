"""Other HTTP clients behind the protocol of `shared/post_client.py`, for comparison."""
