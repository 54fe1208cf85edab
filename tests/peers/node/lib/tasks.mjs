//! Owns the tasks of the modern fixture (the extension `io.modelcontextprotocol/tasks`, SEP-2663): what they are, how they end,
//! what they ask of the client. Kept in memory, the oldest forgotten when there are too many. Never imports an SDK.
import { randomUUID } from 'node:crypto';

/** The extension's name among capabilities. */
export const TASKS = 'io.modelcontextprotocol/tasks';

/** Tasks kept at once. */
const MAX_TASKS = 1024;
/** How long a task is promised to be kept, in milliseconds. */
const TTL_MS = 300_000;
/** How often a client should look, in milliseconds. */
const POLL_INTERVAL_MS = 100;

/** The fixture's tasks. */
export class Tasks {
  #tasks = new Map();

  /**
   * Begins a task and returns what a `tools/call` answers then.
   * @param {(task: {signal: AbortSignal, ask: (requests: object) => Promise<object>}) => Promise<object>} work gives the tool's
   *   result; what it throws makes the task fail.
   */
  begin(work) {
    const task = new Task();
    this.#tasks.set(task.state.taskId, task);
    if (this.#tasks.size > MAX_TASKS) this.#tasks.delete(this.#tasks.keys().next().value);
    const begun = { resultType: 'task', ...task.state };
    task.run(work);
    return begun;
  }

  /** The task of an id, or `undefined`. */
  find(id) {
    return this.#tasks.get(id);
  }
}

class Task {
  #abort = new AbortController();
  #responses = {};
  #resume;

  constructor() {
    const now = new Date().toISOString();
    this.state = {
      taskId: randomUUID(),
      status: 'working',
      createdAt: now,
      lastUpdatedAt: now,
      ttlMs: TTL_MS,
      pollIntervalMs: POLL_INTERVAL_MS,
    };
  }

  async run(work) {
    try {
      const result = await work({ signal: this.#abort.signal, ask: (requests) => this.#ask(requests) });
      this.#change('completed', { result });
    } catch (error) {
      this.#change('failed', { error: { code: error.code ?? -32603, message: error.message } });
    }
  }

  /** Takes answers to what was asked; the task goes on when nothing is open. Answers to what was not asked are ignored. */
  update(responses) {
    const { inputRequests, ...rest } = this.state;
    if (inputRequests === undefined) return;
    const open = { ...inputRequests };
    for (const [key, response] of Object.entries(responses)) {
      if (!(key in open)) continue;
      this.#responses[key] = response;
      delete open[key];
    }
    this.state = rest;
    if (Object.keys(open).length > 0) {
      this.#change('input_required', { inputRequests: open });
    } else {
      this.#change('working', {});
      this.#resume(this.#responses);
    }
  }

  cancel() {
    const { inputRequests, ...rest } = this.state;
    if (!this.#ended()) this.state = rest;
    this.#change('cancelled', {});
    this.#abort.abort();
  }

  #ask(inputRequests) {
    this.#change('input_required', { inputRequests });
    return new Promise((resolve) => {
      this.#resume = resolve;
    });
  }

  /** An ended task stays as it is. */
  #change(status, more) {
    if (!this.#ended()) this.state = { ...this.state, ...more, status, lastUpdatedAt: new Date().toISOString() };
  }

  #ended() {
    return ['completed', 'failed', 'cancelled'].includes(this.state.status);
  }
}
