/**
 * A menu in a Google Sheet that runs an action of Runledger and writes its result into the sheet.
 *
 * Set up (Extensions → Apps Script): paste this file and appsscript.json; then, under Project Settings → Script
 * Properties:
 *
 *   RUNLEDGER_URL       where the API is, such as https://runledger.example.com
 *   ROADMAP_AI_SECRET   the shared secret that the API knows
 *   ACTION              the action to run; sync_backlog if not set
 *   PARAMS              its params as JSON; {} if not set
 *
 * How it stays safe: what is asked for is written down, with its idempotency key, before it is sent; so a second click,
 * a lost answer or a script that was stopped leads to the same run. An execution of Apps Script may take six minutes:
 * after five, a trigger goes on with it.
 */

const SHEET = 'Sync backlog';
const SYNC = 'sync'; // The document property: {key, body, at, path, turn, busyUntil}.
const EXECUTION_MS = 6 * 60e3; // Apps Script stops an execution after that.
const MENU_BUDGET_MS = 5 * 60e3;
const TRIGGER_BUDGET_MS = 60e3; // Triggers have a quota of minutes a day.
const LONGEST_TURN_MS = 15 * 60e3;
const KEY_LIFE_MS = 23 * 3600e3; // The API knows a key for a day.
const WAIT_SECONDS = 25; // UrlFetchApp gives up after 60.
const LONGEST_PAUSE_MS = 30e3;
const LONGEST_CELL = 49e3; // Sheets takes 50,000 characters.
const FINAL = ['succeeded', 'failed', 'cancelled'];

/** When the sheet is opened. */
function onOpen() {
  SpreadsheetApp.getUi().createMenu('Roadmap').addItem('Sync backlog', 'syncBacklog').addToUi();
}

/** The menu item. */
function syncBacklog() {
  const sync = begin_();
  tell_(sync ? 'Syncing …' : 'A sync is already under way. Its result will be written into this sheet.');
  if (sync) goOn_(sync, MENU_BUDGET_MS);
}

/** What the trigger calls while a run takes longer than an execution may. */
function continueSync() {
  deleteTriggers_();
  const sync = resume_();
  if (sync) goOn_(sync, TRIGGER_BUDGET_MS);
}

/** Submits unless that is done, polls until the run has ended, and hands over when the time of this execution is up. */
function goOn_(sync, budget) {
  const deadline = Date.now() + budget;
  try {
    if (!sync.path) submit_(sync, deadline);
    finish_(poll_(sync, deadline));
  } catch (problem) {
    if (problem instanceof NotYet) handOver_(sync, problem);
    else if (problem instanceof Refused) giveUp_(sync, problem);
    else {
      // Nobody knows how far it came: another click goes on with the same key.
      letGo_(sync);
      throw problem;
    }
  }
}

function submit_(sync, deadline) {
  if (Date.now() - sync.at > KEY_LIFE_MS) {
    throw new Refused('Runledger could not be reached for a day. Nothing is known to have been started; sync again.');
  }
  const answer = request_(deadline, '/runs', {
    method: 'post',
    contentType: 'application/json',
    payload: sync.body,
    headers: { 'Idempotency-Key': sync.key },
  });
  sync.path = answer.headers.location;
  store_(sync);
}

function poll_(sync, deadline) {
  for (let looks = 0; ; looks++) {
    const answer = request_(deadline, sync.path, { headers: { Prefer: `wait=${WAIT_SECONDS}` } });
    const run = JSON.parse(answer.text);
    if (FINAL.includes(run.state)) return run;
    pause_(looks, answer.headers, deadline, `The run is ${run.state}.`);
  }
}

/** An answer of 2xx. What may pass (no answer, 408, 429, 5xx, a key in flight) is tried again until the deadline. */
function request_(deadline, path, options) {
  for (let tries = 0; ; tries++) {
    const answer = fetch_(path, options);
    if (answer.status >= 200 && answer.status < 300) return answer;
    if (!answer.mayPass) throw new Refused(explain_(answer), answer.status);
    pause_(tries, answer.headers, deadline, explain_(answer));
  }
}

function fetch_(path, options) {
  const headers = Object.assign({ 'X-ROADMAP-AI-SECRET': setting_('ROADMAP_AI_SECRET') }, options.headers);
  const url = setting_('RUNLEDGER_URL').replace(/\/+$/, '') + path;
  let response;
  try {
    // No redirects: the secret is for this address.
    const asked = Object.assign({}, options, { headers, muteHttpExceptions: true, followRedirects: false });
    response = UrlFetchApp.fetch(url, asked);
  } catch (error) {
    return { status: 0, mayPass: true, headers: {}, text: String(error.message || error) };
  }
  const status = response.getResponseCode();
  const answered = lowerCased_(response.getAllHeaders());
  const inFlight = status === 409 && 'retry-after' in answered;
  return {
    status,
    mayPass: status === 408 || status === 429 || status >= 500 || inFlight,
    headers: answered,
    text: response.getContentText(),
  };
}

/** Sleeps as long as the server asks, and at least 1, 2, 4 … 30 s with jitter; NotYet if that is longer than there is. */
function pause_(turn, headers, deadline, why) {
  const backoff = Math.min(1000 * 2 ** turn, LONGEST_PAUSE_MS) + Math.random() * 1000;
  const pause = Math.max(retryAfterMs_(headers['retry-after']), backoff);
  if (Date.now() + pause + (WAIT_SECONDS + 5) * 1000 > deadline) throw new NotYet(why, pause);
  Utilities.sleep(pause);
}

/** The time of this execution is up, and the run has not ended. To be looked at after `pause` milliseconds. */
class NotYet extends Error {
  constructor(message, pause) {
    super(message);
    this.pause = pause;
  }
}

