//! A modern (2026-07-28) MCP server on the official SDK 2.x: stateless, one fresh server object per request, input asked for
//! by multi-round-trip results, changes told on `subscriptions/listen` streams. Owns everything that the conformance suite's
//! requirements for 2026-07-28 ask a server for. Never serves an earlier revision.
import { randomBytes } from 'node:crypto';
import { toNodeHandler } from '@modelcontextprotocol/node';
import {
  CLIENT_CAPABILITIES_META_KEY,
  McpServer,
  MissingRequiredClientCapabilityError,
  ProtocolError,
  ProtocolErrorCode,
  ResourceTemplate,
  acceptedContent,
  completable,
  createMcpHandler,
  createRequestStateCodec,
  fromJsonSchema,
  inputRequired,
} from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';
import {
  CONSTANT_TOOLS,
  CancelLog,
  LOG_LINES,
  NO_ARGUMENTS,
  PROGRESS_STEPS,
  PROMPTS,
  RESOURCES,
  SCHEMA_2020_12,
  STEP_MS,
  TEMPLATE,
  TOOL_ERROR,
  complete,
  oneField,
  pause,
  templateContent,
  text,
} from './lib/content.mjs';
import { serve } from './lib/serve.mjs';
import { TASKS, Tasks } from './lib/tasks.mjs';

/** How long a client may keep a listing, in milliseconds. */
const LISTING_TTL_MS = 60_000;
/** How long a client may keep a resource, in milliseconds. */
const RESOURCE_TTL_MS = 5_000;

/** Seals what a round of questions leaves with the client; the key lives as long as the process. */
const sealed = createRequestStateCodec({ key: randomBytes(32) });

/** The waits of `test_wait` that were cancelled. */
const cancelled = new CancelLog();
/** The tasks that were begun. */
const tasks = new Tasks();

/** The tools by name. */
const tools = new Map();
addTools();
addQuestioningTools();
addTriggers();
addTaskTools();

const listing = { ttlMs: LISTING_TTL_MS, cacheScope: 'public' };
const notify = process.argv[2] === 'stdio' ? serveOnStdio() : serveOnHttp();

function serveOnHttp() {
  const handler = createMcpHandler(newServer, { legacy: 'reject' });
  serve(toNodeHandler(handler));
  return handler.notify;
}

/** One server object for the whole process, which tells its changes itself. */
function serveOnStdio() {
  let only;
  serveStdio(() => (only = newServer()), { legacy: 'reject' });
  return {
    toolsChanged: () => only.server.sendToolListChanged(),
    promptsChanged: () => only.server.sendPromptListChanged(),
    resourcesChanged: () => only.server.sendResourceListChanged(),
    resourceUpdated: (uri) => only.server.sendResourceUpdated({ uri }),
  };
}

function newServer() {
  const server = new McpServer(
    { name: 'modern-fixture', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        prompts: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        logging: {},
        completions: {},
        extensions: { [TASKS]: {} },
      },
      instructions: 'Answers what the conformance suite asks.',
      requestState: { verify: sealed.verify },
      cacheHints: {
        'tools/list': listing,
        'prompts/list': listing,
        'resources/list': listing,
        'resources/templates/list': listing,
        'server/discover': listing,
        'resources/read': { ttlMs: RESOURCE_TTL_MS, cacheScope: 'private' },
      },
    },
  );
  for (const [name, { description, inputSchema, call }] of tools) {
    server.registerTool(name, { description, inputSchema: fromJsonSchema(inputSchema) }, call);
  }
  // The SDK's own handler makes tool errors of the protocol's errors, and knows no tasks.
  server.server.setRequestHandler('tools/call', async ({ params }, ctx) => {
    const tool = tools.get(params.name);
    if (tool === undefined) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `Tool ${params.name} not found`);
    try {
      return await tool.call(params.arguments ?? {}, ctx);
    } catch (error) {
      if (error instanceof ProtocolError) throw error;
      return { ...text(error.message), isError: true };
    }
  });
  addTaskMethods(server);
  addPrompts(server);
  addResources(server);
  return server;
}

