"""A run goes on by itself: slices hand back, dispatch asks for the next one."""

from __future__ import annotations

from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import rules


async def test_dispatch_starts_the_due_run_and_slices_follow_one_another_to_its_end(night: Night) -> None:
    await night.add_mentors(300)
    night.engine.rules.append(rules.slow(None, 0.2))
    function = await night.start_function(
        {
            "TIME_BUDGET_SECONDS": "2",
            "ENGINE_TIMEOUT_SECONDS": "1",
            "EVALUATION_BATCH_SIZE": "10",
            "ENGINE_MAX_CONCURRENCY": "2",
            "ENGINE_USERS_PER_CALL": "10",
            "MAX_WORKERS": "1",
        }
    )
    await night.project.write_vault_secrets(function.url)
    await night.project.start_net()

    # The only thing that is called: one tick of the minute's job.
    await night.project.cron_driver().run_all()
    invocation = await eventually(night.ended)

    assert invocation is not None
    assert invocation["status"] == "succeeded"
    await night.check_truth(invocation)
    ((dispatches, wrong),) = await night.rows(
        b"select count(*), count(*) filter (where ended_at is null) from scheduler.dispatches"
    )
    assert dispatches > 1
    assert wrong <= 1  # the last one's answer is harvested by the next tick
    ((ticks,),) = await night.rows(
        b"select count(*) from cron.job_run_details as d join cron.job as j using (jobid)"
        b" where j.jobname = 'scheduler-dispatch'"
    )
    assert ticks == 1


async def test_a_slice_ends_with_its_time_budget_and_gives_back_what_it_holds(night: Night) -> None:
    await night.add_mentors(200)
    night.engine.rules.append(rules.slow(None, 0.3))
    function = await night.start_function(
        {
            "TIME_BUDGET_SECONDS": "1",
            "ENGINE_TIMEOUT_SECONDS": "0.9",
            "EVALUATION_BATCH_SIZE": "10",
            "ENGINE_MAX_CONCURRENCY": "1",
            "ENGINE_USERS_PER_CALL": "10",
        }
    )

    answer = await night.fire(function)

    assert answer.status_code == 202
    assert answer.json()["status"] == "running"
    assert 0 < answer.json()["counts"]["batches_done"] < 20
    ((visible,),) = await night.rows(
        b"select count(*) from pgmq.q_scenario_evaluation_batches where vt <= clock_timestamp()"
    )
    assert visible == 20 - answer.json()["counts"]["batches_done"]


async def test_what_the_function_answered_to_a_dispatch_is_kept(night: Night) -> None:
    function = await night.start_function()
    await night.project.write_vault_secrets(function.url)
    await night.execute(
        b"select vault.update_secret(id, 'a-token-that-the-function-does-not-know')"
        b" from vault.secrets where name = 'scheduler_invoke_token'"
    )
    await night.project.start_net()
    driver = night.project.cron_driver()

    await driver.run_all()
    await eventually(lambda: night.rows(b"select 1 from net._http_response"))
    await driver.run_all()

    answers = await night.rows(b"select status_code from scheduler.dispatches where status_code is not null")
    assert answers == [(401,)]
