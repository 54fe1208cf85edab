//! A legacy (2025-11-25 and earlier) MCP server on the official SDK 1.x: Streamable HTTP with sessions, GET streams and an
//! event store for resumption. Owns everything that the conformance suite's requirements for 2025-11-25 ask a server for.
//! Never serves 2026-07-28.
import { randomUUID } from 'node:crypto';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import {
  CallToolRequestSchema,
  CompleteRequestSchema,
  CreateMessageResultSchema,
  ElicitResultSchema,
  ErrorCode,
  GetPromptRequestSchema,
  ListPromptsRequestSchema,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListToolsRequestSchema,
  McpError,
  ReadResourceRequestSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
  isInitializeRequest,
} from '@modelcontextprotocol/sdk/types.js';
import {
  CONSTANT_TOOLS,
  CancelLog,
  DEFAULTS_FORM,
  ENUMS_FORM,
  LOG_LINES,
  NO_ARGUMENTS,
  PROGRESS_STEPS,
  PROMPTS,
  RESOURCES,
  SCHEMA_2020_12,
  STEP_MS,
  TEMPLATE,
  TOOL_ERROR,
  USER_FORM,
  complete,
  oneField,
  pause,
  templateContent,
  text,
} from './lib/content.mjs';
import { readJson, refuse, serve } from './lib/serve.mjs';

/** Sessions held at once; the oldest ends when another comes. */
const MAX_SESSIONS = 1024;
/** Events kept for resumption, over all of a session's streams. */
const MAX_EVENTS = 1024;
/** What clients are told to wait before they reconnect, in milliseconds. */
const RETRY_MS = 100;

/** Transport by session id, oldest first. */
const sessions = new Map();
/** The waits of `test_wait` that were cancelled. */
const cancelled = new CancelLog();

serve(async (req, res) => {
  let body;
  try {
    body = req.method === 'POST' ? await readJson(req) : undefined;
  } catch (error) {
    refuse(res, 400, ErrorCode.ParseError, `Parse error: ${error.message}`);
    return;
  }
  const id = req.headers['mcp-session-id'];
  let transport = sessions.get(id);
  if (transport === undefined) {
    if (id !== undefined) {
      refuse(res, 404, -32001, 'Session not found');
      return;
    }
    if (!isInitializeRequest(body)) {
      refuse(res, 400, -32000, 'Bad Request: no session id');
      return;
    }
    transport = await openSession();
  }
  await transport.handleRequest(req, res, body);
});

async function openSession() {
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: new EventStore(),
    retryInterval: RETRY_MS,
    onsessioninitialized: (id) => {
      sessions.set(id, transport);
      if (sessions.size > MAX_SESSIONS) sessions.values().next().value.close();
    },
  });
  transport.onclose = () => sessions.delete(transport.sessionId);
  await newServer().connect(transport);
  return transport;
}

/** Keeps the last events of a session so that a client that lost its stream can have them again. */
class EventStore {
  #events = [];
  #next = 1;

  async storeEvent(streamId, message) {
    const id = `${this.#next++}`;
    this.#events.push({ id, streamId, message });
    if (this.#events.length > MAX_EVENTS) this.#events.shift();
    return id;
  }

  async getStreamIdForEventId(id) {
    return this.#events.find((event) => event.id === id)?.streamId;
  }

  async replayEventsAfter(lastId, { send }) {
    const last = this.#events.findIndex((event) => event.id === lastId);
    if (last < 0) throw new Error(`event ${lastId} is not kept any more`);
    const { streamId } = this.#events[last];
    for (const event of this.#events.slice(last + 1)) {
      // A priming event has no message.
      if (event.streamId === streamId && Object.keys(event.message).length > 0) await send(event.id, event.message);
    }
    return streamId;
  }
}

function newServer() {
  const server = new Server(
    { name: 'legacy-fixture', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        prompts: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        logging: {},
        completions: {},
      },
      instructions: 'Answers what the conformance suite asks.',
    },
  );
  const subscriptions = new Set();
  const tools = newTools(server, subscriptions);

  server.setRequestHandler(ListToolsRequestSchema, () => ({
    tools: tools.map(({ name, description, inputSchema }) => ({ name, description, inputSchema })),
  }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => {
    const tool = tools.find(({ name }) => name === params.name);
    if (tool === undefined) throw new McpError(ErrorCode.InvalidParams, `Tool ${params.name} not found`);
    try {
      return await tool.call(params.arguments ?? {}, extra, params._meta);
    } catch (error) {
      return { ...text(error.message), isError: true };
    }
  });

  server.setRequestHandler(ListPromptsRequestSchema, () => ({
    prompts: PROMPTS.map(({ name, description, arguments: args }) => ({ name, description, arguments: args })),
  }));
  server.setRequestHandler(GetPromptRequestSchema, ({ params }) => {
    const prompt = PROMPTS.find(({ name }) => name === params.name);
    if (prompt === undefined) throw new McpError(ErrorCode.InvalidParams, `Prompt ${params.name} not found`);
    return { description: prompt.description, messages: prompt.messages(params.arguments ?? {}) };
  });

  server.setRequestHandler(ListResourcesRequestSchema, () => ({
    resources: RESOURCES.map(({ content, ...resource }) => resource),
  }));
  server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({ resourceTemplates: [TEMPLATE] }));
  server.setRequestHandler(ReadResourceRequestSchema, ({ params: { uri } }) => ({ contents: [read(uri)] }));
  server.setRequestHandler(SubscribeRequestSchema, ({ params: { uri } }) => {
    subscriptions.add(uri);
    return {};
  });
  server.setRequestHandler(UnsubscribeRequestSchema, ({ params: { uri } }) => {
    subscriptions.delete(uri);
    return {};
  });

