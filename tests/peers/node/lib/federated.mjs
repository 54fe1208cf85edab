//! Lets a tour that was made for one server walk where many are shown as one: puts the server's name before what the tour asks
//! for, and takes it off what the tour is told. What is other servers' is left out of lists. Owns nothing of the tours.

/** A transport that a tour of `server` alone can use at all servers' URL. */
export function federated(transport, server) {
  const names = `${server}__`;
  const uris = `mcp+${server}:`;
  const send = transport.send.bind(transport);
  transport.send = (message, options) =>
    send(Array.isArray(message) ? message.map((one) => asked(one, names, uris)) : asked(message, names, uris), options);
  let listener;
  Object.defineProperty(transport, 'onmessage', {
    get: () => listener,
    set: (given) => {
      listener = given && ((message, extra) => given(told(message, server, names, uris), extra));
    },
  });
  return transport;
}

/** A message of the client's with the server's name before what is the server's. */
function asked(message, names, uris) {
  const { method, params } = message;
  if (params === undefined) return message;
  const changed = { ...params };
  switch (method) {
    case 'tools/call':
    case 'prompts/get':
      changed.name = names + params.name;
      break;
    case 'resources/read':
    case 'resources/subscribe':
    case 'resources/unsubscribe':
      changed.uri = uris + params.uri;
      break;
    case 'completion/complete':
      changed.ref = { ...params.ref };
      if (params.ref.name !== undefined) changed.ref.name = names + params.ref.name;
      if (params.ref.uri !== undefined) changed.ref.uri = uris + params.ref.uri;
      break;
    case 'subscriptions/listen': {
      const wanted = params.notifications.resourceSubscriptions;
      if (wanted !== undefined) {
        changed.notifications = { ...params.notifications, resourceSubscriptions: wanted.map((uri) => uris + uri) };
      }
      break;
    }
  }
  return { ...message, params: changed };
}

/** A message of the gateway's without the server's name, and without what is other servers'. */
function told(message, server, names, uris) {
  const strip = (value) => {
    if (typeof value === 'string') return value.startsWith(uris) ? value.slice(uris.length) : value;
    if (Array.isArray(value)) return value.map(strip);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, strip(member)]));
  };
  const { result } = message;
  if (result === undefined) return message.method === undefined ? message : { ...message, params: strip(message.params) };
  const own = { ...result };
  for (const list of ['tools', 'prompts']) {
    if (!Array.isArray(own[list])) continue;
    own[list] = own[list]
      .filter(({ name }) => name.startsWith(names))
      .map((item) => ({ ...item, name: item.name.slice(names.length) }));
  }
  for (const [list, key] of [['resources', 'uri'], ['resourceTemplates', 'uriTemplate']]) {
    if (Array.isArray(own[list])) own[list] = own[list].filter((item) => item[key].startsWith(uris));
  }
  // What the gateway says of itself stands for the server.
  if (own.serverInfo !== undefined) own.serverInfo = { ...own.serverInfo, name: server };
  const key = 'io.modelcontextprotocol/serverInfo';
  if (own._meta?.[key] !== undefined) own._meta = { ...own._meta, [key]: { ...own._meta[key], name: server } };
  return { ...message, result: strip(own) };
}
