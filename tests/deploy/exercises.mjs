// Stands in for k6: runs a script's default function a few times as one virtual user, with the parts of k6's modules that the
// script may use, and prints what its metrics came to. Never measures anything, and never waits where the script sleeps.
// Usage: node exercises.mjs SCRIPT

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const ITERATIONS = 5;
const told = { requests: 0 };

// k6's requests are synchronous, Node's are not: curl is.
function post(url, body, { headers }) {
  told.requests += 1;
  const options = Object.entries(headers).flatMap(([name, value]) => ['--header', `${name}: ${value}`]);
  const text = execFileSync('curl', ['--silent', '--show-error', '--insecure', '--include', '--max-time', '20', ...options, '--data', body, url], {
    encoding: 'utf8',
  });
  const [head, ...rest] = text.split('\r\n\r\n');
  const [line, ...fields] = head.split('\r\n');
  // As k6 writes names: each word of them with a capital.
  const capital = (name) => name.toLowerCase().replace(/(^|-)[a-z]/g, (letter) => letter.toUpperCase());
  const pairs = fields.map((field) => [capital(field.split(':')[0]), field.slice(field.indexOf(':') + 1).trim()]);
  return { status: Number(line.split(' ')[1]), headers: Object.fromEntries(pairs), body: rest.join('\r\n\r\n') };
}

class Counter {
  constructor(name) {
    this.name = name;
    told[name] = 0;
  }

  add(value) {
    told[this.name] += value;
  }
}

class Rate {
  constructor(name) {
    this.name = name;
    told[name] = [0, 0];
  }

  add(value) {
    told[this.name][0] += value ? 1 : 0;
    told[this.name][1] += 1;
  }
}

globalThis.__ENV = process.env;
globalThis.k6 = {
  http: { post },
  check: (value, tests) => Object.values(tests).map((test) => Boolean(test(value))).every(Boolean),
  sleep: () => undefined,
  Counter,
  Rate,
};

const source = readFileSync(process.argv[2], 'utf8')
  .replace("import http from 'k6/http';", 'const { http } = globalThis.k6;')
  .replace(/^import (\{[^}]*\}) from 'k6(\/metrics)?';/gm, 'const $1 = globalThis.k6;');
const script = await import(`data:text/javascript,${encodeURIComponent(source)}`);
if (!script.options.thresholds) {
  throw new Error('the script has no thresholds');
}
for (let iteration = 0; iteration < ITERATIONS; iteration += 1) {
  script.default();
}
console.log(JSON.stringify(told));
