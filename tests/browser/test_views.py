"""What an operator sees: missed, late and partial runs, one mentor's history, long lists, no run, no answer."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from playwright.async_api import Route, expect

from tests.browser.conftest import TIMEZONE
from tests.browser.history import History, Past
from tests.browser.operator_page import OperatorPage
from tests.integration.scheduled_runs.harness import Harness

RUNS = "**/api/v1/scheduler-invocations*"
UNKNOWN = "0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10"


def shown(moment: datetime) -> str:
    """A time as the page writes it, in the reader's zone."""
    local = moment.astimezone(ZoneInfo(TIMEZONE))
    month = "Sept" if local.month == 9 else f"{local:%b}"
    return f"{local.day} {month} {local:%Y, %H:%M}"


async def test_slots_differ_in_strip_and_charts(harness: Harness, history: History, operator: OperatorPage) -> None:
    await harness.add_mentors(20)
    runs = await history.add(
        Past(5),
        Past(4, late=timedelta(hours=2)),
        Past(3, "partial", {"engine_timeout": 1}),
        Past(1, "failed", error_code="no_active_mentors"),
        Past(0),
    )
    await history.settle()
    await operator.open()
    cells = operator.page.locator(".strip > li > *")
    await expect(cells).to_have_count(6)
    labels = [str(await cell.get_attribute("aria-label")).split(": ")[1] for cell in await cells.all()]
    success, partial = "success, 40 evaluations", "partial, 1 of 40 evaluations without a result"
    assert labels == [success, f"{success}, 2 h late", partial, "no run", "failed", success]
    path = "paths => paths.map(p => p.getAttribute('d')).join()"
    assert len({await cell.locator("path").evaluate_all(path) for cell in await cells.all()}) == 5
    for name in ("Results", "Without a result", "Duration"):
        await expect(operator.page.get_by_role("img", name=name)).to_be_visible()
    await operator.text("As a table: Without a result").click()
    rows = operator.page.get_by_role("region", name="Without a result").locator("tbody tr")
    await expect(rows).to_have_count(6)
    await expect(rows.nth(2).locator("td")).to_have_text(["no run", "no run"])
    await expect(rows.nth(3).locator("td")).to_have_text(["1", "0"])
    await expect(operator.runs().filter(has_text="no_active_mentors")).to_have_count(1)
    await expect(operator.page.get_by_role("columnheader", name="Suppressed")).to_be_visible()
    time = operator.page.locator(".runs time").first
    await expect(time).to_have_text(shown(harness.slot))
    await expect(time).to_have_attribute("title", f"{harness.slot:%Y-%m-%d %H:%M:%S} UTC")
    assert datetime.fromisoformat(str(await time.get_attribute("datetime"))) == harness.slot
    await cells.nth(2).click()
    await expect(operator.status()).to_have_text("partial")
    assert operator.page.url.endswith(runs[2])


async def test_missed_slot_is_shown_as_not_run(history: History, operator: OperatorPage) -> None:
    await history.add(Past(1))
    await operator.open()
    await expect(operator.heading("It did not run")).to_be_visible()
    await expect(operator.page.locator(".strip > li")).to_have_count(2)


