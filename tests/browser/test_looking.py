"""What an operator sees: the morning, gaps, late nights, one mentor's history, ten thousand runs, none, no answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from playwright.async_api import Route, expect

from tests.browser.conftest import TIMEZONE
from tests.browser.history import History, Past
from tests.browser.operator_page import OperatorPage
from tests.integration.nightly.night import Night

NIGHTS = 10_000
RUNS = "**/api/v1/scheduler-invocations*"


def shown(moment: datetime) -> str:
    """A time as the page writes it, in the reader's zone."""
    local = moment.astimezone(ZoneInfo(TIMEZONE))
    return f"{local.day} {local:%b %Y, %H:%M}"


async def test_a_glance_tells_a_gap_a_late_night_a_partial_and_a_failed_one_apart_by_shape(
    night: Night, history: History, operator: OperatorPage
) -> None:
    await night.add_mentors(20)
    runs = await history.add(
        Past(5),
        Past(4, late=timedelta(hours=2)),
        Past(3, "partial", {"engine_timeout": 1}),
        Past(1, "failed", error="no_active_mentors"),
        Past(0),
    )
    await history.settle()
    await operator.open()
    cells = operator.page.locator(".strip > li > *")
    await expect(cells).to_have_count(6)
    told = [str(await cells.nth(place).get_attribute("aria-label")).split(": ")[1] for place in range(6)]
    assert told == [
        "succeeded, 40 evaluations",
        "succeeded, 40 evaluations, 2 h late",
        "partial, 1 of 40 evaluations without a result",
        "no run",
        "failed",
        "succeeded, 40 evaluations",
    ]
    drawn = [
        await cells.nth(place).locator("path").evaluate_all("paths => paths.map(p => p.getAttribute('d')).join()")
        for place in range(5)
    ]
    assert len(set(drawn)) == 5
    await cells.nth(2).click()
    await expect(operator.status()).to_have_text("partial")
    assert operator.page.url.endswith(runs[2])


async def test_the_morning_after_a_slot_without_a_run_says_that_it_did_not_run(
    history: History, operator: OperatorPage
) -> None:
    await history.add(Past(1))
    await operator.open()
    await expect(operator.heading("It did not run")).to_be_visible()
    await expect(operator.page.locator(".strip > li")).to_have_count(2)


async def test_times_are_in_the_readers_zone_with_utc_on_hover(
    night: Night, history: History, operator: OperatorPage
) -> None:
    await history.add(Past(0))
    await operator.open()
    time = operator.page.locator(".runs time").first
    await expect(time).to_have_text(shown(night.slot))
    await expect(time).to_have_attribute("title", f"{night.slot:%Y-%m-%d %H:%M:%S} UTC")
    stated = str(await time.get_attribute("datetime"))
    assert datetime.fromisoformat(stated) == night.slot


async def test_charts_can_be_read_as_tables(night: Night, history: History, operator: OperatorPage) -> None:
    await night.add_mentors(20)
    await history.add(Past(2), Past(0, "partial", {"engine_timeout": 3}))
    await operator.open()
    for name in ("Results", "Without a result", "Duration"):
        await expect(operator.page.get_by_role("img", name=name)).to_be_visible()
    await operator.page.get_by_text("As a table: Without a result").click()
    rows = operator.page.get_by_role("region", name="Without a result").locator("tbody tr")
    await expect(rows).to_have_count(3)
    for row, cells in zip(await rows.all(), (["3", "0"], ["no run", "no run"], ["0", "0"]), strict=True):
        await expect(row.locator("td")).to_have_text(cells)


