// Recovery with the JavaScript SDK: after cuts and restarts, from the cache, with deltas and filters.

import {
  assert, api, client, connected, count, main, network, next, publish, sleep, subscribed, token, unique, until, watch,
} from './lib.mjs';

const numbers = (pubs) => pubs.map((pub) => pub.data);
const range = (from, to) => [...Array(to - from + 1).keys()].map((n) => n + from);

// Subscribe behind a network, publish `before`, cut, publish `after`, heal; returns the second `subscribed` context.
async function away(channel, before, after, options = {}, make = (n) => n) {
  const net = await network();
  const made = await connected({}, net.url);
  const sub = await subscribed(made, channel, options);
  for (let n = 1; n <= before; n += 1) await publish(channel, make(n), options.publish);
  await count(sub, options.expected ?? before);
  const lost = next(sub, 'subscribing');
  net.cut();
  assert.equal((await lost).code, 1);
  for (let n = before + 1; n <= before + after; n += 1) await publish(channel, make(n), options.publish);
  const back = next(sub, 'subscribed');
  net.heal();
  return { sub, made, net, context: await back };
}

await main({
  async recovers_after_a_cut() {
    const channel = unique('recent');
    const { sub, context } = await away(channel, 3, 60);
    assert.deepEqual([context.wasRecovering, context.recovered, context.hasRecoveredPublications], [true, true, true]);
    await publish(channel, 64);
    const got = await count(sub, 64);
    assert.deepEqual(numbers(got), range(1, 64));
    assert.deepEqual(got.map((pub) => pub.offset), range(1, 64));
  },

  async recovers_when_asked_for() {
    const channel = unique('ask');
    const { sub, context } = await away(channel, 2, 5, { recoverable: true });
    assert.deepEqual([context.recoverable, context.wasRecovering, context.recovered], [true, true, true]);
    assert.deepEqual(numbers(await count(sub, 7)), range(1, 7));
    const plain = await away(unique('ask'), 2, 5);
    assert.deepEqual([plain.context.recoverable, plain.context.wasRecovering], [false, false]);
    await publish(plain.sub.channel, 'live');
    assert.deepEqual(numbers(await count(plain.sub, 3)), [1, 2, 'live']);
  },

  async recovers_nothing_when_nothing_was_missed() {
    const channel = unique('recent');
    const { sub, context } = await away(channel, 3, 0);
    assert.deepEqual([context.recovered, context.hasRecoveredPublications], [true, false]);
    await publish(channel, 4);
    assert.deepEqual(numbers(await count(sub, 4)), range(1, 4));
  },

  async recovers_from_a_given_position() {
    const channel = unique('recent');
    for (let n = 1; n <= 6; n += 1) await publish(channel, n);
    const { epoch } = await api('history', { channel, limit: 0 });
    const made = await connected();
    const sub = await subscribed(made, channel, { since: { offset: 4, epoch } });
    assert.deepEqual([sub.context.wasRecovering, sub.context.recovered], [true, true]);
    assert.deepEqual(numbers(await count(sub, 2)), [5, 6]);
  },

  async recovers_while_publishing_goes_on() {
    const channel = unique('recent');
    const net = await network();
    const made = await connected({}, net.url);
    const sub = await subscribed(made, channel);
    let sent = 0;
    let on = true;
    const publisher = (async () => {
      while (on && sent < 900) {
        sent += 1;
        await publish(channel, sent);
      }
    })();
    for (let cut = 0; cut < 4; cut += 1) {
      await sleep(60);
      const lost = next(sub, 'subscribing');
      const back = next(sub, 'subscribed');
      net.cut();
      await lost;
      await sleep(30);
      net.heal();
      assert.equal((await back).recovered, true);
    }
    on = false;
    await publisher;
    assert.deepEqual(numbers(await count(sub, sent)), range(1, sent));
    return { sent };
  },

  async tells_when_history_is_too_short() {
    const channel = unique('short');
    const { sub, context } = await away(channel, 2, 10);
    assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
    assert.equal(context.streamPosition.offset, 12);
    await publish(channel, 'live');
    const got = await count(sub, 3);
    assert.deepEqual([got[2].data, got[2].offset], ['live', 13]);
  },

  async recent_recovery_has_its_limit() {
    const channel = unique('recent');
    const net = await network();
    const made = await connected({}, net.url);
    const sub = await subscribed(made, channel);
    const lost = next(sub, 'subscribing');
    net.cut();
    await lost;
    const commands = range(1, 301).map((n) => ({ publish: { channel, data: n } }));
    await api('batch', { commands });
    const back = next(sub, 'subscribed');
    net.heal();
    assert.deepEqual([(await back).recovered, sub.got.length], [false, 0]);
  },

  async positions_without_recovery() {
    const made = await connected();
    const forced = await subscribed(made, unique('position'));
    assert.deepEqual([forced.context.positioned, forced.context.recoverable], [true, false]);
    const asked = await subscribed(made, unique('ask'), { positioned: true });
    assert.deepEqual([asked.context.positioned, asked.context.recoverable], [true, false]);
    const neither = await subscribed(made, unique('ask'));
    assert.deepEqual([neither.context.positioned, neither.context.recoverable], [false, false]);
  },

  async get_state_is_asked_again_when_recovery_fails() {
    const channel = unique('short');
    let asked = 0;
    const getState = async () => {
      asked += 1;
      const { offset, epoch } = await api('history', { channel, limit: 0 });
      return { offset, epoch };
    };
    await publish(channel, 'seed');
    const { sub, context } = await away(channel, 2, 10, { getState, minResubscribeDelay: 20 });
    assert.equal(asked, 2);
    assert.equal(context.recovered, true);
    await publish(channel, 'live');
    assert.equal((await count(sub, 3)).at(-1).data, 'live');
  },

  async cache_brings_the_newest() {
    const channel = unique('cache');
    const { sub, context } = await away(channel, 2, 5);
    assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
    assert.deepEqual(numbers(await count(sub, 3)), [1, 2, 7]);
    await publish(channel, 8);
    assert.deepEqual(numbers(await count(sub, 4)), [1, 2, 7, 8]);
    const current = await away(unique('cache'), 2, 0);
    assert.deepEqual([current.context.recovered, current.context.hasRecoveredPublications], [true, false]);
  },

  async cache_without_asking() {
    const channel = unique('autocache');
    await publish(channel, 'old');
    await publish(channel, 'newest');
    const made = await connected();
    const sub = await subscribed(made, channel);
    assert.deepEqual([sub.context.wasRecovering, sub.context.recovered], [true, true]);
    assert.deepEqual(numbers(await count(sub, 1)), ['newest']);
    const empty = await subscribed(made, unique('autocache'));
    await publish(empty.channel, 'first');
    assert.deepEqual(numbers(await count(empty, 1)), ['first']);
  },

  async deltas() {
    const text = 'the quick brown fox jumps over the lazy dog; '.repeat(20);
    const make = (n) => ({ n, text, list: range(1, n % 7), note: 'ünïcödé "quoted" \\ \n' });
    const channel = unique('delta');
    const made = await connected();
    const plain = await subscribed(await connected(), channel);
    const sub = await subscribed(made, channel, { delta: 'fossil' });
    for (let n = 1; n <= 10; n += 1) await publish(channel, make(n), { delta: true });
    await publish(channel, 'small', { delta: true });
    await publish(channel, make(12));
    await publish(channel, make(13), { delta: true });
    const expected = [...range(1, 10).map(make), 'small', make(12), make(13)];
    assert.deepEqual(numbers(await count(plain, 13)), expected);
    assert.deepEqual(numbers(await count(sub, 13)), expected);
    const stats = sub.deltaStats();
    assert.equal(stats.numPublications, 13);
    assert.ok(stats.numDeltaPayloads >= 9, JSON.stringify(stats));
    assert.ok(stats.bytesReceived < stats.bytesDecoded / 2, JSON.stringify(stats));
    assert.deepEqual(numbers((await sub.history({ limit: 100 })).publications), expected);
    return stats;
  },

  async deltas_of_every_publication() {
    const text = 'lorem ipsum dolor sit amet '.repeat(20);
    const channel = unique('alldelta');
    const sub = await subscribed(await connected(), channel, { delta: 'fossil' });
    for (let n = 1; n <= 5; n += 1) await sub.publish({ n, text });
    assert.deepEqual(numbers(await count(sub, 5)), range(1, 5).map((n) => ({ n, text })));
    assert.equal(sub.deltaStats().numDeltaPayloads, 4);
  },

  async deltas_after_recovery() {
    const text = 'lorem ipsum dolor sit amet '.repeat(20);
    const make = (n) => ({ n, text });
    const channel = unique('delta');
    const { sub, context } = await away(channel, 3, 6, { delta: 'fossil', publish: { delta: true } }, make);
    assert.equal(context.recovered, true);
    for (let n = 10; n <= 12; n += 1) await publish(channel, make(n), { delta: true });
    assert.deepEqual(numbers(await count(sub, 12)), range(1, 12).map(make));
    // What is recovered comes in full; deltas go on from there.
    assert.ok(sub.deltaStats().numDeltaPayloads >= 4, JSON.stringify(sub.deltaStats()));
  },

  async tags_filters() {
    const channel = unique('tags');
    const made = await connected();
    const filters = {
      eq: [{ key: 'kind', cmp: 'eq', val: 'a' }, [1, 4]],
      neq: [{ key: 'kind', cmp: 'neq', val: 'a' }, [2, 3, 5, 6]],
      in: [{ key: 'kind', cmp: 'in', vals: ['a', 'b'] }, [1, 2, 4, 5]],
      gte: [{ key: 'size', cmp: 'gte', val: '10' }, [3, 4]],
      exists: [{ key: 'size', cmp: 'ex' }, [1, 2, 3, 4]],
      prefix: [{ key: 'kind', cmp: 'sw', val: 'lo' }, [3]],
      both: [{ op: 'and', nodes: [{ key: 'kind', cmp: 'eq', val: 'a' }, { key: 'size', cmp: 'lt', val: '5' }] }, [1]],
      not: [{ op: 'not', nodes: [{ key: 'size', cmp: 'ex' }] }, [5, 6]],
    };
    const subs = {};
    for (const [name, [tagsFilter]] of Object.entries(filters)) {
      subs[name] = await subscribed(name === 'eq' ? made : await connected(), channel, { tagsFilter });
    }
    const all = await subscribed(await connected(), channel);
    const tags = [{ kind: 'a', size: '2' }, { kind: 'b', size: '9.5' }, { kind: 'long', size: '10' }, { kind: 'a', size: '11' }, { kind: 'b' }];
    for (const [index, value] of tags.entries()) await publish(channel, index + 1, { tags: value });
    await publish(channel, 6);
    await count(all, 6);
    for (const [name, [, expected]] of Object.entries(filters)) {
      assert.deepEqual(numbers(await count(subs[name], expected.length)), expected, name);
    }
  },

  async tags_filter_and_recovery() {
    const channel = unique('tags');
    const net = await network();
    const made = await connected({}, net.url);
    const sub = await subscribed(made, channel, { tagsFilter: { key: 'parity', cmp: 'eq', val: 'even' } });
    const send = (n) => publish(channel, n, { tags: { parity: n % 2 ? 'odd' : 'even' } });
    for (let n = 1; n <= 5; n += 1) await send(n);
    await count(sub, 2);
    const lost = next(sub, 'subscribing');
    net.cut();
    await lost;
    for (let n = 6; n <= 11; n += 1) await send(n);
    const back = next(sub, 'subscribed');
    net.heal();
    assert.equal((await back).recovered, true);
    for (let n = 12; n <= 15; n += 1) await send(n);
    assert.deepEqual(numbers(await count(sub, 7)), [2, 4, 6, 8, 10, 12, 14]);
    assert.deepEqual(sub.log.filter((entry) => entry.event === 'unsubscribed'), []);
  },

  async durable_recovery_after_a_cut() {
    const channel = unique('durable');
    const { sub, context } = await away(channel, 3, 500);
    assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
    await publish(channel, 504);
    const got = await count(sub, 504);
    assert.deepEqual(numbers(got), range(1, 504));
    assert.deepEqual(got.map((pub) => pub.offset), range(1, 504));
  },

  async new_epoch_makes_the_client_subscribe_again() {
    const channel = unique('meta');
    const made = await connected();
    const sub = await subscribed(made, channel, { minResubscribeDelay: 20 });
    await publish(channel, 1);
    await count(sub, 1);
    const { epoch } = sub.context.streamPosition;
    const again = next(sub, 'subscribing', undefined, 15000);
    const back = next(sub, 'subscribed', undefined, 15000);
    // The stream's offset and epoch are forgotten after two seconds, unless the hub's check of positions comes between.
    for (let attempt = 0; attempt < 4 && !sub.log.some((entry) => entry.code === 2500); attempt += 1) {
      await sleep(2500);
      await publish(channel, 2);
      await made.rpc('echo', 'flush');
    }
    assert.equal((await again).code, 2500);
    const context = await back;
    assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
    assert.notEqual(context.streamPosition.epoch, epoch);
    await publish(channel, 3);
    await until(() => sub.got.some((pub) => pub.data === 3), 'the publication after it');
  },

  // The test stops and starts the hub when it reads "ready" and answers on standard input when that is done.
  async hub_restarts() {
    const made = await connected({ token: token({ channels: ['durable:server-side'] }) });
    const server = watch(made);
    const durable = await subscribed(made, 'durable:restart');
    const recent = await subscribed(made, 'recent:restart');
    for (let n = 1; n <= 3; n += 1) await Promise.all([publish('durable:restart', n), publish('recent:restart', n)]);
    await Promise.all([count(durable, 3), count(recent, 3)]);
    const lost = next(made, 'connecting');
    const back = [next(durable, 'subscribed', undefined, 30000), next(recent, 'subscribed', undefined, 30000)];
    process.stdout.write('ready\n');
    const { code } = await lost;
    await new Promise((resolve) => process.stdin.once('data', resolve));
    const [first, second] = await Promise.all(back);
    assert.deepEqual([first.wasRecovering, first.recovered], [true, true]);
    assert.deepEqual([second.wasRecovering, second.recovered], [true, false]);
    for (let n = 4; n <= 6; n += 1) await Promise.all([publish('durable:restart', n), publish('recent:restart', n)]);
    await publish('durable:server-side', 'hello again');
    assert.deepEqual(numbers(await count(durable, 6)), range(1, 6));
    assert.deepEqual(numbers(await count(recent, 6)), range(1, 6));
    assert.deepEqual(numbers(await count(server, 1)), ['hello again']);
    return { code };
  },

  async twenty_thousand_missed() {
    const total = 20000;
    const size = 500;
    const channel = unique('durable');
    const net = await network();
    const made = await connected({}, net.url);
    const sub = await subscribed(made, channel);
    await publish(channel, { n: 0 });
    await count(sub, 1);
    const lost = next(sub, 'subscribing');
    net.cut();
    await lost;
    const started = Date.now();
    let attempted = 0;
    for (let first = 1; first <= total; first += size) {
      const commands = range(first, first + size - 1).map((n) => ({ publish: { channel, data: { n } } }));
      attempted += commands.length;
      const { replies } = await api('batch', { commands });
      assert.deepEqual(replies.map((reply) => reply.publish?.offset), range(first + 1, first + size));
    }
    const published = Date.now();
    const memory = process.memoryUsage().rss;
    const back = next(sub, 'subscribed');
    net.heal();
    const context = await back;
    await publish(channel, { n: total + 1 });
    await count(sub, total + 2, 60000);
    const ended = Date.now();
    await sleep(200);
    const last = sub.got.findIndex((pub) => pub.data.n === total + 1);
    const missed = sub.got.filter((pub) => pub.data.n > 0 && pub.data.n <= total);
    const seen = new Map();
    for (const pub of missed) seen.set(pub.data.n, (seen.get(pub.data.n) ?? 0) + 1);
    const outcome = {
      attempted,
      delivered: missed.length,
      lost: range(1, total).filter((n) => !seen.has(n)).length,
      duplicated: [...seen.values()].filter((times) => times > 1).length,
      out_of_order: missed.filter((pub, index) => index > 0 && pub.offset !== missed[index - 1].offset + 1).length,
      recovered: context.recovered,
      was_recovering: context.wasRecovering,
      resubscribed: sub.log.filter((entry) => entry.event === 'subscribed').length - 2,
      publish_ms: published - started,
      recover_ms: ended - published,
      client_growth_mib: Math.round((process.memoryUsage().rss - memory) / 2 ** 20),
    };
    assert.equal(last, sub.got.length - 1, JSON.stringify({ ...outcome, last, events: sub.log.filter((entry) => entry.event !== 'publication') }));
    return outcome;
  },
});
