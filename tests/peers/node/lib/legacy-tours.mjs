//! Owns what a legacy client does on its tours through `server-everything` and the legacy fixture. Written against a small
//! face that the drivers of both SDK generations make, so that both walk the very same way:
//! `client` (the SDK's client), `call(params, options)`, `mailbox`, `terminate()` and `sessionId()` (not over stdio), `url`.
import { check, firstText, until } from './tour.mjs';

/** What clients of the tours declare. */
export const CAPABILITIES = { sampling: {}, elicitation: {}, roots: { listChanged: true } };

/** The requests that servers send to the tours' clients, by method, with the answers. */
export const ANSWERS = {
  'sampling/createMessage': () => ({
    role: 'assistant',
    model: 'test-model',
    stopReason: 'endTurn',
    content: { type: 'text', text: 'Sampled by the client' },
  }),
  'elicitation/create': () => ({
    action: 'accept',
    content: { name: 'Ada', username: 'ada', email: 'ada@example.com', ok: true, color: 'green', context: 'tour' },
  }),
  'roots/list': () => ({ roots: [{ uri: 'file:///tour', name: 'Tour root' }] }),
};

/** The notifications that the tours look at. */
export const NOTIFICATIONS = [
  'notifications/message',
  'notifications/resources/updated',
  'notifications/tools/list_changed',
  'notifications/prompts/list_changed',
  'notifications/resources/list_changed',
];

/** Walks through `@modelcontextprotocol/server-everything`. */
export async function everything(tour, { client, call, mailbox, terminate, sessionId, url }) {
  await tour.step('server', async () => {
    check(client.getServerVersion()?.name.includes('everything'), 'wrong server', client.getServerVersion());
    check(client.getServerCapabilities()?.tools !== undefined, 'no tools', client.getServerCapabilities());
    check(!terminate || sessionId() !== undefined, 'no session id', null);
  });
  await tour.step('ping', () => client.ping());
  await tour.step('tools/list', async () => {
    const names = (await client.listTools()).tools.map(({ name }) => name);
    for (const name of ['echo', 'get-sum', 'trigger-long-running-operation']) check(names.includes(name), name, names);
  });
  await tour.step('tools/call echo', async () => {
    // Every kind of character must come back as it went, and more of them than fit into one TLS record.
    const message = `"\\\u0000\u001f\u2028é漢😀`.repeat(2000);
    const answer = await call({ name: 'echo', arguments: { message } });
    check(firstText(answer) === `Echo: ${message}`, 'another text', firstText(answer)?.slice(0, 80));
  });
  await tour.step('tools/call structured', async () => {
    const answer = await call({ name: 'get-structured-content', arguments: { location: 'Chicago' } });
    check(typeof answer.structuredContent?.temperature === 'number', 'no structure', answer);
  });
  await tour.step('tools/call in parallel', async () => {
    const sums = Array.from({ length: 32 }, async (_, n) => {
      const answer = await call({ name: 'get-sum', arguments: { a: n, b: 1000 } });
      check(firstText(answer).includes(`${n + 1000}`), `sum of ${n}`, answer);
    });
    await Promise.all(sums);
  });
  await tour.step('tools/call unknown', async () => {
    const answer = await call({ name: 'no-such-tool', arguments: {} }).catch((error) => error);
    check(answer.code === -32602 || answer.isError === true, 'no refusal', answer);
  });
  await tour.step('progress', async () => {
    const seen = [];
    const params = { name: 'trigger-long-running-operation', arguments: { duration: 0.5, steps: 5 } };
    const answer = await call(params, { onprogress: ({ progress }) => seen.push(progress) });
    check(firstText(answer).includes('completed'), 'not completed', answer);
    check(seen.length >= 4 && seen.every((step, n) => step === n + 1), 'progress out of order', seen);
  });
  await tour.step('prompts', async () => {
    const { prompts } = await client.listPrompts();
    check(prompts.some(({ name }) => name === 'args-prompt'), 'no args-prompt', prompts);
    const { messages } = await client.getPrompt({ name: 'args-prompt', arguments: { city: 'Oslo' } });
    check(messages[0].content.text.includes('Oslo'), 'argument lost', messages);
  });
  await tour.step('completion', async () => {
    const { completion } = await client.complete({
      ref: { type: 'ref/prompt', name: 'completable-prompt' },
      argument: { name: 'department', value: 'S' },
    });
    check(completion.values.join() === 'Sales,Support', 'wrong completions', completion);
  });
  const uri = 'demo://resource/dynamic/text/7';
  await tour.step('resources', async () => {
    check((await client.listResources()).resources.length > 0, 'no resources', null);
    const { resourceTemplates } = await client.listResourceTemplates();
    check(resourceTemplates.length >= 2, 'templates missing', resourceTemplates);
    const { contents } = await client.readResource({ uri });
    check(contents[0].text.startsWith('Resource 7'), 'wrong content', contents);
  });
  await tour.step('resources/subscribe', async () => {
    await client.subscribeResource({ uri });
    await call({ name: 'toggle-subscriber-updates', arguments: {} });
    await mailbox.take('notifications/resources/updated', (params) => params.uri === uri);
    await call({ name: 'toggle-subscriber-updates', arguments: {} });
    await client.unsubscribeResource({ uri });
  });
  await tour.step('logging', async () => {
    await client.setLoggingLevel('debug');
    await call({ name: 'toggle-simulated-logging', arguments: {} });
    await mailbox.take('notifications/message', ({ data }) => `${data}`.includes('essage'));
    await call({ name: 'toggle-simulated-logging', arguments: {} });
  });
  await tour.step('sampling', async () => {
    const answer = await call({ name: 'trigger-sampling-request', arguments: { prompt: 'hello', maxTokens: 20 } });
    check(firstText(answer).includes('Sampled by the client'), 'no sample', answer);
  });
  await tour.step('elicitation', async () => {
    const answer = await call({ name: 'trigger-elicitation-request', arguments: {} });
    check(JSON.stringify(answer).includes('Ada'), 'no form', answer);
  });
  await tour.step('roots', async () => {
    const answer = await call({ name: 'get-roots-list', arguments: {} });
    check(firstText(answer).includes('file:///tour'), 'no roots', answer);
  });
  await tour.step('cancellation', () =>
    cancelOnFirstProgress(call, { name: 'trigger-long-running-operation', arguments: { duration: 5, steps: 50 } }),
  );
  await tour.step('ping after cancellation', () => client.ping());
  if (terminate) await tour.step('session end', () => endSession(terminate, sessionId, url));
}

