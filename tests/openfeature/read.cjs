// Reads flags through the public OpenFeature SDKs and OFREP providers, as they are on npm, and prints what they say.
// Usage: node read.cjs URL TOKEN…, with NODE_PATH pointing at the packages. Each token is of one tenant.
const { OpenFeature } = require('@openfeature/server-sdk');
const { OFREPProvider } = require('@openfeature/ofrep-provider');

async function server(baseUrl, token, index) {
  const domain = `tenant-${index}`;
  const headers = [['Authorization', `Bearer ${token}`]];
  await OpenFeature.setProviderAndWait(domain, new OFREPProvider({ baseUrl, headers }));
  const client = OpenFeature.getClient(domain);
  const context = { targetingKey: 'user-123', country: 'de' };
  const told = async (details) => {
    const { value, variant, reason, errorCode, flagMetadata } = await details;
    return { value, variant, reason, errorCode, level: flagMetadata && flagMetadata.level };
  };
  return {
    rollout: await told(client.getBooleanDetails('rollout', false, context)),
    colour: await told(client.getStringDetails('colour', 'none', context)),
    size: await told(client.getNumberDetails('size', -1, context)),
    layout: await told(client.getObjectDetails('layout', {}, context)),
    missing: await told(client.getBooleanDetails('missing', true, context)),
    wrongType: await told(client.getBooleanDetails('colour', true, context)),
    otherTenant: await told(client.getBooleanDetails('rollout', false, { ...context, tenant: 'somebody-else' })),
  };
}

async function main() {
  const [baseUrl, ...tokens] = process.argv.slice(2);
  const results = [];
  for (const [index, token] of tokens.entries()) {
    results.push(await server(baseUrl, token, index));
  }
  console.log(JSON.stringify(results));
  await OpenFeature.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
