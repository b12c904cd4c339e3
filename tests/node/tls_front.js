// A proxy that speaks TLS before a server that does not, as docs/pubsub.md asks for one.
//
//     node tests/node/tls_front.js HOST:PORT CERTIFICATE KEY
//
// Prints its own port, and ends with its standard input.
'use strict';

const fs = require('fs');
const net = require('net');
const tls = require('tls');

const [target, cert, key] = process.argv.slice(2);
const [host, port] = target.split(':');
const options = {cert: fs.readFileSync(cert), key: fs.readFileSync(key), ALPNProtocols: ['h2', 'http/1.1']};

const front = tls.createServer(options, client => {
  const server = net.connect(Number(port), host);
  for (const socket of [client, server]) {
    socket.setNoDelay(true);
    socket.on('error', () => {
      client.destroy();
      server.destroy();
    });
  }
  client.pipe(server).pipe(client);
});
front.listen(0, '127.0.0.1', () => console.log(front.address().port));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
