//! Owns the life of a fixture server's process and its listening socket: loopback only, Host and Origin checked, one
//! `ready PORT` line, an end on SIGTERM, SIGINT and when standard input closes (so that no orphan outlives its test).
//! Never speaks MCP.
import { createServer } from 'node:http';

/** Largest request body that a fixture reads, in bytes. */
const MAX_BODY_BYTES = 4 * 1024 * 1024;

const LOCAL_NAMES = new Set(['localhost', '127.0.0.1', '[::1]']);

/**
 * Serves `handle(req, res)` at `/mcp` on 127.0.0.1. The port is the first argument or PORT; 0 or nothing takes a free one.
 * @param {(req: import('node:http').IncomingMessage, res: import('node:http').ServerResponse) => Promise<void>} handle
 */
export function serve(handle) {
  const server = createServer((req, res) => {
    answer(handle, req, res).catch((error) => {
      console.error(error);
      if (!res.headersSent) res.writeHead(500);
      res.end();
    });
  });
  // A gateway keeps its connections to an upstream for minutes; the fixture must not be the one that closes them.
  server.keepAliveTimeout = 300_000;
  server.listen(Number(process.argv[2] ?? process.env.PORT ?? 0), '127.0.0.1', () => {
    process.stdout.write(`ready ${server.address().port}\n`);
  });

  const end = () => process.exit(0);
  process.once('SIGTERM', end);
  process.once('SIGINT', end);
  process.stdin.once('end', end);
  process.stdin.once('close', end);
  process.stdin.resume();
}

/** Reads a request's JSON body; `undefined` when there is none. Throws when it is too large or not JSON. */
export async function readJson(req) {
  const chunks = [];
  let size = 0;
  for await (const chunk of req) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new RangeError(`body over ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return size === 0 ? undefined : JSON.parse(Buffer.concat(chunks).toString('utf8'));
}

/** Answers with a JSON-RPC error that belongs to no request. */
export function refuse(res, status, code, message) {
  res.writeHead(status, { 'content-type': 'application/json' });
  res.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code, message } }));
}

async function answer(handle, req, res) {
  if (!isLocal(req.headers.host) || !isLocalOrigin(req.headers.origin)) {
    refuse(res, 403, -32000, 'Host or Origin is not this machine');
    return;
  }
  if (new URL(req.url, 'http://127.0.0.1').pathname !== '/mcp') {
    res.writeHead(404).end();
    return;
  }
  await handle(req, res);
}

function isLocal(host) {
  return host !== undefined && LOCAL_NAMES.has(host.replace(/:\d+$/, '').toLowerCase());
}

function isLocalOrigin(origin) {
  if (origin === undefined) return true;
  return URL.canParse(origin) && LOCAL_NAMES.has(new URL(origin).hostname.toLowerCase());
}
