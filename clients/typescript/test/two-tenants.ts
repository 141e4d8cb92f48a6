// Two tenants use the built client against a running server. TENANTRY_URL names the server; TENANTRY_USERS is a JSON list of
// {"tenant", "email", "password"}, one user of each tenant.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createClient, idempotencyKey, type Problem, type TenantryClient, type WebhookBody } from "../src/index.js";

interface User {
  tenant: string;
  email: string;
  password: string;
}

const baseUrl = process.env["TENANTRY_URL"] ?? "";
const [acme, globex] = JSON.parse(process.env["TENANTRY_USERS"] ?? "[]") as [User, User];

async function logIn({ tenant, email, password }: User): Promise<TenantryClient> {
  const guest = createClient({ baseUrl, tenant });
  const { data, error } = await guest.POST("/api/v1/auth/login", { body: { email, password } });
  assert.equal(error, undefined);
  assert.equal(data?.tenant.slug, tenant);
  const token = data?.access_token ?? "";
  return createClient({ baseUrl, token: () => token });
}

test("bodies of webhooks have the types of the document", () => {
  const body: WebhookBody<"task.updated"> = {
    type: "task.updated",
    timestamp: "2026-01-31T12:00:00Z",
    data: { object: { id: "1", status: "done" } },
  };
  // @ts-expect-error: another type has another body.
  const other: WebhookBody<"project.created"> = body;
  assert.equal(other, body);
});

test("a tenant sees its own projects only", async () => {
  const [ours, theirs] = [await logIn(acme), await logIn(globex)];
  const key = idempotencyKey();
  const create = () =>
    ours.POST("/api/v1/projects", {
      params: { header: { "Idempotency-Key": key } },
      body: { name: "Typed project" },
    });
  const created = await create();
  assert.equal(created.response.status, 201);
  const id = created.data?.id ?? "";
  assert.equal((await create()).response.headers.get("Idempotent-Replayed"), "true");

  const path = { params: { path: { id } } };
  assert.equal((await ours.GET("/api/v1/projects/{id}", path)).data?.name, "Typed project");
  const hidden = await theirs.GET("/api/v1/projects/{id}", path);
  const problem: Problem | undefined = hidden.error;
  assert.equal(problem?.code, "not_found");

  const names = async (client: TenantryClient) => {
    const { data } = await client.GET("/api/v1/projects", { params: { query: { limit: 100 } } });
    return data?.data.map((project) => project.name) ?? [];
  };
  assert.ok((await names(ours)).includes("Typed project"));
  assert.ok(!(await names(theirs)).includes("Typed project"));
});

test("an invalid body is a problem that names its fields", async () => {
  const client = await logIn(acme);
  const { error, response } = await client.POST("/api/v1/projects", { body: { name: "" } });
  assert.equal(response.status, 422);
  assert.equal(error?.code, "validation_failed");
  assert.deepEqual(error?.errors?.map(({ pointer }) => pointer), ["/name"]);
});
