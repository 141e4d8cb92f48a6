use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

const LARGEST_BODY: usize = 256 * 1024;

/// The length of the shortest secret: 24 bytes in base64.
const SHORTEST_SECRET: usize = "whsec_".len() + 32;

struct Receiver {
    webhooks: Vec<Webhook>,
    inbox: PathBuf,
}

/// Returns whether the message is new. Its file is complete before it gets its name.
fn store(inbox: &Path, id: &str, body: &[u8]) -> io::Result<bool> {
    let thread = std::thread::current().id();
    let draft = inbox.join(format!("{}-{thread:?}.draft", std::process::id()));
    let mut file = File::create(&draft)?;
    file.write_all(body)?;
    file.sync_all()?;
    let named = fs::hard_link(&draft, inbox.join(format!("{id}.json")));
    fs::remove_file(&draft)?;
    match named {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut webhooks = receiver.webhooks.iter();
    if !webhooks.any(|webhook| webhook.verify(&body, &headers).is_ok()) {
        return StatusCode::UNAUTHORIZED;
    }
    let id = String::from_utf8_lossy(headers["webhook-id"].as_bytes()).into_owned();
    let stored = spawn_blocking(move || {
        let is_new = store(&receiver.inbox, &id, &body)?;
        if is_new {
            eprintln!("received {id}");
        }
        io::Result::Ok(())
    });
    match stored.await {
        Ok(Ok(())) => StatusCode::NO_CONTENT,
        failed => {
            eprintln!("{failed:?}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // While you rotate: the new secret and the old one, with a space between.
    let secrets = env::var("WEBHOOK_SECRETS").unwrap_or_default();
    let secrets: Vec<&str> = secrets.split_whitespace().collect();
    if secrets.is_empty() || secrets.iter().any(|secret| secret.len() < SHORTEST_SECRET) {
        return Err("WEBHOOK_SECRETS: a secret that begins with whsec_ is required".into());
    }
    let webhooks = secrets.into_iter().map(Webhook::new).collect::<Result<_, _>>()?;
    let inbox = PathBuf::from(env::var("INBOX").unwrap_or("inbox".into()));
    fs::create_dir_all(&inbox)?;
    let app = Router::new()
        .route("/webhooks", post(receive))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(Arc::new(Receiver { webhooks, inbox }));
    let port = env::var("PORT").unwrap_or("8000".into()).parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    eprintln!("listening on port {}", listener.local_addr()?.port());
    axum::serve(listener, app).await?;
    Ok(())
}
