// Posts to an unknown path and then a signed message, again and again over one connection of Node's agent.
// Arguments: port, how often, signature and body of the message. Prints how many messages were answered 200.
const http = require('http');
const [port, rounds, signature, body] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function post(path, headers, pieces) {
  return new Promise((resolve, reject) => {
    const length = pieces.reduce((sum, piece) => sum + Buffer.byteLength(piece), 0);
    const request = http.request({
      agent, port, path, host: '127.0.0.1', method: 'POST', headers: { ...headers, 'Content-Length': length },
    }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    });
    request.on('error', reject);
    request.flushHeaders();
    const next = (at) => {
      if (at === pieces.length) return request.end();
      setImmediate(() => request.write(pieces[at], () => next(at + 1)));
    };
    next(0);
  });
}

(async () => {
  let taken = 0;
  for (let round = 0; round < Number(rounds); round += 1) {
    const refused = await post('/webhook/nope', {}, ['a stranger', 's body']);
    if (refused !== 404) throw new Error(`the stranger got ${refused}`);
    if (await post('/webhook', { 'X-Signature': signature }, [body]) === 200) taken += 1;
  }
  console.log(taken);
  agent.destroy();
})().catch((error) => { console.log(String(error)); process.exit(1); });
