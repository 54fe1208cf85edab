//! Owns what the SDK 2.x client does on its tour through the modern fixture (2026-07-28). Never opens a session: there is none.
import { cancelOnFirstProgress } from './legacy-tours.mjs';
import { check, firstText, until } from './tour.mjs';

/** Walks through the modern fixture. `logLevel` is the key of the log level in `_meta`. */
export async function modern(tour, { client, call, mailbox, logLevel }) {
  await tour.step('server', async () => {
    check(client.getServerVersion()?.name === 'modern-fixture', 'wrong server', client.getServerVersion());
    check(client.getServerCapabilities()?.resources?.subscribe === true, 'no subscriptions', client.getServerCapabilities());
  });
  await tour.step('tools/list', async () => {
    const { tools } = await client.listTools();
    check(tools.some(({ name }) => name === 'test_custom_headers'), 'tool missing', tools);
    const schema = tools.find(({ name }) => name === 'json_schema_2020_12_tool').inputSchema;
    check(schema.$defs.address.$anchor === 'addressDef', 'schema changed', schema);
  });
  await tour.step('tools/call', async () => {
    check(firstText(await call({ name: 'test_simple_text' })).includes('simple text'), 'another text', null);
    const { content } = await call({ name: 'test_multiple_content_types', arguments: {} });
    check(content.length === 3, 'content lost', content);
  });
  await tour.step('tools/call with mirrored arguments', async () => {
    // Values that need the base64 form in their header, and ones that do not.
    for (const region of ['us-east1', ' padded ', 'Zürich 漢字', '=?base64?literal?=']) {
      const args = { region, priority: 42, verbose: false, query: 'SELECT 1' };
      const answer = await call({ name: 'test_custom_headers', arguments: args });
      check(JSON.stringify(JSON.parse(firstText(answer))) === JSON.stringify(args), 'arguments changed', answer);
    }
  });
  await tour.step('tools/call in parallel', async () => {
    const answers = await Promise.all(Array.from({ length: 32 }, () => call({ name: 'test_simple_text' })));
    check(answers.every((answer) => firstText(answer).includes('simple text')), 'another text', null);
  });
  await tour.step('tools/call failing', async () => {
    check((await call({ name: 'test_error_handling' })).isError === true, 'no error', null);
    const refused = await call({ name: 'no-such-tool' }).catch((error) => error);
    check(refused.code === -32602, 'no refusal', refused);
  });
  await tour.step('progress', async () => {
    const seen = [];
    await call({ name: 'test_tool_with_progress' }, { onprogress: ({ progress }) => seen.push(progress) });
    check(seen.join() === '0,50,100', 'progress out of order', seen);
  });
  await tour.step('logging', async () => {
    await call({ name: 'test_logging_tool', arguments: {}, _meta: { [logLevel]: 'info' } });
    await mailbox.take('notifications/message', ({ data }) => data === 'Tool execution completed');
  });
  await tour.step('prompts', async () => {
    check((await client.listPrompts()).prompts.length === 5, 'prompts missing', null);
    const { messages } = await client.getPrompt({
      name: 'test_prompt_with_arguments',
      arguments: { arg1: 'one', arg2: 'two' },
    });
    check(messages[0].content.text.includes("arg2='two'"), 'argument lost', messages);
  });
  await tour.step('resources', async () => {
    check((await client.listResources()).resources.length === 3, 'resources missing', null);
    check((await client.listResourceTemplates()).resourceTemplates.length === 1, 'template missing', null);
    const { contents } = await client.readResource({ uri: 'test://template/42/data' });
    check(JSON.parse(contents[0].text).id === '42', 'wrong content', contents);
    const refused = await client.readResource({ uri: 'test://nothing' }).catch((error) => error);
    check(refused.code === -32602, 'no refusal', refused);
  });
  await tour.step('completion', async () => {
    const { completion } = await client.complete({
      ref: { type: 'ref/prompt', name: 'test_prompt_with_arguments' },
      argument: { name: 'arg1', value: 'par' },
    });
    check(completion.values.join() === 'paris,park,party', 'wrong completions', completion);
  });
  await inputSteps(tour, client, call);
  await tour.step('subscriptions/listen', () => listen(client, call, mailbox));
  await tour.step('two subscriptions', async () => {
    const streams = await Promise.all([
      client.listen({ promptsListChanged: true }),
      client.listen({ resourceSubscriptions: ['test://watched-resource'] }),
    ]);
    await call({ name: 'test_trigger_prompt_change' });
    await call({ name: 'test_update_watched_resource' });
    await mailbox.take('notifications/prompts/list_changed');
    await mailbox.take('notifications/resources/updated', ({ uri }) => uri === 'test://watched-resource');
    await Promise.all(streams.map((stream) => stream.close()));
  });
  await tour.step('cancellation reaches the server', async () => {
    const key = `tour-${process.pid}`;
    await cancelOnFirstProgress(call, { name: 'test_wait', arguments: { key } });
    await until(async () => firstText(await call({ name: 'test_was_cancelled', arguments: { key } })) === 'cancelled');
  });
}

/** Input asked for by multi-round-trip results; the client answers and asks again by itself. */
async function inputSteps(tour, client, call) {
  for (const [name, expected] of [
    ['elicitation', 'Hello, Ada!'],
    ['sampling', 'Sampled by the client'],
    ['list_roots', 'file:///tour'],
    ['request_state', 'state-ok'],
    ['multiple_inputs', 'Sampled by the client Ada: 1 root(s)'],
    ['multi_round', 'Ada likes green'],
  ]) {
    await tour.step(`input ${name}`, async () => {
      const answer = await call({ name: `test_input_required_result_${name}`, arguments: {} });
      check(firstText(answer).includes(expected), 'another text', answer);
    });
  }
  await tour.step('input for a prompt', async () => {
    const { messages } = await client.getPrompt({ name: 'test_input_required_result_prompt' });
    check(messages[0].content.text === 'Context: tour', 'context lost', messages);
  });
}

async function listen(client, call, mailbox) {
  const stream = await client.listen({ toolsListChanged: true });
  check(stream.honoredFilter.toolsListChanged === true, 'filter not honored', stream.honoredFilter);
  await call({ name: 'test_trigger_prompt_change' });
  await call({ name: 'test_trigger_tool_change' });
  await mailbox.take('notifications/tools/list_changed');
  check(!mailbox.has('notifications/prompts/list_changed'), 'told of what was not asked for', null);
  await stream.close();
  check((await stream.closed) === 'local', 'closed by another', null);
}