async def test_failure_leads_to_its_cause_and_to_the_mentor(
    harness: Harness, history: History, operator: OperatorPage
) -> None:
    await harness.add_mentors(20)
    *_, run = await history.add(
        Past(9, not_evaluated=20, status="failed"), Past(6), Past(0, "partial", {"engine_http_422": 12})
    )
    markup = "<img src=x onerror=alert(1)><script>window.injected = 1</script>"
    reasons = '{"no_scenario_applies": 3, "user_id_missing": 1, "invalid_segments": 2}'
    update = b"update public.scheduler_invocations set note = %s, skip_reasons = skip_reasons || %s::jsonb"
    await harness.execute(update, [markup, reasons])
    await operator.open()
    unusable = "3 rows of active_peer_mentors could not be used: no user id, or invalid segments."
    await expect(operator.text(unusable)).to_be_visible()
    await operator.open(f"#/runs/{run}", token="")
    skipped = (
        "no enabled scenario type that was due applies to 3, 1 row without a user id, 2 rows with invalid segments"
    )
    await expect(operator.page.locator(".facts")).to_contain_text(f"({skipped})")
    # what a caller wrote is text, and never markup
    await expect(operator.text(markup).first).to_be_visible()
    assert await operator.page.locator("main img, main script").count() == 0
    cause = operator.page.locator(".cause-list > li")
    await expect(cause).to_contain_text("The engine answered 422, while it answered about other mentors.")
    await expect(cause.locator(".ids a")).to_have_count(10)
    await harness.execute(
        b"update public.scheduler_invocation_batches set failure_counts = '{\"engine_http_422\": 5}' where failed = 12"
    )
    await operator.page.reload()
    await expect(operator.text("7 more evaluations failed beside those counted here.")).to_be_visible()
    mentor = sorted(harness.mentors)[0]
    await cause.get_by_role("link", name=mentor).click()
    await expect(operator.page.get_by_label("User id")).to_have_value(mentor)
    rows = operator.page.locator(".history tbody tr")
    await expect(rows).to_have_count(3)
    await expect(rows.nth(0)).to_contain_text("failed")
    await expect(rows.nth(0)).to_contain_text("the engine answered 422")
    await expect(rows.nth(2)).to_contain_text("not evaluated")
    await expect(operator.page.locator(".lead")).to_contain_text("In the last 7 days: 2 runs, ")
    await operator.page.get_by_label("User id").fill("nonsense")
    await operator.button("Show history").click()
    await expect(operator.text("That is no user id.")).to_be_visible()


async def test_long_list_is_paged_and_filtered_by_address(history: History, operator: OperatorPage) -> None:
    newest, _ = await history.add(Past(0), Past(1, "partial"))
    await history.repeat(newest, range(2, 40))
    await history.repeat(newest, range(400, 10_360))
    await operator.open()
    rows = operator.runs()
    await expect(rows).to_have_count(25)
    await expect(operator.text("10,000 runs in all")).to_be_visible()
    await operator.page.get_by_role("link", name="Older").click()
    await expect(rows.first).to_contain_text(shown(history.slot(25)))
    await operator.page.get_by_role("link", name="Newer").click()
    await expect(rows.first).to_contain_text(shown(history.slot(0)))
    await operator.page.get_by_label("Up to").fill(f"{history.slot(10_329):%Y-%m-%d}")
    await expect(rows.first).to_contain_text(f"{history.slot(10_329):%Y}")
    await operator.page.get_by_role("link", name="Older").click()
    await expect(operator.text("These are the oldest.")).to_be_visible()
    await expect(rows.last).to_contain_text(shown(history.slot(10_359)))
    await operator.page.go_back()
    await expect(rows).to_have_count(25)

    await operator.open(token="")
    await operator.page.get_by_label("Status").select_option("partial")
    await expect(rows).to_have_count(1)
    assert operator.page.url.endswith("#/?status=partial")
    await operator.page.reload()
    await expect(rows).to_have_count(1)
    await operator.page.get_by_label("Kind").select_option("retry")
    await expect(operator.text("No run fits.")).to_be_visible()
    await operator.page.get_by_role("link", name="Show all").click()
    await expect(rows).to_have_count(25)


