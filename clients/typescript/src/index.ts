import createFetchClient, { type Client, type Middleware } from "openapi-fetch";

import type { components, paths, webhooks } from "./schema.js";

export type { components, operations, paths, webhooks } from "./schema.js";

/** The error of every request that fails (RFC 9457). Branch on `code`. */
export type Problem = components["schemas"]["Problem"];

/** The body of a webhook of one type of events, once it is verified: `WebhookBody<"task.updated">`. */
export type WebhookBody<Type extends keyof webhooks> =
  webhooks[Type]["post"]["requestBody"]["content"]["application/json"];

/** A client: `GET`, `POST`, `PUT`, `PATCH` and `DELETE` with typed paths, parameters, bodies and responses. */
export type TenantryClient = Client<paths>;

export interface Options {
  /** The URL of the server, for example `https://api.example.com`. */
  baseUrl: string;
  /** An access token, or a function that returns the current one. It is sent with every request. */
  token?: string | (() => string | Promise<string>);
  /** The slug of the tenant, for requests without a token. */
  tenant?: string;
  /** Replaces the global `fetch`. */
  fetch?: (request: Request) => Promise<Response>;
}

/** Returns a client of a Tenantry server. */
export function createClient(options: Options): TenantryClient {
  const { baseUrl, token, tenant, fetch } = options;
  const client = createFetchClient<paths>(fetch ? { baseUrl, fetch } : { baseUrl });
  const headers: Middleware = {
    async onRequest({ request }) {
      const current = typeof token === "function" ? await token() : token;
      if (current !== undefined) request.headers.set("Authorization", `Bearer ${current}`);
      else if (tenant !== undefined) request.headers.set("X-Tenant-Slug", tenant);
      return request;
    },
  };
  client.use(headers);
  return client;
}

/** Returns a new key for the `Idempotency-Key` header. Use the same key when you send the same request again. */
export function idempotencyKey(): string {
  return crypto.randomUUID();
}
