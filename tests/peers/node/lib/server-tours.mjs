//! Owns what a client does on its tours through servers that others wrote for use, not for tests: the filesystem and memory
//! servers, and a server on Python's `mcp`. Written against the same face as the legacy tours.
import { check, firstText } from './tour.mjs';

/** Walks through `@modelcontextprotocol/server-filesystem`. */
export async function filesystem(tour, { client, call }) {
  let directory;
  await tour.step('tools/list', async () => {
    const names = (await client.listTools()).tools.map(({ name }) => name);
    for (const name of ['read_text_file', 'write_file', 'list_directory']) check(names.includes(name), name, names);
  });
  await tour.step('allowed directories', async () => {
    const text = firstText(await call({ name: 'list_allowed_directories', arguments: {} }));
    directory = text.trim().split('\n').at(-1);
    check(directory.startsWith('/'), 'no directory', text);
  });
  await tour.step('a file, written and read', async () => {
    const path = `${directory}/ä file.txt`;
    const content = `"\\é漢😀\n`.repeat(5000);
    await call({ name: 'write_file', arguments: { path, content } });
    const answer = await call({ name: 'read_text_file', arguments: { path } });
    check(firstText(answer) === content, 'another text', firstText(answer)?.slice(0, 80));
    const list = firstText(await call({ name: 'list_directory', arguments: { path: directory } }));
    check(list.includes('ä file.txt'), 'not listed', list);
  });
  await tour.step('a file elsewhere', async () => {
    const answer = await call({ name: 'read_text_file', arguments: { path: '/etc/hostname' } });
    check(answer.isError === true, 'no refusal', answer);
  });
}

/** Walks through `@modelcontextprotocol/server-memory`. */
export async function memory(tour, { client, call }) {
  await tour.step('tools/list', async () => {
    const names = (await client.listTools()).tools.map(({ name }) => name);
    for (const name of ['create_entities', 'read_graph']) check(names.includes(name), name, names);
  });
  await tour.step('an entity, made and found', async () => {
    const entity = { name: 'Zürich', entityType: 'city', observations: ['on a lake'] };
    await call({ name: 'create_entities', arguments: { entities: [entity] } });
    const graph = JSON.parse(firstText(await call({ name: 'read_graph', arguments: {} })));
    check(graph.entities.some(({ name }) => name === 'Zürich'), 'not there', graph);
    const found = JSON.parse(firstText(await call({ name: 'search_nodes', arguments: { query: 'lake' } })));
    check(found.entities.length === 1, 'not found', found);
  });
  await tour.step('an entity, deleted', async () => {
    await call({ name: 'delete_entities', arguments: { entityNames: ['Zürich'] } });
    const graph = JSON.parse(firstText(await call({ name: 'read_graph', arguments: {} })));
    check(graph.entities.length === 0, 'still there', graph);
  });
}

/** Walks through the server on Python's `mcp` as a client of the modern era, which answers no requests of a server's. */
export async function python(tour, { client, call }) {
  await tour.step('server', async () => {
    check(client.getServerVersion()?.name === 'python-fixture', 'wrong server', client.getServerVersion());
  });
  await tour.step('tools', async () => {
    const names = (await client.listTools()).tools.map(({ name }) => name);
    for (const name of ['echo', 'fail', 'count', 'ask']) check(names.includes(name), name, names);
    const text = `"\\\u0000\u001f\u2028é漢😀`.repeat(2000);
    const answer = await call({ name: 'echo', arguments: { text } });
    check(firstText(answer) === text, 'another text', firstText(answer)?.slice(0, 80));
    check((await call({ name: 'fail', arguments: {} })).isError === true, 'no error', null);
  });
  await tour.step('tools/call in parallel', async () => {
    const texts = Array.from({ length: 32 }, async (_, n) => {
      const answer = await call({ name: 'echo', arguments: { text: `text ${n}` } });
      check(firstText(answer) === `text ${n}`, `text ${n}`, answer);
    });
    await Promise.all(texts);
  });
  await tour.step('progress', async () => {
    const seen = [];
    const params = { name: 'count', arguments: { steps: 5 } };
    const answer = await call(params, { onprogress: ({ progress }) => seen.push(progress) });
    check(firstText(answer) === 'counted to 5', 'not counted', answer);
    check(seen.join() === '1,2,3,4,5', 'progress out of order', seen);
  });
  await tour.step('resources', async () => {
    check((await client.listResourceTemplates()).resourceTemplates.length === 1, 'template missing', null);
    const { contents } = await client.readResource({ uri: 'note://lake' });
    check(contents[0].text === 'the note lake', 'another note', contents);
  });
  await tour.step('prompts', async () => {
    const { messages } = await client.getPrompt({ name: 'greet', arguments: { name: 'Ada' } });
    check(messages[0].content.text === 'Hello, Ada!', 'another greeting', messages);
  });
}

/** As `python`, as a client of the legacy era. */
export async function pythonLegacy(tour, face) {
  await python(tour, face);
  await tour.step('sampling', async () => {
    const answer = await face.call({ name: 'ask', arguments: { question: 'who?' } });
    check(firstText(answer) === 'Sampled by the client', 'no sample', answer);
  });
}
