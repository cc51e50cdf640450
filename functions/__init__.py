"""What this HTTP function does, from the request down to the batch. Imports `shared`, never the other way."""

import gc
import sys

# What is imported stays, and a batch is thousands of objects without cycles. To look through them as often as usual
# takes 6% of a start's CPU, and a third of a run's (100,000 mentors: 2.3 s, so 1.5 s, and 11 MB less).
gc.set_threshold(20_000)

# FastAPI imports this at the first route only to refuse its models, and there are none here: 20 ms of every start
# (fastapi/fastapi#16374).
sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type]
