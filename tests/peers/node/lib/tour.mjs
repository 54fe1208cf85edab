//! Owns how a client driver runs and reports: steps one after another, each with a limit in time, a mailbox for what the
//! server says unasked, one JSON object at the end. Never speaks MCP.
import { writeSync } from 'node:fs';

/** Longest time that a step may take, in milliseconds. */
const STEP_LIMIT_MS = 20_000;

/** Runs named steps and remembers how each ended. */
export class Tour {
  #results = {};

  /** Runs one step. What follows a failed `connect` is not tried: the driver ends. */
  async step(name, run) {
    let timer;
    const limit = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no end within ${STEP_LIMIT_MS} ms`)), STEP_LIMIT_MS);
    });
    try {
      await Promise.race([run(), limit]);
      this.#results[name] = 'ok';
    } catch (error) {
      this.#results[name] = `${error}${error?.cause ? `; cause: ${error.cause}` : ''}`;
      if (name === 'connect') this.finish();
    } finally {
      clearTimeout(timer);
    }
  }

  /** Prints `{step: "ok" | error}` and ends the process: 0 when every step went well. */
  finish() {
    const failed = Object.values(this.#results).some((result) => result !== 'ok');
    writeSync(1, `${JSON.stringify(this.#results)}\n`);
    process.exit(failed ? 1 : 0);
  }
}

/** Holds what the server said unasked until a step wants it. */
export class Mailbox {
  #letters = [];
  #waiting = [];

  /** Takes in what arrived. */
  push(method, params) {
    this.#letters.push({ method, params });
    for (const look of this.#waiting.splice(0)) look();
  }

  /** Whether a `method` lies here. */
  has(method) {
    return this.#letters.some((letter) => letter.method === method);
  }

  /** Resolves with the params of the first `method` for which `wanted` holds; a step's limit ends a vain wait. */
  async take(method, wanted = () => true) {
    for (;;) {
      const at = this.#letters.findIndex((letter) => letter.method === method && wanted(letter.params));
      if (at >= 0) return this.#letters.splice(at, 1)[0].params;
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
  }
}

/** Throws with `message` and what was got unless `held`. */
export function check(held, message, got) {
  if (!held) throw new Error(`${message}; got ${JSON.stringify(got)}`);
}

/** The first text of a tool's answer. */
export const firstText = (answer) => answer.content.find(({ type }) => type === 'text')?.text;

/** Calls `probe` again and again until it gives true; a step's limit ends a vain wait. */
export async function until(probe, everyMs = 50) {
  while (!(await probe())) await new Promise((resolve) => setTimeout(resolve, everyMs));
}
