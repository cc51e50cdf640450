// The band below the bar, on every page: which project and schedule this is, in which zone times are shown, what is paused.

import { changeSchedule, getSchedule, sendTestAlert } from "./api.js";
import { actionButton, ask } from "./dialog.js";
import { field, h, Region } from "./dom.js";
import { Poll } from "./polling.js";
import { mayAct, settings } from "./session.js";
import { BROWSER_ZONE, clockText, momentOf, momentText, shownZone, showIn, time } from "./times.js";
import { counted, sign } from "./words.js";

const PAUSE_MS = 30_000;
// Of the reader, and no secret: it outlasts the tab.
const ZONE = "scheduler-time-zone";

/** The band; `schedule()` is what was last read, null before. */
export function header(context) {
  let schedule = null;
  const place = h("div");
  const said = h("div", { role: "status" });
  const element = h("div", { class: "band-inner" }, place, said);
  const region = new Region(place, (data) => band(data, { context, changed, rezone, say }));

  async function look(signal) {
    show(await getSchedule({ signal }));
    return PAUSE_MS;
  }

  function draw(problem = null) {
    applyZone(schedule);
    region.show({ settings, schedule, zone: shownZone(), problem, mayAct: mayAct() });
  }

  function show(answer) {
    schedule = answer;
    const before = shownZone();
    draw();
    if (shownZone() !== before) context.redraw();
  }

  function changed(answer, text) {
    show(answer);
    say(text);
    context.refresh();
  }

  function say(text) {
    said.replaceChildren(h("p", { class: "notice tone-good" }, sign("success"), h("span", {}, text)));
  }

  function rezone(choice) {
    localStorage.setItem(ZONE, choice);
    draw();
    context.redraw();
  }

  // What was said is of the page where it was done.
  const hush = () => said.replaceChildren();
  addEventListener("hashchange", hush);
  const poll = new Poll(look, (error) => {
    if (error?.isOfToken) context.lost(error);
    else if (error) draw(error.message);
  });
  return {
    element,
    schedule: () => schedule,
    start() {
      hush();
      draw();
      poll.start();
    },
    stop: () => poll.stop(),
  };
}

function applyZone(schedule) {
  const choice = localStorage.getItem(ZONE) ?? "browser";
  showIn({ browser: BROWSER_ZONE, UTC: "UTC", schedule: schedule?.evaluation_timezone }[choice] ?? BROWSER_ZONE);
}

function band({ schedule, problem }, page) {
  const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return [
    h("div", { class: "band-line" },
      h("dl", { class: "band-facts" },
        settings.project && fact("Project", settings.project),
        settings.environment && fact("Environment", settings.environment),
        schedule && fact("Schedule", h("code", {}, schedule.evaluation_schedule), ` ${schedule.evaluation_timezone}`),
        schedule && fact("Next slot", schedule.next_slots.length ? time(schedule.next_slots[0]) : "none: paused"),
        fact("Times in", zoneField(schedule, page.rezone))),
      h("div", { class: "buttons" }, actionButton("Send a test alert", "quiet small-button", () => ask(page.context, testAlert(page))), schedule && !schedule.pause && pauseButton(page, "Pause", null))),
    problem && h("p", { class: "small" }, `The schedule could not be read: ${problem}`),
    schedule?.pause && pauseNotice(schedule.pause, page),
    schedule?.engine_pause && engineNotice(schedule.engine_pause, page),
  ];
}

function zoneField(schedule, rezone) {
  const chosen = localStorage.getItem(ZONE) ?? "browser";
  const zones = [["browser", BROWSER_ZONE, "This browser"], ...(schedule ? [["schedule", schedule.evaluation_timezone, "The schedule"]] : []), ["UTC", "UTC", "Universal"]];
  return h("select", { "aria-label": "Time zone of all times", "data-key": "zone", onchange: (event) => rezone(event.target.value) },
    zones.map(([value, name, whose]) => h("optgroup", { label: whose }, h("option", { value, selected: value === chosen }, name))));
}

function pauseNotice({ paused_at: at, paused_by: by, until, reason }, page) {
  return h("div", { class: "notice tone-warning" }, sign("cancelled"),
    h("div", { class: "notice-text" },
      h("p", {}, h("strong", {}, "Paused"), " since ", time(at), ` by ${by}`, until ? [" until ", time(until)] : ", until it is resumed", ". No slot opens; a run under way goes on."),
      reason && h("p", { class: "quoted" }, reason)),
    h("div", { class: "buttons" }, pauseButton(page, "Change the pause", { until, reason }), actionButton("Resume", "primary", () => ask(page.context, {
      title: "Resume the schedule?",
      explanation: ["Slots open again from now on. Those of the pause are not caught up."],
      confirm: "Resume",
      act: () => changeSchedule({ paused: false }),
      done: (answer) => page.changed(answer, "The schedule is resumed."),
    }))));
}

function engineNotice({ until, outages }, page) {
  return h("div", { class: "notice tone-warning" }, sign("late"),
    h("p", { class: "notice-text" }, h("strong", {}, "The engine is not called"), " before ", time(until, "exact"), `: ${counted(outages, "outage")} in a row.`),
    h("div", { class: "buttons" }, actionButton("Try the engine now", "", () => ask(page.context, {
      title: "Try the engine now?",
      explanation: ["Ends the wait and requests a slice. If the engine is still unavailable, the wait begins anew."],
      confirm: "Try now",
      act: () => changeSchedule({ retry_engine: true }),
      done: (answer) => page.changed(answer, "The engine is tried now."),
    }))));
}

/** The button that pauses, or changes the pause in force. */
function pauseButton(page, text, pause) {
  return actionButton(text, pause ? "" : "small-button", () => ask(page.context, {
    title: pause ? "Change the pause" : "Pause the schedule?",
    explanation: ["While paused no slot opens; the one that falls due is recorded as skipped, once. A run under way goes on, manual runs are possible, and nothing is caught up afterwards."],
    fields: [
      field("Reason", "for people", h("input", { name: "reason", maxlength: 300, autocomplete: "off", value: pause?.reason })),
      field("Until", `in ${shownZone()}; empty: until it is resumed`, h("input", { name: "until", type: "datetime-local", value: pause?.until && clockText(pause.until).slice(0, 16) })),
    ],
    confirm: pause ? "Save" : "Pause",
    act: (values) => changeSchedule({ paused: true, reason: values.get("reason").trim() || null, until: values.get("until") ? momentOf(values.get("until")) : null }),
    done: (answer) => page.changed(answer, answer.pause?.until ? `Paused until ${momentText(answer.pause.until)}.` : "Paused."),
  }));
}

/** The dialog that sends a test alert. */
function testAlert({ say }) {
  return {
    title: "Send a test alert?",
    explanation: ["Sends one message to ALERT_WEBHOOK_URL, marked as a test."],
    confirm: "Send",
    act: sendTestAlert,
    done: () => say("The test alert was delivered."),
  };
}