async def test_page_shows_that_it_is_loading_and_that_nothing_ran(harness: Harness, operator: OperatorPage) -> None:
    answered = asyncio.Event()

    async def wait(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await operator.open()
    await expect(operator.heading("No scheduled run yet")).to_be_visible()
    await operator.page.route(RUNS, wait)
    await operator.page.reload()
    waiting = operator.text("Reading the last runs…")
    await expect(waiting).to_be_visible()
    await expect(operator.page.locator(".band time")).to_be_visible()
    answered.set()
    await expect(operator.heading("No scheduled run yet")).to_be_visible()
    await expect(waiting).to_have_count(0)
    await expect(operator.text("There is no run yet.")).to_be_visible()
    tomorrow = (harness.slot + timedelta(days=1)).astimezone(UTC)
    await expect(operator.page.locator(".next time")).to_have_attribute("datetime", f"{tomorrow:%Y-%m-%dT%H:%M:%SZ}")


async def test_page_recovers_by_itself_when_the_database_returns(
    harness: Harness, history: History, operator: OperatorPage
) -> None:
    await history.add(Past(0))
    await harness.project.postgrest.stop()
    await operator.page.clock.install()
    await operator.open()
    alert = operator.page.get_by_role("alert").filter(has_text="database_unavailable")
    await expect(alert).to_contain_text("Service Unavailable (503)")
    await expect(alert).to_contain_text("Trying again in 10 s.")
    await harness.project.postgrest.start()
    await operator.page.clock.fast_forward(11_000)
    await expect(operator.runs()).to_have_count(1)
    await expect(alert).to_have_count(0)


async def test_missing_run_and_foreign_answer_are_named_as_such(operator: OperatorPage) -> None:
    async def bad_gateway(route: Route) -> None:
        await route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")

    await operator.open(f"#/runs/{UNKNOWN}")
    await expect(operator.heading("There is no such run")).to_be_visible()
    await expect(operator.page.get_by_role("alert").filter(has_text="not_found")).to_be_visible()
    await operator.page.route(RUNS, bad_gateway)
    await operator.page.get_by_role("link", name="Mentor history").click()
    await operator.page.get_by_label("User id").fill(UNKNOWN)
    await operator.button("Show history").click()
    alert = operator.page.get_by_role("alert").filter(has_text="http_502")
    await expect(alert).to_contain_text("Something in front of it may be at fault.")


async def test_unavailable_engine_is_shown_as_waiting(
    harness: Harness, history: History, operator: OperatorPage
) -> None:
    (run,) = await history.add(Past(0))
    await harness.execute(
        b"update public.scheduler_invocations"
        b" set status = 'running', finished_at = null, error_code = 'engine_unavailable', error_message = 'refused',"
        b" requested_by = 'Berit', reason = 'an incident'"
    )
    await operator.open()
    await expect(operator.heading("It is waiting")).to_be_visible()
    await expect(operator.page.locator(".verdict")).to_contain_text("The trigger engine is unavailable.")
    await operator.open(f"#/runs/{run}", token="")
    for shown in ("engine_unavailable", "refused", "pg_cron for Berit", "an incident"):
        await expect(operator.page.locator("main")).to_contain_text(shown)


async def test_hidden_page_sends_no_requests(history: History, operator: OperatorPage) -> None:
    async def look(*, hidden: bool) -> None:
        await operator.page.evaluate(
            "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )

    await history.add(Past(1))
    await operator.page.clock.install()
    await operator.open()
    await expect(operator.runs()).to_have_count(1)
    await look(hidden=True)
    asked = len(operator.asked)
    await operator.page.clock.run_for(300_000)
    assert len(operator.asked) == asked
    await history.add(Past(0))
    await look(hidden=False)
    await expect(operator.runs()).to_have_count(2)


async def test_a_press_counts_though_what_is_pressed_is_built_anew(operator: OperatorPage) -> None:
    await operator.open()
    await expect(operator.heading(re.compile("^Runs$"))).to_be_visible()
    await operator.page.evaluate(
        """async () => {
          const { Region, h } = await import("./dashboard/dom.js");
          window.presses = [];
          const place = h("div");
          document.querySelector("main").prepend(place);
          window.region = new Region(place, (name) =>
            h("button", { type: "button", onclick: () => window.presses.push(name) }, name));
          window.region.show("old");
        }"""
    )
    await operator.page.get_by_role("button", name="old").hover()
    await operator.page.mouse.down()
    await operator.page.evaluate("window.region.show('between'), window.region.show('new')")
    await operator.page.mouse.up()
    await expect(operator.page.get_by_role("button", name="new")).to_be_visible()
    assert await operator.page.evaluate("window.presses") == ["old"]
