// Runs in every document before the page's own scripts. PAGE_LIMIT is filled in by script.rs.
(() => {
  'use strict';
  // The page may replace what it finds in its globals: keep what is needed later.
  const { Promise, Object, reportError } = window;

  // A link to another program (mailto:, a meeting client) opens a question that nobody can answer.
  const web = { __proto__: null, 'http': 1, 'https': 1, 'about': 1, 'blob': 1, 'data': 1, 'javascript': 1 };
  window.navigation?.addEventListener('navigate', (event) => {
    const url = event.destination.url;
    if (event.cancelable && !web[url.slice(0, url.indexOf(':'))]) event.preventDefault();
  });

  if (window !== window.top) return;

  // Calls wait here until the recorder asks for the next one, so a page that calls in a loop floods nobody.
  const calls = { __proto__: null }, callbacks = { __proto__: null };
  let head = 0, tail = 0, open = 0, count = 0, waiting = null;
  const document_mark = window.performance.timeOrigin + '-' + window.Math.random();

  const call = (action, callback) => {
    if (tail - head >= PAGE_LIMIT) return;
    let id = '';
    if (typeof callback === 'function' && open < PAGE_LIMIT) {
      id = document_mark + '-' + ++count;
      callbacks[id] = callback;
      open++;
    }
    calls[tail++] = action + ' ' + id;
    if (waiting) {
      const resolve = waiting;
      waiting = null;
      resolve(take());
    }
  };
  const take = () => {
    const entry = calls[head];
    delete calls[head++];
    return entry;
  };
  const next = () => new Promise((resolve) => {
    if (head < tail) resolve(take());
    else waiting = resolve;
  });
  const done = (id) => {
    const callback = callbacks[id];
    if (!callback) return;
    delete callbacks[id];
    open--;
    try { callback(); } catch (error) { reportError(error); }
  };

  // Writable and configurable, so a page that declares such a name itself gets its own and no exception.
  const offer = (name, value) =>
    Object.defineProperty(window, name, { value, writable: true, configurable: true, enumerable: false });
  offer('startRecord', function startRecord(callback) { call('start', callback); });
  offer('pauseRecord', function pauseRecord(callback) { call('pause', callback); });
  offer('resumeRecord', function resumeRecord(callback) { call('resume', callback); });
  offer('refreshPage', function refreshPage(callback) { call('refresh', callback); });
  offer('stopRecord', function stopRecord(callback) { call('stop', callback); });
  Object.defineProperty(window, '__panorec', { value: Object.freeze({ __proto__: null, next, done }) });
})();
