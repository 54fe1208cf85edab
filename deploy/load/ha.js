// Load for a test of availability: `k6 run --vus 1000 --duration 30m -e URL=https://mcp.example.com/mcp ha.js`. Each virtual user
// opens a session, calls a tool in it again and again, and opens another one when that is gone; what fails is counted, by kind.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter, Rate } from 'k6/metrics';

const URL = __ENV.URL || 'https://127.0.0.1:8443/mcp';
const TOOL = __ENV.TOOL || 'echo';
const ARGUMENTS = JSON.parse(__ENV.ARGUMENTS || '{"message":"k6"}');
const TOKEN = __ENV.TOKEN;

const failed = new Rate('mcp_failed');
const lost = new Counter('mcp_sessions_lost');
const shed = new Counter('mcp_shed');

export const options = {
  insecureSkipTLSVerify: __ENV.INSECURE === '1',
  noConnectionReuse: false,
  thresholds: {
    // What "highly available" is to mean: 99.99 % of calls, through every roll-out and failover of the half hour.
    mcp_failed: ['rate<0.0001'],
    mcp_sessions_lost: ['count==0'],
    http_req_duration: ['p(95)<1000'],
  },
};

let session;
let id = 0;

function post(message, headers) {
  const sent = {
    'Content-Type': 'application/json',
    Accept: 'application/json, text/event-stream',
    ...(TOKEN ? { Authorization: `Bearer ${TOKEN}` } : {}),
    ...headers,
  };
  return http.post(URL, JSON.stringify(message), { headers: sent });
}

function open() {
  id += 1;
  const answer = post({
    jsonrpc: '2.0', id, method: 'initialize',
    params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'k6', version: '1' } },
  });
  if (!check(answer, { 'a session is opened': (r) => r.status === 200 && r.headers['Mcp-Session-Id'] })) {
    return undefined;
  }
  const headers = { 'Mcp-Session-Id': answer.headers['Mcp-Session-Id'], 'MCP-Protocol-Version': '2025-11-25' };
  post({ jsonrpc: '2.0', method: 'notifications/initialized' }, headers);
  return headers;
}

export default function () {
  session = session || open();
  if (!session) {
    failed.add(true);
    sleep(1);
    return;
  }
  id += 1;
  const answer = post(
    { jsonrpc: '2.0', id, method: 'tools/call', params: { name: TOOL, arguments: ARGUMENTS } }, session);
  if (answer.status === 404) {
    lost.add(1);
    session = undefined;
  }
  if (answer.status === 503 || answer.status === 429) {
    // A gateway that has enough to do says so, and when to come back.
    shed.add(1);
    sleep(Number(answer.headers['Retry-After'] || 1));
  }
  failed.add(!check(answer, { 'a call is answered': (r) => r.status === 200 && !String(r.body).includes('"error"') }));
  sleep(Math.random());
}
