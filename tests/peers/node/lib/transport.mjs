//! Owns the way from a driver to its server: Streamable HTTP for `https:` and `http:`, WebSocket for `wss:`. A session that
//! a gateway opened over a socket is told in the result's `_meta`, and is ended over HTTP.
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';

const SESSION_META = 'mcp-gateway/sessionId';

/** The transport to `url`, its session's id and end, and the URL of the same server over HTTP. */
export function open(url, HttpTransport) {
  if (!url.startsWith('wss:')) {
    const transport = new HttpTransport(new URL(url));
    return {
      transport,
      sessionId: () => transport.sessionId,
      terminate: () => transport.terminateSession(),
      httpUrl: url,
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
