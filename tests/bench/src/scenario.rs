//! What is measured: each scenario is a script for `wrk`, and one for pgbench with the same statements.

use crate::ground::{FIRST, PASSWORD, Size, TASK_PREFIX, TENANT_PREFIX};

/// One thing to measure.
pub struct Scenario {
    /// Its name in the table.
    pub name: &'static str,
    /// In whose names requests are made: so many tenants, from the first on; 0 = in nobody's.
    pub tenants: usize,
    /// The body of Lua's `request`: it returns the text of a request. `t` is the index of a random tenant, `n` its
    /// number, `bearer` its header line, `k` the number of a random task of its.
    pub request: String,
    /// The same work for pgbench; `None` where there is nothing like it.
    pub sql: Option<String>,
    /// The same again with prepared statements, which is faster: SET takes no parameters, so `set_config()` stands in its
    /// place.
    pub prepared: Option<String>,
    /// The status that answers have.
    pub status: u16,
}

const COLUMNS: &str = "tenant_id, id, project_id, title, description, status, priority, assignee_id, due_at, created_at, \
                       updated_at, deleted_at, version";

/// All scenarios but those of flatness and fairness, which are not of one program at full speed.
pub fn all(size: Size) -> Vec<Scenario> {
    let mut all = reads(size);
    all.extend(others(size));
    all
}

/// Those that only read: what is measured after them is not beside the work that writes leave behind (totals, checkpoints,
/// vacuum).
pub fn reads(size: Size) -> Vec<Scenario> {
    let many = size.tenants;
    vec![
        get_one(many),
        list("list_10", many, 10, ""),
        list("list_100_filtered", many, 100, "done"),
    ]
}

/// All others.
pub fn others(size: Size) -> Vec<Scenario> {
    let many = size.tenants;
    vec![
        create(many),
        update(many),
        mixed(many),
        login(many),
        unauthenticated(),
        evaluate_flag(many),
        ingest(many),
    ]
}

/// The list of ten again, for a server that shares its rate limits with others through Redis.
pub fn with_shared_limits(size: Size) -> Scenario {
    list("list_10_shared_limits", size.tenants, 10, "")
}

/// The list of ten again, with API keys in place of access tokens.
pub fn with_api_keys(size: Size) -> Scenario {
    list("list_10_api_key", size.tenants, 10, "")
}

fn get(path: &str) -> String {
    format!(r#"return "GET {path} HTTP/1.1\r\nHost: bench\r\n" .. bearer .. "\r\n""#)
}

fn send(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        r#"local body = '{body}'
  return "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{headers}Content-Length: " .. #body .. "\r\n" .. bearer .. "\r\n" .. body"#
    )
}

/// One flag over OFREP, which no statement of SQL is the measure of: the server has it in memory.
fn evaluate_flag(tenants: usize) -> Scenario {
    Scenario {
        name: "evaluate_flag",
        tenants,
        request: send(
            "POST",
            "/ofrep/v1/evaluate/flags/new-checkout",
            "",
            r#"{"context":{"targetingKey":"somebody"}}"#,
        ),
        sql: None,
        prepared: None,
        status: 200,
    }
}

/// A thousand events of usage in a request, each under a key that nobody has used: of the rate in the table it is so many
/// times as many events.
fn ingest(tenants: usize) -> Scenario {
    let request = r#"sent = (sent or 0) + 1
  local mine = tostring({}):gsub('%W', '') .. os.time() .. '-' .. sent .. '-'
  local events = {}
  for number = 1, 1000 do
    events[number] = '{"idempotency_key":"' .. mine .. number .. '","meter":"bench_pages","quantity":3}'
  end
  local body = '[' .. table.concat(events, ',') .. ']'
  return "POST /api/v1/usage/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: " .. #body .. "\r\n" .. bearer .. "\r\n" .. body"#;
    Scenario {
        name: "ingest",
        tenants,
        request: request.to_owned(),
        sql: None,
        prepared: None,
        status: 200,
    }
}

