//! Owns the way from a driver to its server: Streamable HTTP for `https:` and `http:`, HTTP with SSE where the path begins with
//! `/sse`, WebSocket for `wss:`, a command's pipes for a JSON array. A session that
//! a gateway opened over a socket is told in the result's `_meta`, and is ended over HTTP. A fragment of an HTTP URL names the
//! one of many servers there that the tour is for.
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';
import { federated } from './federated.mjs';
import { until } from './tour.mjs';

const SESSION_META = 'mcp-gateway/sessionId';

/** The transport to `url`, its session's id and end, and the URL of the same server over HTTP; a command has none. */
export function open(url, transports) {
  if (url.startsWith('[')) {
    const [command, ...args] = JSON.parse(url);
    return { transport: new transports.stdio({ command, args, stderr: 'inherit' }) };
  }
  if (new URL(url).pathname.startsWith('/sse')) return openSse(url, transports.sse);
  if (!url.startsWith('wss:')) {
    const [bare, server] = url.split('#');
    const transport = new transports.http(new URL(bare));
    return {
      transport: server === undefined ? transport : federated(transport, server),
      sessionId: () => transport.sessionId,
      terminate: () => transport.terminateSession(),
      httpUrl: bare,
    };
  }
  const httpUrl = url.replace('wss:', 'https:').replace('/ws', '/mcp');
  const transport = new Socket(new URL(url));
  const terminate = async () => {
    const headers = { 'mcp-session-id': transport.sessionId };
    const response = await fetch(httpUrl, { method: 'DELETE', headers });
    await response.body?.cancel();
  };
  return { transport, sessionId: () => transport.sessionId, terminate, httpUrl };
}

/** A stream's session has no end but the stream's: then its messages are refused. */
function openSse(url, SseTransport) {
  let endpoint;
  const remember = (target, init) => {
    if (init?.method === 'POST') endpoint = new URL(target);
    return fetch(target, init);
  };
  const transport = new SseTransport(new URL(url), { fetch: remember });
  const terminate = async () => {
    await transport.close();
    await until(async () => {
      const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' });
      const response = await fetch(endpoint, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
      await response.body?.cancel();
      return response.status === 404;
    });
  };
  const sessionId = () => endpoint?.searchParams.get('sessionId') ?? undefined;
  return { transport, sessionId, terminate, httpUrl: url.replace('/sse', '/mcp') };
}

class Socket extends WebSocketClientTransport {
  #listener;

  set onmessage(listener) {
    this.#listener = (message, extra) => {
      this.sessionId ??= message.result?._meta?.[SESSION_META];
      listener?.(message, extra);
    };
  }

  get onmessage() {
    return this.#listener;
  }
}
