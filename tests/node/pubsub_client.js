// Drives the Pub/Sub API with the official Node client, one line a case.
//
//     PUBSUB_EMULATOR_HOST=127.0.0.1:8085 node tests/node/pubsub_client.js
//
// Needs `npm install @google-cloud/pubsub` and a server in development mode. With LEVADA_HOST and
// LEVADA_KEY instead, every call carries the key over TLS (GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names
// the certificate to trust), and LEVADA_PROJECT names a project that the key may use. Ends with
// status 1 when a case failed.
'use strict';

const assert = require('assert');
const {PubSub} = require('@google-cloud/pubsub');

const {LEVADA_HOST, LEVADA_KEY, LEVADA_PROJECT} = process.env;

function connect(key) {
  if (!key) return new PubSub({projectId: 'node-suite'});
  // As docs/pubsub.md has it.
  const {credentials, Metadata} = require('@grpc/grpc-js');
  const call = credentials.createFromMetadataGenerator((_, callback) => {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${key}`);
    callback(null, metadata);
  });
  const sslCreds = credentials.combineChannelCredentials(credentials.createSsl(), call);
  return new PubSub({projectId: LEVADA_PROJECT, apiEndpoint: LEVADA_HOST, emulatorMode: false, sslCreds});
}

const client = connect(LEVADA_KEY);
const run = Date.now().toString(36);
const LIMIT_MS = 30000;

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took too long`)), LIMIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function pair(name, options = {}) {
  const [topic] = await client.createTopic(`${name}-${run}`);
  const [subscription] = await topic.createSubscription(`${name}-${run}`, options);
  return {topic, subscription};
}

// Resolves once `take` has answered true for a message.
function consume(subscription, take) {
  const done = new Promise((resolve, reject) => {
    subscription.on('error', reject);
    subscription.on('message', async message => {
      try {
        if (await take(message)) resolve();
      } catch (error) {
        reject(error);
      }
    });
  });
  return within(done, 'delivery').finally(() => subscription.close());
}

const cases = {
  async messagesComeThroughAStreamOnce() {
    const {topic, subscription} = await pair('stream', {flowControl: {maxMessages: 50}});
    const got = new Map();
    const consumed = consume(subscription, message => {
      got.set(message.id, (got.get(message.id) || 0) + 1);
      assert.strictEqual(message.attributes.n, message.data.toString());
      message.ack();
      return got.size === 500;
    });
    const numbers = [...Array(500).keys()].map(String);
    const ids = await Promise.all(
      numbers.map(n => topic.publishMessage({data: Buffer.from(n), attributes: {n}})),
    );
    await consumed;
    assert.deepStrictEqual(new Set(got.keys()), new Set(ids));
    assert([...got.values()].every(count => count === 1));
  },

  async messagesOfOneKeyComeInOrder() {
    const {topic, subscription} = await pair('order', {enableMessageOrdering: true});
    topic.setPublishOptions({messageOrdering: true});
    const got = {a: [], b: []};
    const consumed = consume(subscription, message => {
      got[message.orderingKey].push(Number(message.data));
      message.ack();
      return got.a.length + got.b.length === 100;
    });
    for (let n = 0; n < 50; n++) {
      for (const orderingKey of ['a', 'b']) {
        topic.publishMessage({data: Buffer.from(String(n)), orderingKey});
      }
    }
    await consumed;
    for (const key of ['a', 'b']) assert.deepStrictEqual(got[key], [...Array(50).keys()]);
  },

  async closingInsideAHandlerEndsWell() {
    for (let round = 0; round < 5; round++) {
      const flowControl = {maxMessages: 3, allowExcessMessages: false};
      const {topic, subscription} = await pair(`close${round}`, {flowControl});
      const body = Buffer.alloc(500, 'm');
      await Promise.all([...Array(12)].map(() => topic.publishMessage({data: body})));
      let count = 0;
      // What is thrown out of the client's streams ends the program.
      await within(
        new Promise((resolve, reject) => {
          subscription.on('error', reject);
          subscription.on('message', () => {
            count += 1;
            if (count === 3) subscription.close().then(resolve, reject);
          });
        }),
        'the close',
      );
    }
  },

  async exactlyOnceConfirmsAcknowledgements() {
    const {topic, subscription} = await pair('once', {enableExactlyOnceDelivery: true, ackDeadlineSeconds: 30});
    const answers = [];
    const consumed = consume(subscription, async message => {
      answers.push(await message.ackWithResponse());
      return answers.length === 10;
    });
    for (let n = 0; n < 10; n++) await topic.publishMessage({data: Buffer.from('x')});
    await consumed;
    assert(answers.every(answer => answer === 'SUCCESS'), answers.join());
  },

  async aNackRedelivers() {
    const {topic, subscription} = await pair('nack');
    let count = 0;
    const consumed = consume(subscription, message => {
      count += 1;
      if (count === 1) message.nack();
      else message.ack();
      return count === 2;
    });
    await topic.publishMessage({data: Buffer.from('x')});
    await consumed;
  },

  async resourcesAreListed() {
    const {topic, subscription} = await pair('list');
    const [topics] = await client.getTopics();
    assert(topics.some(({name}) => name === topic.name));
    const [subscriptions] = await topic.getSubscriptions();
    assert.deepStrictEqual(subscriptions.map(({name}) => name), [subscription.name]);
    await subscription.delete();
    await assert.rejects(subscription.getMetadata(), {code: 5});
  },

  async aWrongKeyIsRefused() {
    if (!LEVADA_KEY) return;
    await assert.rejects(connect('wrong').createTopic(`refused-${run}`), {code: 16});
  },
};

async function main() {
  let failed = 0;
  for (const [name, body] of Object.entries(cases)) {
    const start = Date.now();
    let word = 'ok    ';
    try {
      await body();
    } catch (error) {
      failed += 1;
      word = 'FAILED';
      console.error(error);
    }
    console.log(`${word} ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
  }
  process.exit(failed ? 1 : 0);
}

main();
