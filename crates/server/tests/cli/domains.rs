//! Custom domains of a running server, a name server and, where it is installed, a Caddy that gets certificates on demand.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tenantry_tests::DnsServer;

use super::{Dev, Folder, request};

const HOST: &str = "portal.acme-corp.com";

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The value of the first member of that name.
fn member(text: &str, name: &str) -> String {
    let rest = text.split(&format!("\"{name}\":\"")).nth(1);
    rest.and_then(|rest| rest.split('"').next())
        .unwrap_or_else(|| panic!("{name}: {text}"))
        .to_owned()
}

#[test]
fn domain_is_proven_served_and_gets_a_certificate() {
    let dns = DnsServer::start();
    let (folder, port) = (Folder::new("domains"), free_port());
    let servers = format!("[\"{}\"]", dns.address());
    let (port_text, ask) = (port.to_string(), format!("127.0.0.1:{port}"));
    let config = [
        ("TENANTRY__DOMAINS__EDGE", "edge.tenantry-demo.com"),
        ("TENANTRY__DOMAINS__NAME_SERVERS", servers.as_str()),
        ("TENANTRY__METRICS__PORT", port_text.as_str()),
    ];
    let dev = Dev::start_with(&folder.0, &config);
    let asked = |host: &str| request(&ask, ("GET", format!("/tls/ask?domain={host}").as_str()), "", "").0;
    assert_eq!(
        dev.request("GET", "/tls/ask?domain=localhost", "", "").0,
        404,
        "not beside the API"
    );
    assert_eq!(
        (
            asked("localhost"),
            asked("acme.localhost"),
            asked(HOST),
            asked("")
        ),
        (200, 200, 404, 400)
    );

    let bearer = format!("Authorization: Bearer {}\r\n", dev.login("acme"));
    let path = "/api/v1/tenant/domains";
    let (status, claimed) = dev.request("POST", path, &bearer, &format!("{{\"domain\":\"{HOST}\"}}"));
    assert_eq!(status, 201, "{claimed}");
    let value = member(&claimed, "value");
    dns.set_txt(&format!("_tenantry-verify.{HOST}"), &[&value]);
    dns.set_alias(HOST, "edge.tenantry-demo.com");
    let verify = format!("{path}/{}/verify", member(&claimed, "id"));
    let (status, verified) = dev.request("POST", &verify, &bearer, "");
    assert_eq!(
        (status, member(&verified, "state").as_str()),
        (200, "active"),
        "{verified}"
    );
    assert_eq!(asked(HOST), 200);
    let branding = format!("http://{HOST}/api/v1/branding");
    assert_eq!(dev.request("GET", &branding, "", "").0, 200);

    if let Some(mut caddy) = Caddy::start(&folder, &dev.address, port) {
        assert_eq!(caddy.get(HOST).as_deref(), Some("200"), "a certificate on demand");
        assert_eq!(
            caddy.get("other.acme-corp.com"),
            None,
            "no certificate for another name"
        );
        caddy.stop();
    }
    let (status, _) = dev.request("DELETE", verify.trim_end_matches("/verify"), &bearer, "");
    assert_eq!((status, asked(HOST)), (204, 404));
    assert_eq!(dev.request("GET", &branding, "", "").0, 400);
    let made_up = (0..150).map(|number| asked(&format!("other{number}.acme-corp.com")));
    assert!(made_up.into_iter().all(|status| status == 404), "none is refused");
    assert_eq!(asked("acme.localhost"), 200);
    assert_eq!(dev.stop(), Some(0));
}

/// A Caddy before the server, with certificates of its own authority.
struct Caddy {
    child: Child,
    port: u16,
}

impl Caddy {
    /// None where Caddy or curl is not installed.
    fn start(folder: &Folder, server: &str, ask: u16) -> Option<Self> {
        let installed = |program: &str| {
            let mut command = Command::new(program);
            let command = command.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok()
        };
        if !installed("caddy") || !installed("curl") {
            return None;
        }
        let port = free_port();
        let file = folder.0.join("Caddyfile");
        let text = format!(
            "{{\n admin off\n auto_https disable_redirects\n skip_install_trust\n on_demand_tls {{\n  ask http://127.0.0.1:{ask}/tls/ask\n }}\n}}\n\
             https://:{port} {{\n tls internal {{\n  on_demand\n }}\n reverse_proxy {server}\n}}\n"
        );
        std::fs::write(&file, text).unwrap();
        let child = Command::new("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(&file)
            .env("XDG_DATA_HOME", &folder.0)
            .env("XDG_CONFIG_HOME", &folder.0)
            .env("HOME", &folder.0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "Caddy does not listen");
            // Another process starts: there is nothing of ours to wait for.
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, port })
    }

    /// The status of a request for a host; none when there is no certificate.
    fn get(&self, host: &str) -> Option<String> {
        let output = Command::new("curl")
            .args([
                "-sk",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--max-time",
                "20",
                "--resolve",
            ])
            .arg(format!("{host}:{}:127.0.0.1", self.port))
            .arg(format!("https://{host}:{}/api/v1/branding", self.port))
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        self.stop();
    }
}
