// Channels with the JavaScript SDK: publish, history, presence, join and leave, permissions, server-side subscriptions.

import {
  assert, api, client, connected, count, fails, main, network, next, publish, sleep, subscribed, token, unique, until,
  watch,
} from './lib.mjs';

const user = (name, claims = {}) => ({ token: token({ sub: name, ...claims }) });
const numbers = (pubs) => pubs.map((pub) => pub.data);

async function refused(made, channel, code, options = {}) {
  const sub = made.newSubscription(channel, options);
  const gone = next(sub, 'unsubscribed');
  sub.subscribe();
  assert.equal((await gone).code, code, channel);
  made.removeSubscription(sub);
}

await main({
  async publishes_to_all_subscribers() {
    const channel = unique('plain');
    const [ann, bob] = [await connected(user('ann', { info: { nick: 'A' } })), await connected(user('bob'))];
    const [heardByAnn, heardByBob] = [await subscribed(ann, channel), await subscribed(bob, channel)];
    assert.equal(heardByAnn.context.recoverable, false);
    await heardByAnn.publish({ text: 'hi' });
    await bob.publish(channel, ['from', 'bob']);
    await publish(channel, 'from the server', { tags: { k: 'v' } });
    for (const sub of [heardByAnn, heardByBob]) {
      const got = await count(sub, 3);
      assert.deepEqual(got.map((pub) => pub.data), [{ text: 'hi' }, ['from', 'bob'], 'from the server']);
      assert.deepEqual(got[0].info, { user: 'ann', client: ann.context.client, connInfo: { nick: 'A' } });
      assert.equal(got[1].info.user, 'bob');
      assert.equal(got[2].info, undefined);
      assert.deepEqual(got[2].tags, { k: 'v' });
      assert.equal(got[0].offset, undefined);
    }
  },

  async sender_can_be_spared() {
    const channel = unique('recent');
    const [ann, bob] = [await connected(user('ann')), await connected(user('bob'))];
    const [one, two] = [await subscribed(ann, channel), await subscribed(bob, channel)];
    await publish(channel, 'not for ann', { exclude_client: ann.context.client });
    await publish(channel, 'for all');
    assert.deepEqual(numbers(await count(two, 2)), ['not for ann', 'for all']);
    assert.deepEqual(numbers(await count(one, 1)), ['for all']);
    await sleep(100);
    assert.equal(one.got.length, 1);
    assert.deepEqual(one.log.map((entry) => entry.event), ['subscribing', 'subscribed', 'publication']);
  },

  async history_forwards_backwards_and_paged() {
    const channel = unique('recent');
    const made = await connected();
    const sub = await subscribed(made, channel);
    for (let n = 1; n <= 10; n += 1) await publish(channel, n);
    await count(sub, 10);
    const position = await sub.history({ limit: 0 });
    assert.deepEqual([position.publications, position.offset], [[], 10]);
    assert.equal(position.epoch, sub.context.streamPosition.epoch);
    const { epoch } = position;
    const read = async (options) => numbers((await sub.history(options)).publications);
    assert.deepEqual(await read({ limit: 3 }), [1, 2, 3]);
    assert.deepEqual(await read({ limit: 100 }), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert.deepEqual(await read({ limit: -1 }), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert.deepEqual(await read({ limit: 3, since: { offset: 4, epoch } }), [5, 6, 7]);
    assert.deepEqual(await read({ limit: 3, reverse: true }), [10, 9, 8]);
    assert.deepEqual(await read({ limit: 3, since: { offset: 4, epoch }, reverse: true }), [3, 2, 1]);
    assert.deepEqual(await read({ limit: 3, since: { offset: 10, epoch } }), []);
    await fails(sub.history({ limit: 3, since: { offset: 1, epoch: 'another' } }), 112);
    await fails(sub.history({ limit: 3, since: { offset: 0, epoch }, reverse: true }), 107);
    await fails(made.history(unique('plain'), { limit: 1 }), 108);
    await fails(made.history(unique('member'), { limit: 1 }), 103);
  },

  async history_of_a_durable_channel() {
    const channel = unique('durable');
    const made = await connected();
    const sub = await subscribed(made, channel);
    assert.deepEqual([sub.context.recoverable, sub.context.streamPosition.offset], [true, 0]);
    for (let n = 1; n <= 5; n += 1) await sub.publish(n);
    assert.deepEqual((await count(sub, 5)).map((pub) => [pub.data, pub.offset]), [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]);
    const { epoch } = await sub.history({ limit: 0 });
    assert.deepEqual(numbers((await sub.history({ limit: 2, since: { offset: 2, epoch } })).publications), [3, 4]);
    assert.deepEqual(numbers((await sub.history({ limit: 2, reverse: true })).publications), [5, 4]);
  },

  async presence_of_two_clients() {
    const channel = unique('room');
    const [ann, bob] = [await connected(user('ann', { info: { nick: 'A' } })), await connected(user('bob'))];
    const [one, two] = [await subscribed(ann, channel), await subscribed(bob, channel)];
    const { clients } = await one.presence();
    assert.deepEqual(Object.keys(clients).sort(), [ann.context.client, bob.context.client].sort());
    const seen = clients[ann.context.client];
    assert.deepEqual([seen.user, seen.client, seen.connInfo], ['ann', ann.context.client, { nick: 'A' }]);
    assert.deepEqual(await two.presenceStats(), { numClients: 2, numUsers: 2 });
    const third = await connected(user('bob'));
    const three = await subscribed(third, channel);
    assert.deepEqual(await two.presenceStats(), { numClients: 3, numUsers: 2 });
    const left = next(one, 'leave', (context) => context.info.client === third.context.client);
    three.unsubscribe();
    await left;
    assert.deepEqual(await two.presenceStats(), { numClients: 2, numUsers: 2 });
    const gone = next(one, 'leave', (context) => context.info.client === bob.context.client);
    bob.disconnect();
    await gone;
    assert.deepEqual(Object.keys((await one.presence()).clients), [ann.context.client]);
    await fails(ann.presence(unique('plain')), 108);
    await fails(ann.presenceStats(unique('room')), 103);
  },

  async joins_and_leaves_of_two_clients() {
    const channel = unique('room');
    const [ann, bob] = [await connected(user('ann')), await connected(user('bob', { info: { nick: 'B' } }))];
    const own = [];
    const one = watch(ann.newSubscription(channel));
    one.on('join', (context) => own.push(context.info.client));
    const done = next(one, 'subscribed');
    one.subscribe();
    await done;
    await until(() => own.includes(ann.context.client), 'the own join');
    const joined = next(one, 'join', (context) => context.info.user === 'bob');
    const two = await subscribed(bob, channel);
    assert.deepEqual((await joined).info, { user: 'bob', client: bob.context.client, connInfo: { nick: 'B' } });
    const left = next(one, 'leave');
    two.unsubscribe();
    assert.equal((await left).info.client, bob.context.client);
    const again = next(one, 'join', (context) => context.info.user === 'bob');
    two.subscribe();
    await again;
    const gone = next(one, 'leave');
    bob.disconnect();
    assert.equal((await gone).info.user, 'bob');
  },

  async joins_only_for_those_who_ask() {
    const channel = unique('lobby');
    const [ann, bob, eve] = [await connected(user('ann')), await connected(user('bob')), await connected(user('eve'))];
    const asking = await subscribed(ann, channel, { joinLeave: true });
    const silent = await subscribed(bob, channel);
    const joined = next(asking, 'join', (context) => context.info.user === 'eve');
    await subscribed(eve, channel);
    await joined;
    await publish(channel, 'mark');
    await count(silent, 1);
    assert.deepEqual(silent.log.filter((entry) => entry.event === 'join'), []);
  },

  async subscriptions_refused_with_the_right_code() {
    const made = await connected();
    await refused(made, unique('closed'), 103);
    await refused(made, `$${unique('read')}`, 103);
    await refused(made, unique('nowhere'), 102);
    await refused(made, 'digits:12a', 107);
    await refused(made, 'plain:ü', 107);
    await refused(made, `plain:${'x'.repeat(300)}`, 107);
    await refused(made, 'users:talk#other', 103);
    await refused(made, 'app:refused', 1043);
    await refused(made, 'app:rules', 103);
    await refused(made, unique('closed'), 103, { token: 'garbage' });
    await refused(made, unique('plain'), 107, { tagsFilter: { key: 'k', cmp: 'eq', val: 'v' } });
    await subscribed(made, 'digits:123');
    await made.rpc('echo', 'still connected');
  },

  async expired_subscription_token_is_renewed() {
    const channel = unique('closed');
    const made = await connected();
    let asked = 0;
    const sub = await subscribed(made, channel, {
      minResubscribeDelay: 20,
      token: token({ channel, exp: Math.floor(Date.now() / 1000) - 60 }),
      getToken: async () => {
        asked += 1;
        return token({ channel, info: { role: 'owner' }, data: { welcome: true } });
      },
    });
    assert.equal(asked, 1);
    assert.deepEqual(sub.context.data, { welcome: true });
    assert.equal(sub.log.find((entry) => entry.event === 'error').error.code, 109);
  },

  async subscription_tokens_open_closed_channels() {
    const made = await connected(user('ann'));
    const channel = `$${unique('read')}`;
    const sub = await subscribed(made, channel, { token: token({ sub: 'ann', channel, info: { role: 'r' } }) });
    await publish(channel, 1);
    await count(sub, 1);
    for (const claims of [{ sub: 'ann', channel: unique('closed') }, { sub: 'eve', channel: 'closed:mine' }]) {
      const other = await connected(user('ann'));
      const gone = next(other, 'disconnected');
      other.newSubscription('closed:mine', { token: token(claims) }).subscribe();
      assert.equal((await gone).code, 3500);
    }
  },

  async user_limited_channels() {
    const ann = await connected(user('ann'));
    const channel = `${unique('users')}#ann,bob`;
    const sub = await subscribed(ann, channel);
    await publish(channel, 'for both');
    await count(sub, 1);
    await refused(await connected(user('eve')), channel, 103);
  },

  async publishing_needs_permission() {
    const made = await connected();
    await fails(made.publish(unique('read'), 1), 103);
    await fails(made.publish(unique('nowhere'), 1), 102);
    await fails(made.publish(unique('member'), 1), 103);
    await fails(made.publish(unique('object'), [1]), 107);
    await made.publish(unique('object'), { a: 1 });
    await made.publish(unique('write'), 1);
    const sub = await subscribed(made, unique('member'));
    await sub.publish('now a member');
    await count(sub, 1);
  },

  async application_decides_about_channels() {
    const made = await connected(user('ann'));
    const sub = await subscribed(made, unique('app'), { data: { from: 'js' } });
    assert.deepEqual(sub.context.data, { given: { from: 'js' }, user: 'ann' });
    await sub.publish({ n: 1 });
    const [pub] = await count(sub, 1);
    assert.deepEqual([pub.data, pub.tags, pub.info.chanInfo], [{ checked: { n: 1 } }, { by: 'app' }, { role: 'guest' }]);
    await fails(sub.publish('refuse'), 1044);
    await fails(sub.publish('rules'), 103);
    const gone = next(made, 'disconnected');
    made.newSubscription('app:kicked').subscribe();
    assert.equal((await gone).code, 4502);
  },

  async unsubscribe_ends_delivery() {
    const channel = unique('recent');
    const made = await connected();
    const sub = await subscribed(made, channel);
    await publish(channel, 1);
    await count(sub, 1);
    sub.unsubscribe();
    assert.equal(sub.log.at(-1).code, 0);
    await made.rpc('echo', 'flush');
    await publish(channel, 2);
    await made.rpc('echo', 'flush');
    assert.equal(sub.got.length, 1);
    const back = next(sub, 'subscribed');
    sub.subscribe();
    const context = await back;
    assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
    assert.deepEqual(numbers(await count(sub, 2)), [1, 2]);
  },

  async api_unsubscribe_ends_a_subscription() {
    const name = unique('user');
    const channel = unique('recent');
    const made = await connected(user(name));
    const sub = await subscribed(made, channel);
    const gone = next(sub, 'unsubscribed');
    await api('unsubscribe', { user: name, channel });
    assert.deepEqual([(await gone).code, sub.log.at(-1).reason], [2000, 'server unsubscribe']);
    await publish(channel, 1);
    await made.rpc('echo', 1);
    assert.equal(sub.got.length, 0);
  },

  async channels_of_the_token() {
    const [one, two] = [unique('recent'), unique('closed')];
    const name = unique('user');
    const made = watch(client(user(name, { channels: [one] })));
    const done = next(made, 'subscribed');
    made.connect();
    const context = await done;
    assert.deepEqual([context.channel, context.recoverable, context.wasRecovering], [one, true, false]);
    await publish(one, 'over the server side');
    assert.equal((await count(made, 1))[0].data, 'over the server side');
    const other = watch(client(user(name, { subs: { [two]: { data: { a: 1 }, info: { b: 2 }, override: { force_recovery: { value: true } } } } })));
    const second = next(other, 'subscribed');
    other.connect();
    const details = await second;
    assert.deepEqual([details.channel, details.data, details.recoverable], [two, { a: 1 }, true]);
    const { presence } = await api('presence', { channel: two });
    assert.deepEqual(Object.values(presence).map((info) => info.chan_info), [{ b: 2 }]);
    const clash = made.newSubscription(`${one}`);
    const gone = next(clash, 'unsubscribed');
    clash.subscribe();
    assert.equal((await gone).code, 105);
  },

  async api_subscribes_and_unsubscribes() {
    const name = unique('user');
    const channel = unique('room');
    const made = watch(await connected(user(name)));
    const done = next(made, 'subscribed');
    await api('subscribe', { user: name, channel, data: { by: 'api' }, info: { role: 'x' } });
    const context = await done;
    assert.deepEqual([context.channel, context.data], [channel, { by: 'api' }]);
    await until(() => made.log.some((entry) => entry.event === 'join'), 'the own join');
    await publish(channel, 1);
    await count(made, 1);
    const watcher = await connected(user('watcher'));
    const watching = await subscribed(watcher, channel);
    const left = next(watching, 'leave');
    const gone = next(made, 'unsubscribed');
    await api('unsubscribe', { user: name, channel });
    assert.equal((await gone).channel, channel);
    assert.deepEqual((await left).info.chanInfo, { role: 'x' });
    await publish(channel, 2);
    await count(watching, 1);
    await made.rpc('echo', 1);
    assert.equal(made.got.length, 1);
  },

  async server_side_subscription_recovers() {
    const channel = unique('recent');
    const net = await network();
    const made = watch(client(user('js', { channels: [channel] }), net.url));
    const done = next(made, 'subscribed');
    made.connect();
    await done;
    for (let n = 1; n <= 3; n += 1) await publish(channel, n);
    await count(made, 3);
    const lost = next(made, 'connecting');
    net.cut();
    await lost;
    for (let n = 4; n <= 30; n += 1) await publish(channel, n);
    const back = next(made, 'subscribed');
    net.heal();
    const context = await back;
    assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
    await publish(channel, 31);
    assert.deepEqual(numbers(await count(made, 31)), [...Array(31).keys()].map((n) => n + 1));
  },

  async api_refresh_expires_a_connection() {
    const name = unique('user');
    const made = await connected({ getToken: async () => token({ sub: name }) });
    const lost = next(made, 'connecting');
    const back = next(made, 'connected');
    await api('refresh', { user: name, expired: true });
    assert.equal((await lost).code, 3005);
    await back;
  },
});