function addTools() {
  for (const [name, description, answer] of CONSTANT_TOOLS) addTool(name, description, NO_ARGUMENTS, () => answer);
  addTool('test_error_handling', 'Always fails', NO_ARGUMENTS, () => {
    throw new Error(TOOL_ERROR);
  });
  addTool('test_tool_with_progress', 'Tells its progress in three steps', NO_ARGUMENTS, async (_args, ctx) => {
    for (const progress of PROGRESS_STEPS) {
      await tellProgress(ctx, progress);
      await pause(STEP_MS, ctx.mcpReq.signal);
    }
    return text('Done');
  });
  addTool('test_logging_tool', 'Logs three lines for whoever asked for a level', NO_ARGUMENTS, async (_args, ctx) => {
    for (const line of LOG_LINES) await ctx.mcpReq.log('info', line);
    return text('Logged');
  });
  addTool('test_wait', 'Waits until it is cancelled, ten seconds at most', oneField('key', 'string'), ({ key }, ctx) =>
    cancelled.wait(key, ctx.mcpReq.signal, () => tellProgress(ctx, 0)),
  );
  addTool('test_was_cancelled', 'Says whether a wait was cancelled', oneField('key', 'string'), ({ key }) =>
    text(cancelled.tell(key)),
  );
  const mirrored = {
    type: 'object',
    properties: {
      region: { type: 'string', 'x-mcp-header': 'Region' },
      priority: { type: 'integer', 'x-mcp-header': 'Priority' },
      verbose: { type: 'boolean', 'x-mcp-header': 'Verbose' },
      query: { type: 'string' },
    },
    required: ['region'],
  };
  addTool('test_custom_headers', 'Mirrors arguments into headers', mirrored, (args) => text(JSON.stringify(args)));
  addTool('json_schema_2020_12_tool', 'Has an input schema of JSON Schema 2020-12', SCHEMA_2020_12, (args) =>
    text(JSON.stringify(args)),
  );
}

/** The tools that ask the client for input before they answer (2026-07-28, basic/patterns/mrtr). */
function addQuestioningTools() {
  addTool('test_input_required_result_elicitation', "Asks for the user's name", NO_ARGUMENTS, (_args, ctx) => {
    const name = accepted(ctx, 'user_name', { name: z.string() })?.name;
    if (name !== undefined) return text(`Hello, ${name}!`);
    return inputRequired({ inputRequests: { user_name: form('What is your name?', 'name', 'string') } });
  });
  addTool('test_streaming_elicitation', 'Asks for a confirmation', NO_ARGUMENTS, (_args, ctx) => {
    if (accepted(ctx, 'confirm', { ok: z.boolean() }) !== undefined) return text('Confirmed');
    return inputRequired({ inputRequests: { confirm: form('Please confirm', 'ok', 'boolean') } });
  });
  addTool('test_missing_capability', "Needs the client's sampling", NO_ARGUMENTS, (_args, ctx) => {
    if (declared(ctx).sampling === undefined) throw missing({ sampling: {} });
    return text('The client can sample');
  });
  addTool('test_input_required_result_sampling', "Asks the client's model", NO_ARGUMENTS, (_args, ctx) => {
    const answer = ctx.mcpReq.inputResponses?.capital_question;
    if (answer !== undefined) return text(`The model says: ${answer.content?.text}`);
    return inputRequired({ inputRequests: { capital_question: question('What is the capital of France?') } });
  });
  addTool('test_input_required_result_list_roots', "Asks for the client's roots", NO_ARGUMENTS, (_args, ctx) => {
    const roots = ctx.mcpReq.inputResponses?.client_roots?.roots;
    if (roots !== undefined) return text(`Roots: ${roots.map(({ uri }) => uri).join(', ')}`);
    return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
  });
  for (const name of ['test_input_required_result_request_state', 'test_input_required_result_tampered_state']) {
    addTool(name, 'Leaves sealed state with the client', NO_ARGUMENTS, async (_args, ctx) => {
      const confirmed = accepted(ctx, 'confirm', { ok: z.boolean() });
      if (confirmed !== undefined && ctx.mcpReq.requestState()?.tool === name) return text('state-ok');
      return inputRequired({
        inputRequests: { confirm: form('Please confirm', 'ok', 'boolean') },
        requestState: await sealed.mint({ tool: name }),
      });
    });
  }
  addTool('test_input_required_result_multiple_inputs', 'Asks three things at once', NO_ARGUMENTS, async (_args, ctx) => {
    const { user_name, greeting, client_roots } = ctx.mcpReq.inputResponses ?? {};
    if (user_name !== undefined && greeting !== undefined && client_roots !== undefined) {
      return text(`${greeting.content?.text} ${user_name.content?.name}: ${client_roots.roots?.length} root(s)`);
    }
    return inputRequired({
      inputRequests: {
        user_name: form('What is your name?', 'name', 'string'),
        greeting: question('Generate a greeting'),
        client_roots: inputRequired.listRoots(),
      },
      requestState: await sealed.mint({ tool: 'multiple' }),
    });
  });
  addTool('test_input_required_result_multi_round', 'Asks twice', NO_ARGUMENTS, async (_args, ctx) => {
    const state = ctx.mcpReq.requestState();
    const color = accepted(ctx, 'step2', { color: z.string() })?.color;
    if (color !== undefined && state?.name !== undefined) return text(`${state.name} likes ${color}`);
    const name = accepted(ctx, 'step1', { name: z.string() })?.name;
    if (name !== undefined && state?.round === 1) {
      return inputRequired({
        inputRequests: { step2: form('Step 2: What is your favorite color?', 'color', 'string') },
        requestState: await sealed.mint({ round: 2, name }),
      });
    }
    return inputRequired({
      inputRequests: { step1: form('Step 1: What is your name?', 'name', 'string') },
      requestState: await sealed.mint({ round: 1 }),
    });
  });
  addTool('test_input_required_result_capabilities', 'Asks only what the client can answer', NO_ARGUMENTS, (_args, ctx) => {
    const { sampling, elicitation } = declared(ctx);
    const inputRequests = {
      ...(sampling !== undefined && { greeting: question('Generate a greeting') }),
      ...(elicitation !== undefined && { user_name: form('What is your name?', 'name', 'string') }),
    };
    if (Object.keys(inputRequests).length === 0 || ctx.mcpReq.inputResponses !== undefined) return text('Nothing to ask');
    return inputRequired({ inputRequests });
  });
}

