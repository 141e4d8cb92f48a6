// A headless Chromium with its virtual authenticator (DevTools protocol, domain WebAuthn), on a page of http://localhost.
//
// Prints the origin of the page. Then each line of standard input is {"create": OPTIONS} or {"get": OPTIONS} with options as the
// API returns them, and is answered by a line: {"credential": JSON} for the API, or {"error": TEXT}. It ends with its input.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const page = createServer((_, response) => {
  response.setHeader('Content-Type', 'text/html');
  response.end('<!doctype html><title>Passkeys</title>');
});
await new Promise((listening) => page.listen(0, '127.0.0.1', listening));
const origin = `http://localhost:${page.address().port}`;

const profile = mkdtempSync(join(tmpdir(), 'tenantry-chromium-'));
const chromium = spawn(
  process.argv[2] ?? 'chromium',
  // Its sandbox refuses to run as root, and needs rights that containers do not give.
  ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--remote-debugging-pipe', `--user-data-dir=${profile}`],
  { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
);
chromium.on('error', (error) => end(`chromium does not start: ${error.message}`));
chromium.on('exit', (code) => end(code ? `chromium has ended: ${code}` : undefined));

function end(problem) {
  if (problem) console.error(problem);
  // Processes of its own may still write there for a moment.
  rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  process.exit(problem ? 1 : 0);
}

// Messages of the protocol end with a NUL.
const waiting = new Map();
let next = 1;
let unread = '';
chromium.stdio[4].setEncoding('utf8');
chromium.stdio[4].on('data', (text) => {
  const messages = (unread + text).split('\0');
  unread = messages.pop();
  for (const message of messages.map((one) => JSON.parse(one))) {
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
  }
});
async function call(method, params = {}, sessionId = undefined) {
  const id = next++;
  const answer = new Promise((resolve) => waiting.set(id, resolve));
  chromium.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  const { error, result } = await answer;
  if (error) throw new Error(`${method}: ${error.message}`);
  return result;
}

const { targetId } = await call('Target.createTarget', { url: origin });
const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
async function evaluate(expression) {
  const parameters = { expression, awaitPromise: true, returnByValue: true, userGesture: true };
  const { result, exceptionDetails } = await call('Runtime.evaluate', parameters, sessionId);
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}
await call('WebAuthn.enable', {}, sessionId);
const options = {
  protocol: 'ctap2',
  transport: 'internal',
  hasResidentKey: true,
  hasUserVerification: true,
  isUserVerified: true,
  automaticPresenceSimulation: true,
};
await call('WebAuthn.addVirtualAuthenticator', { options }, sessionId);
while (!(await evaluate(`location.origin === ${JSON.stringify(origin)} && document.readyState === 'complete'`)));
await call('Page.bringToFront', {}, sessionId);
console.log(origin);

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const [method, parse] = command.create
    ? ['create', 'parseCreationOptionsFromJSON']
    : ['get', 'parseRequestOptionsFromJSON'];
  const given = JSON.stringify(command[method]);
  try {
    const expression = `navigator.credentials.${method}({ publicKey: PublicKeyCredential.${parse}(${given}) }).then((one) => one.toJSON())`;
    console.log(JSON.stringify({ credential: await evaluate(expression) }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }));
  }
}
// What follows is in the handler of its exit.
await call('Browser.close');
