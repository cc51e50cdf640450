"""An environment that makes a valid configuration: exactly what has no default."""

from __future__ import annotations

from shared.config import ScenarioEvaluationConfig

INVOKE_TOKEN = "invoke-token-0123456789-0123456789"
ADMIN_TOKEN = "admin-token-0123456789-0123456789"

REQUIRED = {
    "SUPABASE_URL": "https://project.example.org",
    "SUPABASE_SECRET_KEY": "sb_secret_only_the_database_knows",
    "SCENARIO_ENGINE_URL": "https://engine.example.org",
    "SCENARIO_ENGINE_TOKEN": "token-that-only-the-engine-knows",
    "SCHEDULER_INVOKE_TOKENS": INVOKE_TOKEN,
    "SCHEDULER_ADMIN_TOKENS": ADMIN_TOKEN,
}


def make_config(**settings: str) -> ScenarioEvaluationConfig:
    """The required settings, and whatever a test adds to them or puts in their place."""
    return ScenarioEvaluationConfig.from_environment(REQUIRED | settings)
