// Keeps the flags of a browser's SDK up to date over the event stream: prints `ready VALUE`, and `changed VALUE` when the
// stream says that something is different. Usage: node watch.cjs URL TOKEN FLAG, with NODE_PATH as for read.cjs.
const { OpenFeature, ProviderEvents } = require('@openfeature/web-sdk');

// What browsers have: enough of it for the provider. Like theirs, it can send no header.
class EventSource extends EventTarget {
  constructor(url) {
    super();
    this.readyState = 0;
    this.abort = new AbortController();
    this.run(url).catch(() => this.fail());
  }

  async run(url) {
    const response = await fetch(url, { signal: this.abort.signal, headers: { Accept: 'text/event-stream' } });
    if (response.status !== 200) return this.fail();
    this.readyState = 1;
    this.dispatchEvent(new Event('open'));
    let text = '';
    for await (const chunk of response.body) {
      text += Buffer.from(chunk).toString();
      const frames = text.split('\n\n');
      text = frames.pop();
      for (const frame of frames) {
        const data = frame.split('\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6));
        if (data.length) this.dispatchEvent(new MessageEvent('message', { data: data.join('\n') }));
      }
    }
    this.fail();
  }

  fail() {
    this.readyState = 2;
    this.dispatchEvent(new Event('error'));
  }

  close() {
    this.readyState = 2;
    this.abort.abort();
  }
}
globalThis.EventSource = globalThis.EventSource || EventSource;

const { OFREPWebProvider } = require('@openfeature/ofrep-web-provider');

async function main() {
  const [baseUrl, token, flag] = process.argv.slice(2);
  const headers = [['Authorization', `Bearer ${token}`]];
  await OpenFeature.setContext({ targetingKey: 'user-123' });
  await OpenFeature.setProviderAndWait(new OFREPWebProvider({ baseUrl, headers }));
  const client = OpenFeature.getClient();
  console.log(`ready ${client.getBooleanValue(flag, false)}`);
  client.addHandler(ProviderEvents.ConfigurationChanged, () => {
    console.log(`changed ${client.getBooleanValue(flag, false)}`);
    process.exit(0);
  });
  setTimeout(() => process.exit(2), 60_000);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