/** The tools that make open `subscriptions/listen` streams say something. */
function addTriggers() {
  const triggers = {
    test_trigger_tool_change: () => notify.toolsChanged(),
    test_trigger_prompt_change: () => notify.promptsChanged(),
    test_trigger_resource_change: () => notify.resourcesChanged(),
    test_update_watched_resource: () => notify.resourceUpdated('test://watched-resource'),
  };
  for (const [name, tell] of Object.entries(triggers)) {
    addTool(name, 'Tells listeners of a change', NO_ARGUMENTS, () => {
      tell();
      return text('Told');
    });
  }
}

/** The tools that become tasks for clients that know the extension. */
function addTaskTools() {
  const computing = { type: 'object', properties: { seconds: { type: 'number' }, label: { type: 'string' } } };
  addTool('greet', 'Greets at once', oneField('name', 'string'), ({ name }) => text(`Hello, ${name}!`));
  addTool('slow_compute', 'Takes its time', computing, ({ seconds = 1, label }, ctx) => {
    const compute = async ({ signal }) => {
      await pause(seconds * 1000, signal);
      return text(`Computed ${label} for ${seconds} s`);
    };
    return knowsTasks(ctx) ? tasks.begin(compute) : compute(ctx.mcpReq);
  });
  addTaskTool('failing_job', 'Ends with an error of the tool', NO_ARGUMENTS, async (_args, { signal }) => {
    await pause(STEP_MS, signal);
    return { ...text('The job failed'), isError: true };
  });
  addTaskTool('protocol_error_job', 'Ends with an error of the protocol', NO_ARGUMENTS, async (_args, { signal }) => {
    await pause(STEP_MS, signal);
    throw new ProtocolError(ProtocolErrorCode.InternalError, 'The job broke');
  });
  addTaskTool('confirm_delete', 'Asks before it deletes', oneField('filename', 'string'), async ({ filename }, { ask }) => {
    const { confirm } = await ask({ confirm: form(`Delete ${filename}?`, 'confirm', 'boolean') });
    return text(confirm.content?.confirm === true ? `Deleted ${filename}` : `Kept ${filename}`);
  });
  addTaskTool('multi_input', 'Asks two things at once', NO_ARGUMENTS, async (_args, { ask }) => {
    const { first, second } = await ask({
      first: form('First name?', 'name', 'string'),
      second: form('Second name?', 'name', 'string'),
    });
    return text(`${first.content?.name} and ${second.content?.name}`);
  });
  addTool('test_tool_with_task', 'Asks first, then becomes a task', NO_ARGUMENTS, (_args, ctx) => {
    requireTasks(ctx);
    const name = accepted(ctx, 'user_name', { name: z.string() })?.name;
    if (name !== undefined) return tasks.begin(async () => text(`Hello, ${name}!`));
    return inputRequired({ inputRequests: { user_name: form('What is your name?', 'name', 'string') } });
  });
}