/** Walks through the legacy fixture: what `server-everything` cannot show. */
export async function legacy(tour, { client, call, mailbox, terminate, sessionId, url }) {
  await tour.step('cancellation reaches the server', async () => {
    const key = `tour-${process.pid}`;
    await cancelOnFirstProgress(call, { name: 'test_wait', arguments: { key } });
    await until(async () => firstText(await call({ name: 'test_was_cancelled', arguments: { key } })) === 'cancelled');
  });
  await tour.step('stream closed and resumed', async () => {
    const answer = await call({ name: 'test_reconnection', arguments: {} });
    check(firstText(answer) === 'Reconnected', 'not resumed', answer);
  });
  await tour.step('resources/subscribe', async () => {
    const uri = 'test://watched-resource';
    await client.subscribeResource({ uri });
    await call({ name: 'test_update_watched_resource', arguments: {} });
    await mailbox.take('notifications/resources/updated', (params) => params.uri === uri);
  });
  await tour.step('logging within a call', async () => {
    await client.setLoggingLevel('info');
    await call({ name: 'test_tool_with_logging', arguments: {} });
    for (const line of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      await mailbox.take('notifications/message', ({ data }) => data === line);
    }
  });
  if (terminate) await tour.step('session end', () => endSession(terminate, sessionId, url));
}

/** Cancels a call as soon as it tells its progress, so that the server has surely begun it. */
export async function cancelOnFirstProgress(call, params) {
  const cancel = new AbortController();
  const outcome = await call(params, {
    signal: cancel.signal,
    onprogress: () => cancel.abort('not wanted'),
  }).catch((error) => error);
  check(outcome instanceof Error, 'cancelled call answered', outcome);
}

/** Ends the session and sees that its id is refused from then on (2025-11-25, Session Management, 3 and 5). */
async function endSession(terminate, sessionId, url) {
  const id = sessionId();
  await terminate();
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-session-id': id,
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' }),
  });
  await response.body?.cancel();
  // server-everything itself says 400 where the specification says 404.
  check(response.status === 404 || response.status === 400, 'ended session served', response.status);
}
