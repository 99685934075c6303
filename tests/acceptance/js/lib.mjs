// Shared by the scenarios: who the hub is, tokens, server API, events to wait for, a network that can be cut.

import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import net from 'node:net';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

export { assert };
export const URL = process.env.HUB_WS_URL;
export const API = process.env.HUB_API_URL;
const API_KEY = process.env.HUB_API_KEY;
const SECRET = process.env.HUB_TOKEN_SECRET;
const clients = [];
const sockets = [];

// The SDK's versions before 5.8 mix up frames of several messages that `ws` emits in one tick; 5.8 keeps their order.
class TrackedSocket extends WebSocket {
  constructor(...args) {
    super(...args);
    sockets.push(this);
  }
}

export const now = () => Math.floor(Date.now() / 1000);
export const unique = (namespace) => `${namespace}:${randomUUID()}`;
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function token(claims = {}, secret = SECRET) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub: 'js', exp: now() + 3600, ...claims })}`;
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}

export function client(options = {}, url = URL) {
  const made = new Centrifuge(url, {
    websocket: TrackedSocket,
    token: options.getToken ? '' : token(),
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
    ...options,
  });
  made.errors = [];
  made.on('error', (context) => made.errors.push(context));
  clients.push(made);
  return made;
}

export async function connected(options = {}, url = URL) {
  const made = client(options, url);
  const done = next(made, 'connected');
  made.connect();
  made.context = await done;
  return made;
}

// The newest socket, to look at or to cut.
export const socket = () => sockets[sockets.length - 1];
export const socketCount = () => sockets.length;

// The next event of this name, bounded in time.
export function next(emitter, event, match = () => true, ms = 10000) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      emitter.off(event, handler);
      reject(new Error(`no '${event}' event within ${ms} ms`));
    }, ms);
    const handler = (context) => {
      if (!match(context)) return;
      clearTimeout(timer);
      emitter.off(event, handler);
      resolve(context);
    };
    emitter.on(event, handler);
  });
}

// Subscribe and wait until it is done; `sub.got` gathers the publications, `sub.log` all events.
export async function subscribed(made, channel, options = {}) {
  const sub = watch(made.newSubscription(channel, options));
  const done = next(sub, 'subscribed');
  sub.subscribe();
  sub.context = await done;
  return sub;
}

export function watch(emitter) {
  emitter.got = [];
  emitter.log = [];
  for (const event of ['subscribing', 'subscribed', 'unsubscribed', 'join', 'leave', 'error', 'publication']) {
    emitter.on(event, (context) => emitter.log.push({ event, ...context }));
  }
  emitter.on('publication', (context) => emitter.got.push(context));
  return emitter;
}

// Wait until the emitter (see watch) has so many publications.
export async function count(emitter, number, ms = 10000) {
  await until(() => emitter.got.length >= number, `${number} publications`, ms, () => `got ${emitter.got.length}`);
  return emitter.got;
}

export async function until(condition, what = 'a condition', ms = 10000, state = () => '') {
  const end = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms for ${what}; ${state()}`);
    await sleep(5);
  }
}

export async function api(method, payload = {}) {
  const response = await fetch(`${API}/${method}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-API-Key': API_KEY },
    body: JSON.stringify(payload),
  });
  assert.equal(response.status, 200, `${method}: HTTP ${response.status}`);
  const answer = await response.json();
  assert.ok(!answer.error, `${method}: ${JSON.stringify(answer.error)}`);
  return answer.result ?? answer;
}

export const publish = (channel, data, rest = {}) => api('publish', { channel, data, ...rest });

// An error that the SDK must throw, by its code.
export async function fails(promise, code) {
  let error;
  try {
    await promise;
  } catch (caught) {
    error = caught;
  }
  assert.ok(error, `expected error ${code}, but it succeeded`);
  assert.equal(error.code, code, `expected error ${code}: ${JSON.stringify(error)}`);
  return error;
}

// A relay in front of the hub: cut() resets what is open and refuses more until heal().
export async function network() {
  const target = new globalThis.URL(URL);
  const open = new Set();
  let off = false;
  const server = net.createServer((near) => {
    if (off) return near.destroy();
    const far = net.connect(Number(target.port), target.hostname);
    for (const [one, other] of [[near, far], [far, near]]) {
      open.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `ws://127.0.0.1:${server.address().port}${target.pathname}`,
    cut() {
      off = true;
      for (const one of open) one.resetAndDestroy();
    },
    heal() {
      off = false;
    },
  };
}

// Run the scenario named on the command line; always exit, with one line of JSON about the result.
export async function main(scenarios) {
  const name = process.argv[2];
  if (name === '--list') {
    console.log(Object.keys(scenarios).join('\n'));
    process.exit(0);
  }
  const limit = Number(process.env.SCENARIO_TIMEOUT_MS ?? 30000);
  const finish = (code, report) => process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(code));
  const timer = setTimeout(() => finish(3, { ok: false, error: `the scenario ran for more than ${limit} ms` }), limit);
  process.on('uncaughtException', (error) => finish(4, { ok: false, error: `uncaught: ${error.stack}` }));
  process.on('unhandledRejection', (error) => finish(4, { ok: false, error: `unhandled: ${error?.stack ?? error}` }));
  const scenario = scenarios[name];
  if (!scenario) return finish(2, { ok: false, error: `no scenario named ${name}` });
  try {
    const result = await scenario();
    clearTimeout(timer);
    for (const made of clients) made.disconnect();
    finish(0, { ok: true, result: result ?? null });
  } catch (error) {
    const errors = clients.flatMap((made) => made.errors).map((context) => context.error);
    finish(1, { ok: false, error: `${error.stack ?? JSON.stringify(error)}`, client_errors: errors.slice(-5) });
  }
}