async def test_a_failure_leads_to_whom_it_is_about_and_to_her_history(
    night: Night, history: History, operator: OperatorPage
) -> None:
    await night.add_mentors(20)
    runs = await history.add(
        Past(9, not_evaluated=20, status="failed"), Past(6), Past(0, "partial", {"engine_http_422": 12})
    )
    await night.execute(
        b"update public.scheduler_invocations set skip_reasons = skip_reasons || %s::jsonb",
        ['{"no_scenario_applies": 3, "user_id_missing": 1, "invalid_segments": 2}'],
    )
    await operator.open()
    unusable = operator.page.get_by_text(
        "3 rows of active_peer_mentors could not be used: no user id, or invalid segments."
    )
    await expect(unusable).to_be_visible()
    await operator.open(f"#/runs/{runs[-1]}", token="")
    reasons = "(no scenario applies to 3, 1 row without a user id, 2 rows with invalid segments)"
    await expect(operator.page.locator(".facts")).to_contain_text(reasons)
    cause = operator.page.locator(".cause-list > li")
    await expect(cause).to_contain_text("The engine answers 422 about them and answers about others.")
    await expect(cause.get_by_role("link")).to_have_count(10)
    await night.execute(
        b"update public.scheduler_invocation_batches set failure_counts = '{\"engine_http_422\": 5}' where failed = 12"
    )
    await operator.page.reload()
    others = operator.page.get_by_text("7 more evaluations failed beside those counted here.")
    await expect(others).to_be_visible()
    her = sorted(night.mentors)[0]
    await cause.get_by_role("link", name=her).click()
    await expect(operator.page.get_by_label("User id")).to_have_value(her)
    rows = operator.page.locator(".history tbody tr")
    await expect(rows).to_have_count(3)
    await expect(rows.nth(0)).to_contain_text("failed")
    await expect(rows.nth(0)).to_contain_text("the engine answered 422")
    await expect(rows.nth(2)).to_contain_text("not evaluated")
    await expect(operator.page.locator(".lead")).to_contain_text("In the last 7 days she was in 2 runs:")
    await operator.page.get_by_label("User id").fill("nobody")
    await operator.button("Show history").click()
    await expect(operator.page.get_by_text("That is no user id.")).to_be_visible()


async def test_of_ten_thousand_runs_only_a_page_is_drawn_and_the_oldest_is_reached(
    history: History, operator: OperatorPage
) -> None:
    her = "0171e38f-30f1-5e6c-9a4d-000000000001"
    await history.add_many(NIGHTS, her)
    await operator.open()
    rows = operator.page.locator(".runs tbody tr")
    await expect(rows).to_have_count(25)
    await operator.page.get_by_role("link", name="Older").click()
    await expect(rows.first).to_contain_text(shown(history.slot(25)))
    await operator.page.get_by_role("link", name="Newer").click()
    await expect(rows.first).to_contain_text(shown(history.slot(0)))
    oldest = history.slot(NIGHTS - 1)
    await operator.page.get_by_label("Up to").fill(f"{oldest + timedelta(days=30):%Y-%m-%d}")
    await expect(rows.first).to_contain_text(f"{oldest + timedelta(days=30):%Y}")
    await operator.page.get_by_role("link", name="Older").click()
    await expect(operator.page.get_by_text("These are the oldest.")).to_be_visible()
    await expect(rows.last).to_contain_text(shown(oldest))
    await operator.page.go_back()
    await expect(rows).to_have_count(25)

    await operator.open("#/mentors/0171e38f-30f1-5e6c-9a4d-000000000002", token="")
    await expect(operator.heading("She was in no run")).to_be_visible()


async def test_filters_stand_in_the_address_and_can_be_taken_away(
    night: Night, history: History, operator: OperatorPage
) -> None:
    await night.add_mentors(5)
    await history.add(Past(2), Past(1, "partial", {"engine_timeout": 1}), Past(0))
    await operator.open()
    await operator.page.get_by_label("Status").select_option("partial")
    await expect(operator.page.locator(".runs tbody tr")).to_have_count(1)
    assert operator.page.url.endswith("#/?status=partial")
    await operator.page.reload()
    await expect(operator.page.locator(".runs tbody tr")).to_have_count(1)
    await operator.page.get_by_label("Kind").select_option("retry")
    await expect(operator.page.get_by_text("No run fits.")).to_be_visible()
    await operator.page.get_by_role("link", name="Show all").click()
    await expect(operator.page.locator(".runs tbody tr")).to_have_count(3)


