//! The receivers of docs/webhooks.md as a reader runs them: their texts are taken out of the page, and real requests of the sender are
//! true, repeated and forged. Those in TypeScript and Python verify with the public libraries of npm and PyPI.
#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests too, a failure is a failed test"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde_json::json;
use tenantry_domain::kernel::Time;
use tenantry_domain::tenant::{Dns, DnsError, DnsRoute, TxtRecords};
use tenantry_domain::webhooks::{
    CustomHeaders, DeliveryOutcome, EndpointRules, MessageId, NetworkRules, SignatureKind, SigningSecret,
    WebhookKeys as _, WebhookRequest, WebhookSender as _,
};
use tenantry_tests::{Folder, outside};
use tenantry_webhooks::{HttpWebhookSender, SenderConfig, StandardKeys};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, Command};

/// The receiver in Rust. The page has its text, and a test compares them.
mod receiver {
    include!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/webhooks/examples/receiver.rs"
    ));

    pub fn run() {
        if let Err(error) = main() {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

/// Set in a process of this test that is the receiver in Rust.
const IS_RECEIVER: &str = "TENANTRY_TEST_IS_RECEIVER";

/// The text of the first block of a language in the page's section about receivers.
fn program(language: &str) -> String {
    let page = std::fs::read_to_string(outside::root().join("docs/webhooks.md")).unwrap();
    let (_, section) = page.split_once("\n## Receive and verify\n").unwrap();
    let (_, rest) = section.split_once(&format!("\n```{language}\n")).unwrap();
    rest.split_once("```\n").unwrap().0.to_owned()
}

/// A folder for modules of Node, beside the packages that `scripts/ensure-contract` has installed, so that imports find them.
struct Modules {
    packages: PathBuf,
    folder: PathBuf,
}

impl Modules {
    fn new(name: &str) -> Option<Self> {
        let packages = outside::installed("contract/receivers/node_modules", "ensure-contract")?;
        let folder = packages.with_file_name(format!("test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Some(Self { packages, folder })
    }

    /// Compiles a module in TypeScript, with every check of types.
    async fn compile(&self, name: &str, text: &str) -> PathBuf {
        let module = self.folder.join(format!("{name}.mts"));
        std::fs::write(&module, text).unwrap();
        let mut compiler = Command::new("node");
        compiler
            .arg(self.packages.join("typescript/bin/tsc"))
            .args(["--strict", "--target", "es2022", "--module", "nodenext"])
            .args(["--types", "node"])
            .arg(&module)
            .current_dir(&self.folder);
        let output = compiler.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        module.with_extension("mjs")
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A receiver that runs.
struct Receiver {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    address: SocketAddr,
}

impl Receiver {
    /// Starts a program with these secrets, and waits until it listens.
    async fn start(mut command: Command, inbox: &Path, secrets: &[&SigningSecret]) -> Self {
        let secrets: Vec<&str> = secrets.iter().map(|secret| secret.expose()).collect();
        command
            .env("WEBHOOK_SECRETS", secrets.join(" "))
            .env("PORT", "0")
            .env("INBOX", inbox)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap_or_default();
        let port = line
            .split("listening on port ")
            .nth(1)
            .unwrap_or_else(|| panic!("{line}"));
        Self {
            child,
            lines,
            address: ([127, 0, 0, 1], port.parse().unwrap()).into(),
        }
    }

    /// A message to this receiver.
    fn message(&self, id: &str, secrets: &[&SigningSecret]) -> WebhookRequest {
        WebhookRequest {
            id: MessageId::parse(id).unwrap(),
            at: now(),
            url: rules(self.address)
                .parse(&format!("http://{}/webhooks", self.address))
                .unwrap(),
            secrets: secrets.iter().copied().cloned().collect(),
            headers: CustomHeaders::default(),
            body: json!({"type": "task.created", "data": {"title": "Füße \u{1f600} \u{2028} \"\\\n"}})
                .to_string(),
        }
    }

    async fn deliver(&self, message: WebhookRequest) -> u16 {
        status(&send(message).await)
    }

    /// Kills the receiver. What it has said of messages that were new to it.
    async fn stop(mut self) -> Vec<String> {
        self.child.kill().await.unwrap();
        let mut received = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            received.extend(line.split_once("received ").map(|(_, id)| id.to_owned()));
        }
        received
    }
}

struct NoNames;

#[async_trait]
impl Dns for NoNames {
    async fn txt(&self, _: &str) -> Result<TxtRecords, DnsError> {
        Err(DnsError::NotFound)
    }

    async fn route(&self, _: &str) -> Result<DnsRoute, DnsError> {
        Err(DnsError::NotFound)
    }
}

fn rules(address: SocketAddr) -> EndpointRules {
    EndpointRules {
        ports: vec![address.port()],
        allow_http: true,
        networks: NetworkRules::new(&["127.0.0.1".into()], &[]).unwrap(),
    }
}

/// The outcome of one request of the real sender.
async fn send(message: WebhookRequest) -> DeliveryOutcome {
    let config = SenderConfig {
        rules: rules(([127, 0, 0, 1], message.url.port()).into()),
        ..SenderConfig::default()
    };
    let sender = HttpWebhookSender::new(&config, Arc::new(NoNames)).unwrap();
    sender.send(message).await.unwrap().outcome
}

fn status(outcome: &DeliveryOutcome) -> u16 {
    outcome.answer().unwrap_or_else(|| panic!("{outcome:?}")).status
}

/// The bytes of a request of the real sender, with another receiver's place in it.
async fn captured(message: WebhookRequest) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/webhooks");
    let length = message.body.len();
    let message = WebhookRequest {
        url: rules(address).parse(&url).unwrap(),
        ..message
    };
    let sending = tokio::spawn(send(message));
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8(bytes.clone()).unwrap_or_default();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        if body == Some(length) {
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            assert_eq!(status(&sending.await.unwrap()), 204);
            return text;
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
}

/// The status of the answer to these bytes.
async fn post(address: SocketAddr, request: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}"));
    status.parse().unwrap()
}

/// The text with one part replaced, which it has.
fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} in {text}");
    text.replace(from, to)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the public libraries compare with the present time"
)]
fn now() -> Time {
    Time::from(SystemTime::now())
}

fn secret(kind: SignatureKind) -> SigningSecret {
    StandardKeys.generate(kind).unwrap().secret
}

/// What each receiver has to do with true, repeated and forged messages, while secrets are rotated.
async fn behaves(command: impl Fn() -> Command, inbox: &Path) {
    let [old, new, other] = [(); 3].map(|()| secret(SignatureKind::Hmac));
    let key = secret(SignatureKind::Ed25519);

    let receiver = Receiver::start(command(), inbox, &[&old]).await;
    let first = receiver.message("msg_1", &[&old]);
    assert_eq!(receiver.deliver(first.clone()).await, 204);
    // The next attempt has another time, and so another signature.
    let again = WebhookRequest {
        at: first.at - Duration::from_secs(5),
        ..first
    };
    assert_eq!(receiver.deliver(again).await, 204);
    // The server has rotated the secret, and the receiver has not.
    let during = receiver.message("msg_2", &[&new, &key, &old]);
    assert_eq!(receiver.deliver(during).await, 204);
    let after = receiver.message("msg_3", &[&new]);
    assert_eq!(receiver.deliver(after).await, 401);
    forged(&receiver, &old, &other).await;
    let large = WebhookRequest {
        body: format!("{{\"data\":\"{}\"}}", "x".repeat(300_000)),
        ..receiver.message("msg_4", &[&old])
    };
    assert_ne!(send(large).await.name(), "delivered");
    assert_eq!(receiver.stop().await, ["msg_1", "msg_2"]);

    // The receiver is started again and knows both secrets.
    let receiver = Receiver::start(command(), inbox, &[&new, &old]).await;
    let messages: [(&str, &[&SigningSecret]); 3] = [
        ("msg_2", &[&new, &key, &old]),
        ("msg_3", &[&new]),
        ("msg_5", &[&old]),
    ];
    for (id, secrets) in messages {
        let message = receiver.message(id, secrets);
        assert_eq!(receiver.deliver(message).await, 204, "{id}");
    }
    let message = receiver.message("msg_6", &[&other]);
    assert_eq!(receiver.deliver(message).await, 401);
    assert_eq!(receiver.stop().await, ["msg_3", "msg_5"]);

    // Then it knows the new one only.
    let receiver = Receiver::start(command(), inbox, &[&new]).await;
    let message = receiver.message("msg_7", &[&new, &key, &old]);
    assert_eq!(receiver.deliver(message).await, 204);
    let message = receiver.message("msg_8", &[&old]);
    assert_eq!(receiver.deliver(message).await, 401);
    assert_eq!(receiver.stop().await, ["msg_7"]);
}

/// Messages with a wrong secret, too old or too new, and with each signed part changed.
async fn forged(receiver: &Receiver, secret: &SigningSecret, other: &SigningSecret) {
    let message = receiver.message("msg_forged", &[secret]);
    let at = message.at;
    for forged in [
        receiver.message("msg_forged", &[other]),
        WebhookRequest {
            at: at - Duration::from_secs(600),
            ..message.clone()
        },
        WebhookRequest {
            at: at + Duration::from_secs(600),
            ..message.clone()
        },
    ] {
        assert_eq!(receiver.deliver(forged).await, 401);
    }
    let request = captured(message).await;
    let (timestamp, later) = (at.timestamp().to_string(), (at.timestamp() + 1).to_string());
    let signature = request.split_once("webhook-signature: ").unwrap().1;
    let signature = signature.split("\r\n").next().unwrap();
    let as_v1a = signature.replace("v1,", "v1a,");
    for (from, to) in [
        ("task.created", "task.deleted"),
        ("Füße", "Fuße "),
        ("msg_forged", "msg_other_"),
        (timestamp.as_str(), later.as_str()),
        (timestamp.as_str(), "soon"),
        (signature, "v1"),
        (signature, "v1,"),
        (signature, "v1,?"),
        (signature, as_v1a.as_str()),
        ("webhook-id:", "x-id:"),
        ("webhook-timestamp:", "x-timestamp:"),
        ("webhook-signature:", "x-signature:"),
    ] {
        let forged = changed(&request, from, to);
        assert_eq!(post(receiver.address, &forged).await, 401, "{from} {to}");
    }
}

/// Without a secret a receiver would believe everybody, so it does not start.
async fn needs_a_secret(mut command: Command, inbox: &Path) {
    for secrets in ["", " ", "whsec_"] {
        command
            .env("WEBHOOK_SECRETS", secrets)
            .env("PORT", "0")
            .env("INBOX", inbox)
            .kill_on_drop(true);
        let ended = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
        let output = ended.unwrap().unwrap();
        assert!(!output.status.success(), "{secrets:?}");
    }
}

#[tokio::test]
async fn receiver_in_typescript_behaves() {
    let Some(modules) = Modules::new("receiver") else {
        return;
    };
    let module = modules.compile("receiver", &program("ts")).await;
    let node = || {
        let mut node = Command::new("node");
        node.arg(&module);
        node
    };
    let inbox = Folder::new("receiver-ts");
    behaves(node, &inbox.0).await;
    needs_a_secret(node(), &inbox.0).await;
}

#[tokio::test]
async fn receiver_in_python_behaves() {
    let Some(python) = outside::installed("contract/python/bin/python", "ensure-contract") else {
        return;
    };
    let folder = Folder::new("receiver-py");
    let file = folder.0.join("receiver.py");
    std::fs::write(&file, program("python")).unwrap();
    let run = || {
        let mut run = Command::new(&python);
        run.arg(&file);
        run
    };
    let inbox = folder.0.join("inbox.db");
    behaves(run, &inbox).await;
    needs_a_secret(run(), &inbox).await;
}

#[tokio::test]
async fn receiver_in_rust_behaves() {
    let compiled = include_str!("../../../crates/webhooks/examples/receiver.rs");
    assert_eq!(program("rust"), compiled, "the page has another program");
    let run = || {
        let mut run = Command::new(std::env::current_exe().unwrap());
        run.args(["--exact", "webhook_receivers::receiver_in_rust", "--nocapture"])
            .env(IS_RECEIVER, "1");
        run
    };
    let inbox = Folder::new("receiver-rs");
    behaves(run, &inbox.0).await;
    needs_a_secret(run(), &inbox.0).await;
}

/// Is the receiver in Rust where the test above asks for it, and nothing otherwise.
#[test]
fn receiver_in_rust() {
    if std::env::var_os(IS_RECEIVER).is_some() {
        receiver::run();
    }
}

/// The page's function for `v1a` uses Node's own Ed25519.
#[tokio::test]
async fn node_verifies_ed25519_signatures() {
    let Some(modules) = Modules::new("ed25519") else {
        return;
    };
    modules.compile("ed25519", &program("typescript")).await;
    let driver = r#"
        import { isGenuine } from "./ed25519.mjs";
        const [publicKey, request] = JSON.parse(process.argv[2]);
        const [head, body] = request.split("\r\n\r\n");
        const lines = head.split("\r\n").slice(1).map((line) => line.split(": "));
        console.log(isGenuine(publicKey, Object.fromEntries(lines), Buffer.from(body)));
    "#;
    let driver_file = modules.folder.join("driver.mjs");
    std::fs::write(&driver_file, driver).unwrap();
    let verify = async |public_key: &str, request: &str| {
        let mut node = Command::new("node");
        node.arg(&driver_file)
            .arg(json!([public_key, request]).to_string());
        let output = node.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap().trim() == "true"
    };

    let [key, other] = [(); 2].map(|()| StandardKeys.generate(SignatureKind::Ed25519).unwrap());
    let (public_key, other_key) = (key.public_key.unwrap(), other.public_key.unwrap());
    let former = secret(SignatureKind::Hmac);
    let at = now();
    let message = WebhookRequest {
        id: MessageId::parse("msg_1").unwrap(),
        at,
        url: EndpointRules::default().parse("https://example.com/").unwrap(),
        secrets: vec![former, other.secret, key.secret],
        headers: CustomHeaders::default(),
        body: r#"{"type":"task.created","data":{"title":"Füße 😀"}}"#.to_owned(),
    };
    let request = captured(message.clone()).await;
    assert!(verify(&public_key, &request).await);
    assert!(verify(&other_key, &request).await, "each key of a rotation");
    let timestamp = at.timestamp().to_string();
    for (from, to) in [
        ("task.created", "task.deleted"),
        ("msg_1", "msg_2"),
        (timestamp.as_str(), (at.timestamp() + 1).to_string().as_str()),
        ("v1a,", "v1,"),
        ("webhook-signature", "x-signature"),
    ] {
        assert!(
            !verify(&public_key, &changed(&request, from, to)).await,
            "{from} {to}"
        );
    }
    let stranger = StandardKeys.generate(SignatureKind::Ed25519).unwrap();
    assert!(!verify(&stranger.public_key.unwrap(), &request).await);
    let old = WebhookRequest {
        at: at - Duration::from_secs(600),
        ..message
    };
    assert!(!verify(&public_key, &captured(old).await).await);
}
