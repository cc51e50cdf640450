"""What this HTTP function does, from the request down to the batch. Imports `shared`, never the other way."""

import gc
import sys

# What is imported stays, and a batch is thousands of objects without cycles. To look through them as often as usual
# takes 7% of a start's CPU and 5% of a run's; without the freeze in main.py another 20%, and 9 MB (100,000 mentors).
gc.set_threshold(20_000)

# FastAPI imports this at the first route only to refuse its models, and there are none here: 20 ms of every start
# (fastapi/fastapi#16374).
sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type]