/// The standard plans with a meter of which anybody may record usage.
pub fn plans() -> String {
    let standard = include_str!("../../../config/plans.toml");
    let meter = "\n[[meter]]\nkey = \"bench_pages\"\ntitle = \"Pages\"\nunit = \"page\"\naggregation = \"sum\"\n\
                 reset = \"billing_cycle\"\n\n[[meter]]";
    let terms = "[plan.meters.bench_pages]\nincluded = \"unlimited\"\nlimit = \"unlimited\"\n\n[plan.meters.active_users]";
    let with_terms = standard.replace("[plan.meters.active_users]", terms);
    with_terms.replacen("\n[[meter]]", meter, 1)
}

fn get_one(tenants: usize) -> Scenario {
    let one = format!("AND deleted_at IS NULL AND id = ('{TASK_PREFIX}' || :n || :k)::uuid LIMIT 1");
    Scenario {
        name: "get_one",
        tenants,
        request: get(&format!(r#"/api/v1/tasks/{TASK_PREFIX}" .. n .. k .. ""#)),
        sql: Some(transaction(&select(&one))),
        prepared: None,
        status: 200,
    }
}

pub fn list(name: &'static str, tenants: usize, limit: usize, status: &str) -> Scenario {
    let (filter, query) = if status.is_empty() {
        (String::new(), String::new())
    } else {
        (format!(" AND status = '{status}'"), format!("&status={status}"))
    };
    // One more row than is shown says whether there is a next page.
    let rows = format!(
        "AND deleted_at IS NULL{filter} ORDER BY created_at DESC, id DESC LIMIT {}",
        limit + 1
    );
    let last = (FIRST + tenants - 1).to_string();
    Scenario {
        name,
        tenants,
        request: get(&format!("/api/v1/tasks?limit={limit}{query}")),
        sql: Some(transaction(&select(&rows)).replace(":last", &last)),
        prepared: (name == "list_10").then(|| prepared(&select(&rows)).replace(":last", &last)),
        status: 200,
    }
}

fn create(tenants: usize) -> Scenario {
    let project = format!("{TENANT_PREFIX}\" .. n .. \"");
    let work = format!(
        "SELECT tenant_id, id, name, description, status, owner_id, view_count, created_at, updated_at, deleted_at, \
         version FROM projects WHERE tenant_id = {tenant} AND deleted_at IS NULL AND id = {tenant} LIMIT 1 FOR SHARE;\n\
         INSERT INTO tasks (tenant_id, id, project_id, title, description, status, priority, assignee_id, due_at, \
         created_at, updated_at, deleted_at, version) VALUES ({tenant}, gen_random_uuid(), {tenant}, 'A new task', NULL, \
         'todo', 'normal', NULL, NULL, now(), now(), NULL, 1);\n{audit}",
        tenant = TENANT,
        audit = audit(),
    );
    Scenario {
        name: "create",
        tenants,
        request: send(
            "POST",
            &format!("/api/v1/projects/{project}/tasks"),
            "",
            r#"{"title":"A new task"}"#,
        ),
        sql: Some(transaction(&work)),
        prepared: None,
        status: 201,
    }
}

fn update(tenants: usize) -> Scenario {
    let id = format!("('{TASK_PREFIX}' || :n || :k)::uuid");
    let work = format!(
        "SELECT {COLUMNS} FROM tasks WHERE tenant_id = {TENANT} AND deleted_at IS NULL AND id = {id} LIMIT 1 \
         FOR NO KEY UPDATE;\n\
         UPDATE tasks SET title = 'A changed task', updated_at = now(), version = version + 1 \
         WHERE tenant_id = {TENANT} AND id = {id};\n{}",
        audit()
    );
    Scenario {
        name: "update_if_match",
        tenants,
        request: send(
            "PATCH",
            &format!(r#"/api/v1/tasks/{TASK_PREFIX}" .. n .. k .. ""#),
            r"If-Match: *\r\n",
            r#"{"title":"A changed task"}"#,
        ),
        sql: Some(transaction(&work)),
        prepared: None,
        status: 200,
    }
}

fn mixed(tenants: usize) -> Scenario {
    let (reads, writes) = (list("", tenants, 10, "").request, create(tenants).request);
    Scenario {
        name: "mixed_90_10",
        tenants,
        request: format!("if math.random(10) > 1 then {reads} end\n  {writes}"),
        sql: None,
        prepared: None,
        status: 200,
    }
}

fn login(tenants: usize) -> Scenario {
    let body = format!(
        r#"{{"tenant_slug":"bench-' .. n .. '","email":"login@bench.example","password":"{PASSWORD}"}}"#
    );
    Scenario {
        name: "login",
        tenants,
        request: send("POST", "/api/v1/auth/login", "", &body).replace(".. bearer ..", ".."),
        sql: None,
        prepared: None,
        status: 200,
    }
}

/// One tenant adds users; whether there is a place to hash their passwords is for the server to say.
pub fn add_users() -> Scenario {
    let body = r#"{"email":"user-' .. math.random(1000000000) .. '@bench.example","full_name":"User","password":"battery staple"}"#;
    Scenario {
        name: "login_fairness",
        tenants: 1,
        request: send("POST", "/api/v1/users", "", body),
        sql: None,
        prepared: None,
        status: 201,
    }
}

/// Logins of one tenant with wrong passwords, each of another account that is not there: an account that is guessed at waits after a few
/// wrong passwords, and costs no hash then.
pub fn wrong_logins() -> Scenario {
    let body = r#"{"tenant_slug":"bench-' .. n .. '","email":"nobody-' .. math.random(1000000000) .. '@bench.example","password":"wrong battery staple"}"#;
    Scenario {
        name: "wrong_logins",
        tenants: 1,
        request: send("POST", "/api/v1/auth/login", "", body).replace(".. bearer ..", ".."),
        sql: None,
        prepared: None,
        status: 401,
    }
}

fn unauthenticated() -> Scenario {
    Scenario {
        name: "unauthenticated",
        tenants: 0,
        request: get("/api/v1/tasks?limit=10"),
        sql: None,
        prepared: None,
        status: 401,
    }
}

/// The tenant in pgbench's terms.
const TENANT: &str = "('00000000-0000-7000-8000-000000' || :n)::uuid";

fn select(rest: &str) -> String {
    format!("SELECT {COLUMNS} FROM tasks WHERE tenant_id = {TENANT} {rest};")
}

fn audit() -> String {
    format!(
        "INSERT INTO audit_events (tenant_id, id, created_at, category, action, target_type, target_id, actor_type, \
         actor_id, request_id, ip, before, after) VALUES ({TENANT}, gen_random_uuid(), now(), 'change', 'task.changed', \
         'task', gen_random_uuid(), 'user', {TENANT}, gen_random_uuid()::text, '127.0.0.1', NULL, \
         '{{\"title\": \"A new task\", \"status\": \"todo\", \"priority\": \"normal\"}}');"
    )
}

/// The statements that the server sends, one after another: BEGIN, SET LOCAL, the work, COMMIT. Values are in the text, as
/// SET takes no parameters.
fn transaction(work: &str) -> String {
    let random = format!("\\set n random({FIRST}, :last)\n\\set k random({FIRST}, {FIRST} + 999)\n");
    let work = work.replace(TENANT, &format!("'{TENANT_PREFIX}:n'")).replace(
        &format!("('{TASK_PREFIX}' || :n || :k)::uuid"),
        &format!("'{TASK_PREFIX}:n:k'"),
    );
    format!("{random}BEGIN;\nSET LOCAL app.current_tenant = '{TENANT_PREFIX}:n';\n{work}\nCOMMIT;\n")
}

fn prepared(work: &str) -> String {
    let tenant = format!("'{TENANT_PREFIX}' || :n::text");
    let work = work.replace(TENANT, &format!("({tenant})::uuid"));
    format!(
        "\\set n random({FIRST}, :last)\nBEGIN;\nSELECT set_config('app.current_tenant', {tenant}, true);\n{work}\nCOMMIT;\n"
    )
}
