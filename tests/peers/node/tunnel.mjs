//! A tunnel, plain TCP in and TLS out: `tunnel.mjs HOST PORT`, for the scenarios of the conformance suite that speak plain HTTP
//! whatever their URL says. Prints `ready PORT`; ends when standard input closes. The authority is trusted by
//! NODE_EXTRA_CA_CERTS. Never looks at the bytes.
import { createServer } from 'node:net';
import { connect } from 'node:tls';

const [host, port] = process.argv.slice(2);

const server = createServer((plain) => {
  const secure = connect({ host, port: Number(port) });
  plain.pipe(secure).pipe(plain);
  plain.on('error', () => secure.destroy());
  secure.on('error', () => plain.destroy());
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`ready ${server.address().port}\n`));
process.stdin.once('end', () => process.exit(0));
process.stdin.resume();