/** The API said no, and will say no again. */
class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// What is under way: one sync at a time, in the properties of the document.

/** What to go on with: a new sync, or one whose execution was stopped; null while another execution has it. */
function begin_() {
  return claim_(
    (sync) =>
      sync || {
        key: Utilities.getUuid(),
        body: JSON.stringify({
          action: setting_('ACTION', 'sync_backlog'),
          params: json_('PARAMS', setting_('PARAMS', '{}')),
        }),
        at: Date.now(),
        turn: 0,
      },
  );
}

/** The sync that was handed over; null if it has ended, or another execution has it. */
function resume_() {
  return claim_((sync) => sync);
}

function claim_(choose) {
  return locked_((properties) => {
    const stored = properties.getProperty(SYNC);
    const sync = choose(stored && JSON.parse(stored));
    if (!sync || sync.busyUntil > Date.now()) return null;
    sync.busyUntil = Date.now() + EXECUTION_MS;
    properties.setProperty(SYNC, JSON.stringify(sync));
    return sync;
  });
}

function store_(sync) {
  locked_((properties) => properties.setProperty(SYNC, JSON.stringify(sync)));
}

function letGo_(sync) {
  sync.busyUntil = 0;
  store_(sync);
}

function forget_() {
  locked_((properties) => properties.deleteProperty(SYNC));
}

function locked_(work) {
  const lock = LockService.getDocumentLock();
  lock.waitLock(10e3);
  try {
    return work(PropertiesService.getDocumentProperties());
  } finally {
    lock.releaseLock();
  }
}

// Endings.

function handOver_(sync, notYet) {
  const pause = Math.max(notYet.pause, Math.min(60e3 * 2 ** sync.turn, LONGEST_TURN_MS));
  deleteTriggers_();
  ScriptApp.newTrigger('continueSync').timeBased().after(pause).create();
  sync.turn += 1;
  letGo_(sync);
  tell_(`${notYet.message} The sheet will be filled when it has ended; you need not wait.`);
}

function finish_(run) {
  write_(run);
  forget_();
  deleteTriggers_();
  if (run.state === 'succeeded') tell_('The backlog is synced.');
  else alert_(`The sync has ${run.state}.`, run.error ? run.error.detail || run.error.title : '');
}

function giveUp_(sync, problem) {
  // A secret can be set right, and the run is still there: another click goes on with it.
  if ([401, 403].includes(problem.status)) letGo_(sync);
  else forget_();
  deleteTriggers_();
  alert_('The sync did not work.', problem.message);
}

function deleteTriggers_() {
  ScriptApp.getProjectTriggers()
    .filter((trigger) => trigger.getHandlerFunction() === 'continueSync')
    .forEach((trigger) => ScriptApp.deleteTrigger(trigger));
}

/** Replaces what the sheet shows: a line about each member of the run, then of its result, however deep. */
function write_(run) {
  const rows = [
    ['run', run.id],
    ['state', run.state],
    ['started', run.started_at],
    ['finished', run.finished_at],
    ...lines_('error', run.error),
    ...lines_('result', run.result),
  ].map((row) => row.map(cell_));
  const spreadsheet = SpreadsheetApp.getActive();
  const sheet = spreadsheet.getSheetByName(SHEET) || spreadsheet.insertSheet(SHEET);
  sheet.clearContents();
  const missing = rows.length - sheet.getMaxRows();
  if (missing > 0) sheet.insertRowsAfter(sheet.getMaxRows(), missing);
  sheet.getRange(1, 1, rows.length, 2).setValues(rows);
}

function lines_(name, value) {
  if (value === null || value === undefined) return [];
  if (typeof value !== 'object') return [[name, value]];
  return Object.keys(value).flatMap((key) => lines_(`${name}.${key}`, value[key]));
}

/** A value as Sheets takes it; text that Sheets would take for a formula stays text. */
function cell_(value) {
  if (value === null || value === undefined) return '';
  if (typeof value !== 'string') return value;
  return (/^[=+\-@]/.test(value) ? `'${value}` : value).slice(0, LONGEST_CELL);
}

function tell_(message) {
  SpreadsheetApp.getActive().toast(message, SHEET, 10);
}

function alert_(title, detail) {
  try {
    SpreadsheetApp.getUi().alert(title, detail, SpreadsheetApp.getUi().ButtonSet.OK);
  } catch (error) {
    // A trigger has nobody in front of it.
    tell_(`${title} ${detail}`);
  }
}

// Small things.

function setting_(name, otherwise) {
  const value = PropertiesService.getScriptProperties().getProperty(name) || otherwise;
  if (value === undefined) throw new Error(`Set the script property ${name} (Project Settings → Script Properties).`);
  return value;
}

function json_(name, text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`The script property ${name} is not JSON: ${error.message}`);
  }
}

function lowerCased_(headers) {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

function retryAfterMs_(value) {
  if (!value) return 0;
  return /^\d+$/.test(value) ? Number(value) * 1000 : Math.max(Date.parse(value) - Date.now(), 0) || 0;
}

/** An answer that is not a success, in words: the problem document's own, if it is one. */
function explain_(answer) {
  if (answer.status === 0) return `Runledger cannot be reached: ${answer.text}`;
  try {
    const problem = JSON.parse(answer.text);
    const faults = (problem.errors || []).map((fault) => `${fault.pointer}: ${fault.detail}`);
    return [`${problem.title} (${answer.status}).`, problem.detail, ...faults].filter(Boolean).join(' ');
  } catch (error) {
    return `Runledger answered ${answer.status}.`;
  }
}
