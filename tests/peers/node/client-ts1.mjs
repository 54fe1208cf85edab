//! Drives the TypeScript SDK 1.x client: `client-ts1.mjs everything|legacy|filesystem|memory|python-legacy URL`, over HTTP, SSE or WebSocket; instead
//! of the URL, a JSON array is the command of a stdio server. Prints one JSON object, `{step: "ok" | error}`;
//! exits with 0 when every step went well. A CA of the tests' own is trusted by NODE_EXTRA_CA_CERTS.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CallToolResultSchema,
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  PromptListChangedNotificationSchema,
  ResourceListChangedNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { ANSWERS, CAPABILITIES, everything, legacy } from './lib/legacy-tours.mjs';
import { filesystem, memory, pythonLegacy } from './lib/server-tours.mjs';
import { Mailbox, Tour, check } from './lib/tour.mjs';
import { open } from './lib/transport.mjs';

const TOURS = { everything, legacy, filesystem, memory, 'python-legacy': pythonLegacy };
const [name, url] = process.argv.slice(2);
const tour = new Tour();
const mailbox = new Mailbox();

const client = new Client({ name: 'tour-ts1', version: '1.0.0' }, { capabilities: CAPABILITIES });
for (const schema of [CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema]) {
  client.setRequestHandler(schema, ({ method }) => ANSWERS[method]());
}
for (const schema of [
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
  PromptListChangedNotificationSchema,
  ResourceListChangedNotificationSchema,
]) {
  client.setNotificationHandler(schema, ({ method, params }) => mailbox.push(method, params));
}

const { transport, sessionId, terminate, httpUrl } = open(url, {
  http: StreamableHTTPClientTransport,
  sse: SSEClientTransport,
  stdio: StdioClientTransport,
});
await tour.step('connect', async () => {
  await client.connect(transport);
  // Sockets and pipes have no header that would need the revision, and streams do not show it.
  const revision = transport.protocolVersion ?? '2025-11-25';
  check(revision === '2025-11-25', 'another revision', revision);
});
await TOURS[name](tour, {
  client,
  call: (params, options) => client.callTool(params, CallToolResultSchema, options),
  mailbox,
  terminate,
  sessionId,
  url: httpUrl,
});
await tour.step('close', () => client.close());
tour.finish();
