use std::collections::HashMap;
use std::process::ChildStdin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use testcontainers::bollard::models::{HostConfig, PortBinding};
use testcontainers::core::{IntoContainerPort as _, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _};

use crate::TestServer;
use crate::remover::remover;

/// The image, as `name:tag`; it has to understand `POSTGRES_PASSWORD` as the official one does.
const IMAGE_VARIABLE: &str = "TEST_POSTGRES_IMAGE";
const IMAGE: &str = "postgres:17-alpine";

const PASSWORD: &str = "only-for-tests";

/// A container, removed when the process ends.
#[derive(Debug)]
pub struct Running(ContainerAsync<GenericImage>);

impl Running {
    pub async fn start() -> TestServer {
        let image = std::env::var(IMAGE_VARIABLE).unwrap_or_else(|_| IMAGE.to_owned());
        let (name, tag) = image.rsplit_once(':').unwrap();
        let server = ["postgres", "-c", "fsync=off", "-c", "synchronous_commit=off"];
        let container = GenericImage::new(name, tag)
            .with_exposed_port(5432.tcp())
            .with_wait_for(WaitFor::message_on_stderr(
                "database system is ready to accept connections",
            ))
            .with_env_var("POSTGRES_PASSWORD", PASSWORD)
            .with_host_config_modifier(on_loopback)
            .with_cmd(server.into_iter().chain(["-c", "max_connections=300"]))
            .start()
            .await
            .unwrap();
        remove_when_process_ends(container.id());
        let port = container.get_host_port_ipv4(5432).await.unwrap();
        let started = TestServer {
            admin: format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}"),
            port,
            running: Self(container),
        };
        // The image starts the server twice; the message may be of the first time.
        let deadline = Instant::now() + Duration::from_secs(30);
        while PgConnection::connect(&started.admin_url("postgres"))
            .await
            .is_err()
        {
            assert!(
                Instant::now() < deadline,
                "the container's PostgreSQL does not answer"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        started
    }

    pub async fn stop(self) {
        self.0.rm().await.unwrap();
    }

    pub async fn log(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr_to_vec().await.unwrap()).into_owned()
    }
}

/// Publishes PostgreSQL's port at a free one of 127.0.0.1: nobody else's business, and unlike the library's own way it is
/// understood by podman too.
fn on_loopback(settings: &mut HostConfig) {
    let binding = PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        host_port: Some(String::new()),
    };
    settings.publish_all_ports = None;
    settings.port_bindings = Some(HashMap::from([("5432/tcp".to_owned(), Some(vec![binding]))]));
}

/// Never emptied, because dropping an end of a pipe is the signal.
static HELD: Mutex<Vec<ChildStdin>> = Mutex::new(Vec::new());

/// Removes a container when this process ends, also when it is killed. Containers of tests are in statics, which are never
/// dropped, so the library does not remove them. The system closes the pipe to the process that does.
fn remove_when_process_ends(id: &str) {
    let mut remover = remover(id).spawn().unwrap();
    let input = remover.stdin.take().unwrap();
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(input);
}