/** Adds a tool that cannot work but as a task. */
function addTaskTool(name, description, inputSchema, work) {
  addTool(name, description, inputSchema, (args, ctx) => {
    requireTasks(ctx);
    return tasks.begin((task) => work(args, task));
  });
}

function addTaskMethods(server) {
  const method = (name, act) => {
    const params = z.looseObject({ taskId: z.string() });
    server.server.setRequestHandler(name, { params }, (request, ctx) => {
      requireTasks(ctx);
      const task = tasks.find(request.taskId);
      if (task === undefined) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `No task ${request.taskId}`);
      return { resultType: 'complete', ...act(task, request, ctx) };
    });
  };
  method('tasks/get', (task) => task.state);
  method('tasks/cancel', (task) => {
    task.cancel();
  });
  // The SDK lifts the responses out of the params.
  method('tasks/update', (task, request, ctx) => {
    task.update(ctx.mcpReq.inputResponses ?? request.inputResponses ?? {});
  });
}

function addPrompts(server) {
  for (const prompt of PROMPTS) {
    const argsSchema = z.object(
      Object.fromEntries(
        prompt.arguments.map(({ name, description }) => [name, completable(z.string().describe(description), complete)]),
      ),
    );
    const { name, description, messages } = prompt;
    server.registerPrompt(name, { description, argsSchema }, (args) => ({ description, messages: messages(args) }));
  }
  const name = 'test_input_required_result_prompt';
  server.registerPrompt(name, { description: 'A prompt that asks for its context' }, (ctx) => {
    const context = accepted(ctx, 'user_context', { context: z.string() })?.context;
    if (context === undefined) {
      const message = 'What context should the prompt use?';
      return inputRequired({ inputRequests: { user_context: form(message, 'context', 'string') } });
    }
    return { messages: [{ role: 'user', content: { type: 'text', text: `Context: ${context}` } }] };
  });
}

function addResources(server) {
  for (const { uri, name, description, mimeType, content } of RESOURCES) {
    server.registerResource(name, uri, { description, mimeType }, () => ({ contents: [{ uri, mimeType, ...content }] }));
  }
  const { uriTemplate, name, description, mimeType } = TEMPLATE;
  const template = new ResourceTemplate(uriTemplate, { list: undefined, complete: { id: complete } });
  server.registerResource(name, template, { description, mimeType }, (uri, { id }) => ({
    contents: [templateContent(uri.href, id)],
  }));
}

function addTool(name, description, inputSchema, call) {
  tools.set(name, { description, inputSchema, call });
}

async function tellProgress(ctx, progress) {
  const progressToken = ctx.mcpReq._meta?.progressToken;
  if (progressToken === undefined) return;
  await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
}

/** The capabilities that the client declared with this request. */
function declared(ctx) {
  return ctx.mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {};
}

function knowsTasks(ctx) {
  return declared(ctx).extensions?.[TASKS] !== undefined;
}

function requireTasks(ctx) {
  if (!knowsTasks(ctx)) throw missing({ extensions: { [TASKS]: {} } });
}

function missing(requiredCapabilities) {
  return new MissingRequiredClientCapabilityError({ requiredCapabilities });
}

/** What the user filled into the form `key`, when it was accepted and has `shape`. */
function accepted(ctx, key, shape) {
  return acceptedContent(ctx.mcpReq.inputResponses, key, z.object(shape));
}

function form(message, name, type) {
  return inputRequired.elicit({ message, requestedSchema: oneField(name, type) });
}

function question(value) {
  return inputRequired.createMessage({
    messages: [{ role: 'user', content: { type: 'text', text: value } }],
    maxTokens: 100,
  });
}