  server.setRequestHandler(CompleteRequestSchema, ({ params }) => {
    const values = complete(params.argument.value);
    return { completion: { values, total: values.length, hasMore: false } };
  });
  return server;
}

function read(uri) {
  const resource = RESOURCES.find((candidate) => candidate.uri === uri);
  if (resource !== undefined) return { uri, mimeType: resource.mimeType, ...resource.content };
  const id = /^test:\/\/template\/([^/]+)\/data$/.exec(uri)?.[1];
  if (id !== undefined) return templateContent(uri, id);
  // -32002 is the code of a resource that is not there (2025-11-25, server/resources, Error Handling).
  throw new McpError(-32002, 'Resource not found', { uri });
}

function newTools(server, subscriptions) {
  const elicit = (message, requestedSchema, extra) =>
    extra.sendRequest({ method: 'elicitation/create', params: { message, requestedSchema } }, ElicitResultSchema);
  const tell = async (progress, extra, meta) => {
    if (meta?.progressToken === undefined) return;
    const params = { progressToken: meta.progressToken, progress, total: 100 };
    await extra.sendNotification({ method: 'notifications/progress', params });
  };
  const outcome = ({ action, content }) => `action=${action}, content=${JSON.stringify(content ?? {})}`;
  return [
    ...CONSTANT_TOOLS.map(([name, description, answer]) => ({
      name,
      description,
      inputSchema: NO_ARGUMENTS,
      call: async () => answer,
    })),
    {
      name: 'test_tool_with_logging',
      description: 'Logs three lines while it works',
      inputSchema: NO_ARGUMENTS,
      call: async (_args, extra) => {
        for (const data of LOG_LINES) {
          await extra.sendNotification({ method: 'notifications/message', params: { level: 'info', data } });
          await pause(STEP_MS, extra.signal);
        }
        return text('Logged');
      },
    },
    {
      name: 'test_tool_with_progress',
      description: 'Tells its progress in three steps',
      inputSchema: NO_ARGUMENTS,
      call: async (_args, extra, meta) => {
        for (const progress of PROGRESS_STEPS) {
          await tell(progress, extra, meta);
          await pause(STEP_MS, extra.signal);
        }
        return text('Done');
      },
    },
    {
      name: 'test_error_handling',
      description: 'Always fails',
      inputSchema: NO_ARGUMENTS,
      call: async () => {
        throw new Error(TOOL_ERROR);
      },
    },
    {
      name: 'test_reconnection',
      description: 'Closes its own stream before it answers (SEP-1699)',
      inputSchema: NO_ARGUMENTS,
      call: async (_args, extra) => {
        extra.closeSSEStream?.();
        await pause(2 * STEP_MS, extra.signal);
        return text('Reconnected');
      },
    },
    {
      name: 'test_sampling',
      description: "Asks the client's model",
      inputSchema: oneField('prompt', 'string'),
      call: async ({ prompt }, extra) => {
        const params = { messages: [{ role: 'user', content: { type: 'text', text: prompt } }], maxTokens: 100 };
        const answer = await extra.sendRequest({ method: 'sampling/createMessage', params }, CreateMessageResultSchema);
        return text(`LLM response: ${answer.content.text}`);
      },
    },
    {
      name: 'test_elicitation',
      description: 'Asks the user for a name',
      inputSchema: oneField('message', 'string'),
      call: async ({ message }, extra) => text(`User response: ${outcome(await elicit(message, USER_FORM, extra))}`),
    },
    {
      name: 'test_elicitation_sep1034_defaults',
      description: 'Asks the user with defaults of every primitive type',
      inputSchema: NO_ARGUMENTS,
      call: async (_args, extra) =>
        text(`Elicitation completed: ${outcome(await elicit('Please review', DEFAULTS_FORM, extra))}`),
    },
    {
      name: 'test_elicitation_sep1330_enums',
      description: 'Asks the user with every kind of enumeration',
      inputSchema: NO_ARGUMENTS,
      call: async (_args, extra) =>
        text(`Elicitation completed: ${outcome(await elicit('Please choose', ENUMS_FORM, extra))}`),
    },
    {
      name: 'json_schema_2020_12_tool',
      description: 'Has an input schema of JSON Schema 2020-12',
      inputSchema: SCHEMA_2020_12,
      call: async (args) => text(JSON.stringify(args)),
    },
    {
      name: 'test_wait',
      description: 'Waits until it is cancelled, ten seconds at most',
      inputSchema: oneField('key', 'string'),
      call: ({ key }, extra, meta) => cancelled.wait(key, extra.signal, () => tell(0, extra, meta)),
    },
    {
      name: 'test_was_cancelled',
      description: 'Says whether a wait was cancelled',
      inputSchema: oneField('key', 'string'),
      call: async ({ key }) => text(cancelled.tell(key)),
    },
    {
      name: 'test_update_watched_resource',
      description: 'Tells subscribers that the watched resource changed',
      inputSchema: NO_ARGUMENTS,
      call: async () => {
        const uri = 'test://watched-resource';
        if (subscriptions.has(uri)) await server.sendResourceUpdated({ uri });
        return text(subscriptions.has(uri) ? 'Told' : 'Nobody subscribed');
      },
    },
  ];
}
