// Connections with the JavaScript SDK: connect, tokens and their refresh, calls, close codes, pings.

import {
  assert, api, client, connected, count, fails, main, network, next, now, publish, sleep, socket, socketCount,
  subscribed, token, unique, until, watch,
} from './lib.mjs';

await main({
  async connects_and_disconnects() {
    const made = client({ name: 'js-test', version: '1.2.3' });
    const connecting = next(made, 'connecting');
    const done = next(made, 'connected');
    made.connect();
    assert.equal((await connecting).code, 0);
    await made.ready(5000);
    const context = await done;
    assert.equal(context.transport, 'websocket');
    assert.match(context.client, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    const gone = next(made, 'disconnected');
    made.disconnect();
    assert.equal((await gone).code, 0);
    const again = next(made, 'connected');
    made.connect();
    assert.notEqual((await again).client, context.client);
  },

  async connect_data_reaches_the_application() {
    const made = await connected({ name: 'js-test', version: '7', data: { app: { info: { nick: 'J' } } } });
    assert.deepEqual(made.context.data, { name: 'js-test', version: '7', user: 'js' });
    assert.deepEqual((await made.rpc('whoami', null)).data.info, { nick: 'J' });
  },

  async application_lets_a_guest_in() {
    const made = await connected({ token: '', data: { app: { user: 'guest7' } } });
    assert.equal(made.context.data.user, null);
    assert.equal((await made.rpc('whoami', null)).data.user, 'guest7');
  },

  async application_refuses_connections() {
    for (const [wish, code] of [[{ refuse: 1040 }, 1040], [{ disconnect: 4510 }, 4510]]) {
      const made = client({ data: { app: wish } });
      const gone = next(made, 'disconnected');
      made.connect();
      assert.equal((await gone).code, code);
    }
  },

  async application_gives_channels() {
    const channel = unique('recent');
    const made = watch(client({ data: { app: { channels: [channel] } } }));
    const done = next(made, 'subscribed');
    made.connect();
    assert.equal((await done).channel, channel);
    await publish(channel, 'hello');
    assert.equal((await count(made, 1))[0].data, 'hello');
  },

  async no_token_is_a_bad_request() {
    const made = client({ token: '' });
    const gone = next(made, 'disconnected');
    made.connect();
    assert.equal((await gone).code, 3501);
  },

  async invalid_tokens_are_terminal() {
    const good = token();
    const [head, body, signature] = good.split('.');
    const none = Buffer.from('{"alg":"none","typ":"JWT"}').toString('base64url');
    const bad = {
      forged: token({}, 'another-secret-of-at-least-32-bytes-length'),
      altered: `${head}.${Buffer.from(JSON.stringify({ sub: 'root' })).toString('base64url')}.${signature}`,
      unsigned: `${none}.${body}.`,
      'of a subscription': token({ channel: 'plain:x' }),
      garbage: 'garbage',
    };
    for (const [kind, value] of Object.entries(bad)) {
      const made = client({ token: value });
      const gone = next(made, 'disconnected');
      made.connect();
      assert.equal((await gone).code, 3500, kind);
    }
  },

  async expired_token_on_connect_is_renewed() {
    let asked = 0;
    const made = await connected({
      token: token({ exp: now() - 10 }),
      getToken: async () => {
        asked += 1;
        return token();
      },
    });
    assert.equal(asked, 1);
    assert.equal(made.errors[0]?.error.code, 109);
    await made.rpc('echo', 1);
  },

  async get_token_supplies_the_first_token() {
    const made = await connected({ getToken: async () => token({ sub: 'late' }) });
    assert.equal((await made.rpc('whoami', null)).data.user, 'late');
  },

  async token_claims_reach_presence_and_meta() {
    const made = await connected({ token: token({ info: { name: 'Ann' }, meta: { plan: 'free' } }) });
    const who = (await made.rpc('whoami', null)).data;
    assert.deepEqual([who.user, who.info, who.meta, who.client], ['js', { name: 'Ann' }, { plan: 'free' }, made.context.client]);
  },

  async an_application_publishes_and_sends() {
    const made = await connected();
    const channel = unique('durable');
    const sub = await subscribed(made, channel);
    const message = next(made, 'message');
    const { data } = await made.rpc('announce', { channel });
    assert.equal(data.offset, 1);
    assert.ok(data.epoch);
    assert.deepEqual([data.sent, data.nobody], [true, false]);
    assert.deepEqual((await message).data, { published: 1 });
    const [pub] = await count(sub, 1);
    assert.equal(pub.offset, 1);
    assert.deepEqual(pub.tags, { kind: 'announcement' });
    await fails(made.rpc('announce', { channel: 'nowhere:x' }), 102);
  },

  async rpc_results_and_errors() {
    const made = await connected();
    assert.deepEqual((await made.rpc('echo', { a: [1, 2.5, null, 'ü\n'] })).data, { a: [1, 2.5, null, 'ü\n'] });
    await fails(made.rpc('nothing', {}), 104);
    const refused = await fails(made.rpc('refuse', {}), 1042);
    assert.deepEqual([refused.message, refused.temporary], ['not today', true]);
    await fails(made.rpc('crash', {}), 100);
    assert.equal((await made.rpc('echo', 'still here')).data, 'still here');
    const gone = next(made, 'disconnected');
    made.rpc('kick', {}).catch(() => {});
    assert.deepEqual([(await gone).code], [4501]);
  },

  async send_reaches_the_application() {
    const made = await connected({ token: token({ sub: 'sender' }) });
    await made.send({ n: 1 });
    await made.send({ n: 2 });
    const seen = await made.rpc('seen', 'sender');
    assert.deepEqual(seen.data.messages, [{ n: 1 }, { n: 2 }]);
  },

  async application_hears_of_the_end() {
    const made = await connected({ token: token({ sub: 'leaver' }) });
    const id = made.context.client;
    made.disconnect();
    const other = await connected();
    await until(async () => {
      const { disconnects } = (await other.rpc('seen', 'leaver')).data;
      return disconnects.some((entry) => entry.client === id && entry.code === 3000);
    }, 'on_disconnect');
  },

  async commands_batched_into_one_frame() {
    const made = await connected();
    const channel = unique('recent');
    const sub = await subscribed(made, channel);
    const frames = [];
    const send = socket().send.bind(socket());
    socket().send = (data, ...rest) => {
      frames.push(String(data));
      return send(data, ...rest);
    };
    made.startBatching();
    const calls = [];
    for (let n = 0; n < 20; n += 1) calls.push(sub.publish({ n }));
    calls.push(made.rpc('echo', 'last'));
    made.stopBatching();
    await Promise.all(calls);
    assert.equal(frames.length, 1);
    assert.equal(frames[0].trim().split('\n').length, 21);
    const got = await count(sub, 20);
    assert.deepEqual(got.map((pub) => pub.data.n), [...Array(20).keys()]);
    assert.deepEqual(got.map((pub) => pub.offset), [...Array(20).keys()].map((n) => n + 1));
  },

  async api_disconnect() {
    const user = unique('user');
    const [one, two] = [await connected({ token: token({ sub: user }) }), await connected({ token: token({ sub: user }) })];
    const gone = next(one, 'disconnected');
    await api('disconnect', { user, whitelist: [two.context.client] });
    assert.deepEqual(await gone, { code: 3503, reason: 'force disconnect' });
    await two.rpc('echo', 1);
    const back = next(two, 'connecting');
    const after = next(two, 'connected');
    await api('disconnect', { user, disconnect: { code: 4001, reason: 'come back' } });
    assert.deepEqual(await back, { code: 4001, reason: 'come back' });
    await after;
    const last = next(two, 'disconnected');
    await api('disconnect', { user, client: two.context.client });
    await api('disconnect', { user, disconnect: { code: 4700, reason: 'stay away' } });
    assert.deepEqual(await last, { code: 4700, reason: 'stay away' });
  },

  async oversized_message_is_terminal() {
    const made = await connected();
    const gone = next(made, 'disconnected');
    made.rpc('echo', 'x'.repeat(70000)).catch(() => {});
    assert.equal((await gone).code, 3);
  },

  async reconnects_after_a_cut() {
    const net = await network();
    const made = await connected({}, net.url);
    const first = made.context.client;
    const lost = next(made, 'connecting');
    net.cut();
    assert.equal((await lost).code, 1);
    const back = next(made, 'connected');
    net.heal();
    assert.notEqual((await back).client, first);
  },

  // From here on with short times: expired_close_delay and expired_sub_close_delay 1 s, ping_interval 2 s.

  async token_refreshed_on_the_live_connection() {
    let asked = 0;
    const made = await connected({
      token: token({ exp: now() + 2 }),
      getToken: async () => {
        asked += 1;
        return token();
      },
    });
    const events = [];
    made.on('connecting', (context) => events.push(context));
    made.on('disconnected', (context) => events.push(context));
    await until(() => asked === 1, 'getToken');
    await sleep(3500); // Longer than an unrefreshed connection would live.
    assert.deepEqual(events, []);
    assert.equal((await made.rpc('whoami', null)).data.client, made.context.client);
  },

  async refresh_with_an_expired_token_reconnects() {
    const given = [];
    const made = await connected({
      token: token({ exp: now() + 2 }),
      getToken: async () => {
        given.push(given.length ? token() : token({ exp: now() - 5 }));
        return given.at(-1);
      },
    });
    const lost = next(made, 'connecting');
    const back = next(made, 'connected');
    assert.equal((await lost).code, 3005);
    await back;
    assert.equal(given.length, 2);
  },

  async refresh_with_an_invalid_token_is_terminal() {
    for (const value of ['rubbish', token({ sub: 'someone else' })]) {
      const made = await connected({ token: token({ exp: now() + 2 }), getToken: async () => value });
      assert.equal((await next(made, 'disconnected')).code, 3500);
    }
  },

  async refresh_that_changes_the_channels_reconnects() {
    const [before, after] = [unique('recent'), unique('recent')];
    const made = watch(client({
      token: token({ exp: now() + 2, channels: [before] }),
      getToken: async () => token({ channels: [after] }),
    }));
    const first = next(made, 'subscribed', (context) => context.channel === before);
    made.connect();
    await first;
    const lost = next(made, 'connecting');
    const second = next(made, 'subscribed', (context) => context.channel === after);
    assert.equal((await lost).code, 3010);
    await second;
  },

  async subscription_token_refreshed_on_the_live_subscription() {
    const channel = unique('closed');
    let asked = 0;
    const made = await connected();
    const sub = await subscribed(made, channel, {
      getToken: async (context) => {
        asked += 1;
        return token({ channel: context.channel, exp: now() + (asked === 1 ? 2 : 3600) });
      },
    });
    await until(() => asked === 2, 'the second getToken');
    await sleep(3500);
    assert.deepEqual(sub.log.map((entry) => entry.event), ['subscribing', 'subscribed']);
    await publish(channel, 'still in');
    assert.equal((await count(sub, 1))[0].data, 'still in');
  },

  async subscription_refresh_with_an_expired_token_subscribes_again() {
    const channel = unique('closed');
    let asked = 0;
    const made = await connected();
    const sub = await subscribed(made, channel, {
      minResubscribeDelay: 20,
      getToken: async (context) => {
        asked += 1;
        return token({ channel: context.channel, exp: asked === 1 ? now() + 2 : asked === 2 ? now() - 5 : now() + 3600 });
      },
    });
    const again = await next(sub, 'subscribing');
    assert.equal(again.code, 2501);
    await next(sub, 'subscribed');
    assert.equal(asked, 3);
  },

  async subscription_refresh_with_another_channels_token_is_terminal() {
    const made = await connected();
    let asked = 0;
    await subscribed(made, unique('closed'), {
      getToken: async (context) => {
        asked += 1;
        return token({ channel: asked === 1 ? context.channel : unique('closed'), exp: now() + 2 });
      },
    });
    assert.equal((await next(made, 'disconnected')).code, 3500);
  },

  async pings_are_answered() {
    const made = await connected();
    const pings = [];
    socket().on('message', (data) => {
      if (String(data).trim() === '{}') pings.push(data);
    });
    const sockets = socketCount();
    await until(() => pings.length >= 2, 'two pings', 10000);
    await sleep(2500); // The second pong would be overdue by now.
    assert.equal(socketCount(), sockets);
    await made.rpc('echo', 1);
  },

  async personal_channel() {
    const user = `u${now()}x${Math.random().toString(36).slice(2)}`;
    const made = watch(client({ token: token({ sub: user, exp: now() + 3 }), getToken: async () => token({ sub: user }) }));
    const done = next(made, 'subscribed');
    made.connect();
    const channel = (await done).channel;
    assert.equal(channel, `personal:#${user}`);
    await publish(channel, { hello: user });
    assert.deepEqual((await count(made, 1))[0].data, { hello: user });
    await sleep(5000); // The refreshed token names no channels: the personal one stays and nothing reconnects.
    await publish(channel, 'after refresh');
    assert.equal((await count(made, 2))[1].data, 'after refresh');
    assert.equal(made.log.filter((entry) => entry.event === 'subscribed').length, 1);
  },
});
