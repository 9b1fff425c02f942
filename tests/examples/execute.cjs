// One execution of an Apps Script function, as Google would start it: fresh globals, and what is kept, kept in files.
//
//   node execute.cjs '{"code": "Code.gs", "store": "/folder", "function": "syncBacklog", "now": 0, "ui": true}'
//
// Writes what happens to stdout, a line of JSON each. After {"slept": …} it waits for a line on stdin: while the script
// sleeps, a test can change the world. Requests go over the wire, by curl; the clock only goes on while it sleeps and,
// with "impatient", by as long as the server would have held a long poll, which is then asked for without one.
'use strict';
const { execFileSync } = require('node:child_process');
const { randomUUID } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const vm = require('node:vm');

const given = JSON.parse(process.argv[2]);
let clock = given.now;

function told(event) {
  fs.writeSync(1, JSON.stringify(event) + '\n');
}

function kept(name, otherwise) {
  const file = path.join(given.store, `${name}.json`);
  return {
    read: () => (fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : otherwise),
    write: (value) => fs.writeFileSync(file, JSON.stringify(value)),
  };
}

function properties(name) {
  const file = kept(name, {});
  return {
    getProperty: (key) => file.read()[key] ?? null,
    setProperty: (key, value) => {
      if (typeof value !== 'string' || value.length > 9 * 1024) throw new Error('Invalid argument: value');
      file.write({ ...file.read(), [key]: value });
    },
    deleteProperty: (key) => {
      const all = file.read();
      delete all[key];
      file.write(all);
    },
  };
}

const nap = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);

const lock = {
  folder: path.join(given.store, 'lock'),
  waitLock(milliseconds) {
    for (let left = milliseconds; left > 0; left -= 10) {
      try {
        return fs.mkdirSync(lock.folder);
      } catch {
        nap();
      }
    }
    throw new Error('Lock timeout: another process was holding the lock for too long.');
  },
  releaseLock: () => fs.rmdirSync(lock.folder),
};

const triggers = kept('triggers', []);
const asTrigger = ({ id, handler }) => ({ getHandlerFunction: () => handler, getUniqueId: () => id });

const sheets = kept('sheets', {});

function sheet(name) {
  const change = (update) => sheets.write({ ...sheets.read(), [name]: { ...sheets.read()[name], ...update } });
  return {
    clearContents: () => change({ values: [] }),
    getMaxRows: () => sheets.read()[name].rows,
    insertRowsAfter: (_, count) => change({ rows: sheets.read()[name].rows + count }),
    getRange: (row, column, rows, columns) => ({
      setValues(values) {
        if (row + rows - 1 > sheets.read()[name].rows) throw new Error('The range is outside of the sheet.');
        if (values.length !== rows || values.some((each) => each.length !== columns)) {
          throw new Error('The number of cells in the data does not match the number in the range.');
        }
        change({ values });
      },
    }),
  };
}

function getUi() {
  if (!given.ui) throw new Error('Cannot call SpreadsheetApp.getUi() from this context.');
  const menu = {
    addItem: (label, handler) => (told({ item: label, handler }), menu),
    addToUi: () => undefined,
  };
  return {
    ButtonSet: { OK: 'OK' },
    alert: (title, detail) => told({ alert: `${title} ${detail}` }),
    createMenu: (name) => (told({ menu: name }), menu),
  };
}

function fetch(url, options) {
  const headers = { ...options.headers };
  if (options.contentType) headers['Content-Type'] = options.contentType;
  told({ fetched: url, method: options.method ?? 'get', headers });
  if (given.impatient && headers.Prefer) {
    clock += Number(headers.Prefer.split('=')[1]) * 1000;
    delete headers.Prefer;
  }
  const sent = Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
  const body = options.payload === undefined ? [] : ['--data-binary', options.payload];
  const call = ['-sS', '-i', '--max-time', '60', '-X', (options.method ?? 'get').toUpperCase(), ...sent, ...body, url];
  const answer = execFileSync('curl', call, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const [head, ...rest] = answer.split('\r\n\r\n');
  const [line, ...fields] = head.split('\r\n');
  const status = Number(line.split(' ')[1]);
  if (status >= 400 && !options.muteHttpExceptions) throw new Error(`Request failed returned code ${status}`);
  return {
    getResponseCode: () => status,
    getContentText: () => rest.join('\r\n\r\n'),
    getAllHeaders: () => Object.fromEntries(fields.map((field) => field.split(/: (.*)/s).slice(0, 2))),
  };
}

const context = vm.createContext({
  Date: class extends Date {
    constructor(...parts) {
      super(...(parts.length ? parts : [clock]));
    }
    static now() {
      return clock;
    }
  },
  LockService: { getDocumentLock: () => lock },
  PropertiesService: {
    getScriptProperties: () => properties('script'),
    getDocumentProperties: () => properties('document'),
  },
  ScriptApp: {
    getProjectTriggers: () => triggers.read().map(asTrigger),
    deleteTrigger: (gone) => triggers.write(triggers.read().filter(({ id }) => id !== gone.getUniqueId())),
    newTrigger: (handler) => ({
      timeBased: () => ({
        after: (pause) => ({
          create: () => triggers.write([...triggers.read(), { id: randomUUID(), handler, at: clock + pause }]),
        }),
      }),
    }),
  },
  SpreadsheetApp: {
    getUi,
    getActive: () => ({
      toast: (message) => told({ toast: message }),
      getSheetByName: (name) => (name in sheets.read() ? sheet(name) : null),
      insertSheet: (name) => (sheets.write({ ...sheets.read(), [name]: { rows: 10, values: [] } }), sheet(name)),
    }),
  },
  UrlFetchApp: { fetch },
  Utilities: {
    getUuid: randomUUID,
    sleep(milliseconds) {
      clock += milliseconds;
      told({ slept: milliseconds });
      fs.readSync(0, Buffer.alloc(1));
    },
  },
});
vm.runInContext(fs.readFileSync(given.code, 'utf8'), context, { filename: 'Code.gs' });
try {
  context[given.function]();
  told({ ended: clock });
} catch (error) {
  told({ failed: error.message, ended: clock });
}