async def test_where_nothing_has_run_it_says_so_and_when_the_first_will(night: Night, operator: OperatorPage) -> None:
    await operator.open()
    await expect(operator.heading("No scheduled run yet")).to_be_visible()
    await expect(operator.page.get_by_text("There is no run yet.")).to_be_visible()
    tomorrow = night.slot + timedelta(days=1)
    await expect(operator.page.locator(".next time")).to_have_attribute(
        "datetime", f"{tomorrow.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    )


async def test_until_there_is_an_answer_it_says_what_it_waits_for(operator: OperatorPage) -> None:
    answered = asyncio.Event()

    async def wait(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await operator.open()
    await expect(operator.heading("No scheduled run yet")).to_be_visible()
    await operator.page.route(RUNS, wait)
    await operator.page.reload()
    waiting = operator.page.get_by_text("Reading the last runs…")
    await expect(waiting).to_be_visible()
    answered.set()
    await expect(operator.heading("No scheduled run yet")).to_be_visible()
    await expect(waiting).to_have_count(0)


async def test_while_the_database_is_away_it_says_so_and_goes_on_by_itself(
    night: Night, history: History, operator: OperatorPage
) -> None:
    await history.add(Past(0))
    await night.project.postgrest.stop()
    await operator.page.clock.install()
    await operator.open()
    alert = operator.page.get_by_role("alert").filter(has_text="database_unavailable")
    await expect(alert).to_contain_text("Service Unavailable (503)")
    await expect(alert).to_contain_text("Trying again in 10 s.")
    await night.project.postgrest.start()
    await operator.page.clock.fast_forward(11_000)
    await expect(operator.page.locator(".runs tbody tr")).to_have_count(1)
    await expect(alert).to_have_count(0)


async def test_a_run_that_is_not_there_and_an_answer_that_is_not_the_functions_are_told_as_such(
    operator: OperatorPage,
) -> None:
    async def bad_gateway(route: Route) -> None:
        await route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")

    await operator.open("#/runs/0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10")
    await expect(operator.heading("There is no such run")).to_be_visible()
    await expect(operator.page.get_by_role("alert").filter(has_text="not_found")).to_be_visible()
    await operator.page.route(RUNS, bad_gateway)
    await operator.page.get_by_role("link", name="One mentor").click()
    await operator.page.get_by_label("User id").fill("0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10")
    await operator.button("Show history").click()
    alert = operator.page.get_by_role("alert").filter(has_text="http_502")
    await expect(alert).to_contain_text("Something in front of it may be at fault.")


async def test_an_engine_that_is_away_is_told_and_is_nobodys_failure(
    night: Night, history: History, operator: OperatorPage
) -> None:
    (run,) = await history.add(Past(0))
    await night.execute(
        b"update public.scheduler_invocations set status = 'running', finished_at = null, error = 'engine_unavailable'"
    )
    await operator.open()
    await expect(operator.heading("It is waiting")).to_be_visible()
    await expect(operator.page.locator(".verdict")).to_contain_text("The trigger engine answers nobody.")
    await operator.open(f"#/runs/{run}", token="")
    await expect(operator.page.get_by_text("engine_unavailable")).to_be_visible()


async def test_nobody_is_asked_while_nobody_looks(history: History, operator: OperatorPage) -> None:
    answers = asyncio.Event()
    answers.set()

    async def wait(route: Route) -> None:
        await answers.wait()
        await route.continue_()

    async def look(*, hidden: bool) -> None:
        await operator.page.evaluate(
            "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )

    await history.add(Past(1))
    await operator.page.clock.install()
    await operator.page.route(RUNS, wait)
    await operator.open()
    rows = operator.page.locator(".runs tbody tr")
    await expect(rows).to_have_count(1)
    await look(hidden=True)
    asked = len(operator.asked)
    await operator.page.clock.run_for(300_000)
    assert len(operator.asked) == asked

    # Whoever looks again sees what is new at once; and who looks away before the answer has come is left alone as well.
    await history.add(Past(0))
    answers.clear()
    async with operator.page.expect_request(RUNS):
        await look(hidden=False)
    await look(hidden=True)
    answers.set()
    await expect(rows).to_have_count(2)
    asked = len(operator.asked)
    await operator.page.clock.run_for(300_000)
    assert len(operator.asked) == asked


async def test_what_others_wrote_is_text_and_never_markup(
    night: Night, history: History, operator: OperatorPage
) -> None:
    (run,) = await history.add(Past(0))
    evil = "<img src=x onerror=alert(1)><script>window.injected = 1</script>"
    await night.execute(b"update public.scheduler_invocations set note = %s", [evil])
    await operator.open(f"#/runs/{run}")
    await expect(operator.page.get_by_text(evil).first).to_be_visible()
    assert await operator.page.locator("main img, main script").count() == 0
