//! Drives the TypeScript SDK 2.x client: `client-ts2.mjs everything|legacy|modern|auto-everything|auto-modern|filesystem|memory|python|python-legacy|auto-python URL`.
//! The `auto` tours let the client find the server's era by itself. Instead of the URL, a JSON array is the command of a stdio server. Prints one JSON object, `{step: "ok" | error}`; exits with 0 when every
//! step went well. A CA of the tests' own is trusted by NODE_EXTRA_CA_CERTS.
import { Client, LOG_LEVEL_META_KEY, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { ANSWERS, CAPABILITIES, NOTIFICATIONS, everything, legacy } from './lib/legacy-tours.mjs';
import { modern } from './lib/modern-tour.mjs';
import { filesystem, memory, python, pythonLegacy } from './lib/server-tours.mjs';
import { Mailbox, Tour, check } from './lib/tour.mjs';
import { open } from './lib/transport.mjs';

/** How each tour negotiates, what it must come to and where it goes. */
const TOURS = {
  everything: { mode: 'legacy', era: 'legacy', walk: everything },
  legacy: { mode: 'legacy', era: 'legacy', walk: legacy },
  modern: { mode: { pin: '2026-07-28' }, era: 'modern', walk: modern },
  'auto-everything': { mode: 'auto', era: 'legacy', walk: everything },
  'auto-modern': { mode: 'auto', era: 'modern', walk: modern },
  filesystem: { mode: 'legacy', era: 'legacy', walk: filesystem },
  memory: { mode: 'legacy', era: 'legacy', walk: memory },
  python: { mode: { pin: '2026-07-28' }, era: 'modern', walk: python },
  'python-legacy': { mode: 'legacy', era: 'legacy', walk: pythonLegacy },
  'auto-python': { mode: 'auto', era: 'modern', walk: python },
};
const [name, url] = process.argv.slice(2);
const { mode, era, walk } = TOURS[name];
const tour = new Tour();
const mailbox = new Mailbox();

const client = new Client(
  { name: 'tour-ts2', version: '1.0.0' },
  { capabilities: CAPABILITIES, versionNegotiation: { mode } },
);
for (const [method, answer] of Object.entries(ANSWERS)) client.setRequestHandler(method, () => answer());
for (const method of NOTIFICATIONS) client.setNotificationHandler(method, ({ params }) => mailbox.push(method, params));

const { transport, sessionId, terminate, httpUrl } = open(url, {
  http: StreamableHTTPClientTransport,
  sse: SSEClientTransport,
  stdio: StdioClientTransport,
});
await tour.step('connect', async () => {
  await client.connect(transport);
  check(client.getProtocolEra() === era, 'another era', client.getProtocolEra());
});
await walk(tour, {
  client,
  call: (params, options) => client.callTool(params, options),
  mailbox,
  terminate,
  sessionId,
  logLevel: LOG_LEVEL_META_KEY,
  url: httpUrl,
});
await tour.step('close', () => client.close());
tour.finish();
