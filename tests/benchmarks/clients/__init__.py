"""Other HTTP clients behind the engine's `PostClient`: what `shared/http_client.py` is compared with."""
