"""Does an engine keep the contract? `python -m tests.engine_conformance URL` asks it, as the scheduler would."""
