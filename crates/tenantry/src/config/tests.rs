use super::auth::Passkeys;
use super::mail::Smtp;
use super::*;

fn complete() -> Configuration {
    let mut config = Configuration::default();
    let url = |role: &str| format!("postgres://{role}:a-long-password@db/tenantry?sslmode=verify-full");
    config.database.url = Secret::new(url("tenantry_app"));
    config.database.platform_url = Secret::new(url("tenantry_platform"));
    config.auth.signing_key = Secret::new("PEM".into());
    config
}

fn complaint(config: &Configuration) -> String {
    config
        .validate()
        .map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn complete_settings_hold() {
    assert_eq!(complaint(&complete()), "");
}

#[test]
fn without_a_folder_the_settings_of_this_version_apply() {
    // Tests run in the crate's folder, which has no folder `config`.
    let config = Configuration::load(None, Profile::Development).unwrap();
    assert_eq!(config.http.base_domain, "localhost");
    assert!(config.signup.enabled && config.mail.log_contents);
    assert!(Configuration::load(None, Profile::Production).unwrap().http.hsts);
}

#[test]
fn named_folder_without_the_file_is_refused() {
    let error = Configuration::load(Some(Path::new("/nowhere/at/all")), Profile::Production).unwrap_err();
    assert!(
        error.to_string().contains("/nowhere/at/all/production.toml"),
        "{error}"
    );
}

#[test]
fn a_missing_signing_key_is_named() {
    let mut config = complete();
    config.auth.signing_key = Secret::default();
    assert!(
        complaint(&config).contains("auth.signing_key"),
        "{}",
        complaint(&config)
    );
    assert!(complaint(&config).contains("TENANTRY__AUTH__SIGNING_KEY"));
}

#[test]
fn wrong_export_of_events_is_named() {
    let with = |change: fn(&mut Configuration)| {
        let mut config = complete();
        config.redis.url = Secret::new("rediss://cache:6380".into());
        config.events.export.kind = EventExportKind::Redis;
        change(&mut config);
        complaint(&config)
    };
    assert_eq!(with(|_| {}), "");
    type Change = fn(&mut Configuration);
    let cases: [(&str, Change); 6] = [
        ("events.export.kind", |config| {
            config.redis.url = Secret::default();
        }),
        ("events.export.stream", |config| {
            config.events.export.stream = String::new();
        }),
        ("events.export.stream", |config| {
            config.events.export.stream = "a b".into();
        }),
        ("events.export.max_length", |config| {
            config.events.export.max_length = 999;
        }),
        ("events.export.timeout_ms", |config| {
            config.events.export.timeout_ms = 99;
        }),
        ("events.export.batch", |config| config.events.export.batch = 501),
    ];
    for (key, change) in cases {
        let complaint = with(change);
        assert!(
            complaint.contains(&format!("setting {key}:")),
            "{key}: {complaint}"
        );
        assert_eq!(complaint.lines().count(), 1);
    }
}

#[test]
fn wrong_receiver_of_audit_entries_is_named() {
    let with = |change: fn(&mut Stream)| {
        let mut config = complete();
        config.profile = Profile::Production;
        change(&mut config.audit.stream);
        complaint(&config)
    };
    let http = |stream: &mut Stream| {
        stream.kind = StreamKind::Http;
        stream.url = "https://siem.example.com/ingest".into();
    };
    assert_eq!(with(http), "");
    type Change = fn(&mut Stream);
    let cases: [(&str, Change); 9] = [
        ("audit.stream.url", |stream| stream.kind = StreamKind::Http),
        ("audit.stream.url", |stream| {
            stream.kind = StreamKind::Http;
            stream.url = "http://siem.example.com/".into();
        }),
        ("audit.stream.url", |stream| {
            stream.kind = StreamKind::Http;
            stream.url = "https://user:password@siem.example.com/".into();
        }),
        ("audit.stream.token_file", |stream| {
            stream.kind = StreamKind::Http;
            stream.url = "https://siem.example.com/".into();
            stream.token = Secret::new("t".into());
            stream.token_file = Some("token".into());
        }),
        ("audit.stream.address", |stream| stream.kind = StreamKind::Syslog),
        ("audit.stream.address", |stream| {
            stream.kind = StreamKind::Syslog;
            stream.address = "siem.example.com".into();
        }),
        ("audit.stream.client_key_file", |stream| {
            stream.kind = StreamKind::Syslog;
            stream.address = "[2001:db8::1]:6514".into();
            stream.client_cert_file = Some("client.crt".into());
        }),
        ("audit.stream.timeout_ms", |stream| stream.timeout_ms = 0),
        ("audit.stream.batch_records", |stream| stream.batch_records = 501),
    ];
    for (key, change) in cases {
        let complaint = with(change);
        assert!(
            complaint.contains(&format!("setting {key}:")),
            "{key}: {complaint}"
        );
        assert_eq!(complaint.lines().count(), 1);
        assert!(!complaint.contains("password@"), "{complaint}");
    }
    let mut config = complete();
    config.profile = Profile::Development;
    config.audit.stream.kind = StreamKind::Http;
    assert!(complaint(&config).contains("must be the http or https address"));
    for (address, expected) in [
        ("siem:6514", Some(("siem", 6514))),
        ("[::1]:6514", Some(("::1", 6514))),
        ("::1:6514", None),
        ("siem:0", None),
        ("siem:65536", None),
        (":6514", None),
        ("tls://siem:6514", None),
        ("[siem]:6514", None),
    ] {
        let stream = Stream {
            address: address.into(),
            ..Stream::default()
        };
        let found = stream.host_and_port();
        assert_eq!(
            found.as_ref().map(|(host, port)| (host.as_str(), *port)),
            expected,
            "{address}"
        );
    }
}

#[test]
fn codes_are_accepted_one_step_around_at_the_most() {
    let with = |steps| {
        let mut config = complete();
        config.auth.totp_steps_around = steps;
        complaint(&config)
    };
    assert_eq!((with(0), with(1)), (String::new(), String::new()));
    let refused = with(2);
    assert!(
        refused.contains("auth.totp_steps_around") && refused.contains("must be in 0..=1"),
        "{refused}"
    );
}

#[test]
fn operators_need_a_factor_in_production_unless_told_otherwise() {
    let mut auth = Auth::default();
    assert!(auth.operators_need_factor(Profile::Production));
    assert!(!auth.operators_need_factor(Profile::Development));
    for given in [true, false] {
        auth.operator_mfa_required = Some(given);
        assert_eq!(auth.operators_need_factor(Profile::Production), given);
        assert_eq!(auth.operators_need_factor(Profile::Development), given);
    }
}

#[test]
fn default_and_short_passwords_are_refused_outside_development() {
    for password in ["postgres", "tenantry_app", "hunter2"] {
        let mut config = complete();
        config.database.url = Secret::new(format!("postgres://tenantry_app:{password}@db/tenantry"));
        assert!(complaint(&config).contains("database.url"), "{password}");
        assert!(
            !complaint(&config).contains(password) || password == "tenantry_app",
            "it is not repeated"
        );
        config.profile = Profile::Development;
        assert_eq!(complaint(&config), "", "{password}");
    }
}

#[test]
fn a_number_out_of_range_is_named_with_its_range() {
    let mut config = complete();
    config.database.pool_size = 0;
    assert!(complaint(&config).contains("database.pool_size: must be in 1..=1000, is 0"));
}

#[test]
fn where_webhooks_may_go_is_checked() {
    let with = |profile, change: fn(&mut Webhooks)| {
        let mut config = complete();
        config.profile = profile;
        change(&mut config.webhooks);
        complaint(&config)
    };
    let open: fn(&mut Webhooks) = |webhooks| {
        webhooks.allow_http = true;
        webhooks.ports = Vec::new();
        webhooks.allowed_networks = vec!["127.0.0.0/8".into(), "::1".into()];
    };
    assert_eq!(with(Profile::Development, open), "");
    assert!(with(Profile::Production, open).contains("webhooks.allow_http: must be false in production"));
    type Change = fn(&mut Webhooks);
    let cases: [(Change, &str); 6] = [
        (
            |webhooks| webhooks.ports = Vec::new(),
            "webhooks.ports: must list ports",
        ),
        (
            |webhooks| webhooks.ports = vec![0],
            "webhooks.ports: must be a list",
        ),
        (
            |webhooks| webhooks.allowed_networks = vec!["8.8.8.0/24".into()],
            "webhooks.allowed_networks: `8.8.8.0/24` cannot be allowed",
        ),
        (
            |webhooks| webhooks.allowed_networks = vec!["inside".into()],
            "webhooks.allowed_networks: `inside` is not a network",
        ),
        (
            |webhooks| webhooks.denied_networks = vec!["10.0.0.1/8".into()],
            "webhooks.denied_networks: `10.0.0.1/8` is not a network",
        ),
        (
            |webhooks| webhooks.connect_timeout_ms = 1,
            "webhooks.connect_timeout_ms: must be in 100..=30000",
        ),
    ];
    for (change, expected) in cases {
        let said = with(Profile::Production, change);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn relying_party_of_passkeys_is_checked() {
    let with = |rp_id: &str, origins: &[&str]| {
        let mut config = complete();
        config.auth.passkeys = Passkeys {
            rp_id: rp_id.into(),
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
        };
        config
    };
    assert!(matches!(with("", &[]).auth.passkeys.relying_party(), Ok(None)));
    for (rp_id, origins) in [
        ("example.com", &[][..]),
        (
            "example.com",
            &["https://app.example.com", "https://example.com:8443"],
        ),
        ("localhost", &["http://localhost:3000"]),
    ] {
        let config = with(rp_id, origins);
        assert_eq!(complaint(&config), "", "{rp_id}");
        assert!(matches!(config.auth.passkeys.relying_party(), Ok(Some(_))));
    }
    for (rp_id, origins, key) in [
        ("", &["https://example.com"][..], "auth.passkeys.rp_id"),
        ("https://example.com", &[], "auth.passkeys.rp_id"),
        ("10.0.0.1", &[], "auth.passkeys.rp_id"),
        ("example.com", &["https://example.org"], "auth.passkeys.origins"),
        ("example.com", &["http://example.com"], "auth.passkeys.origins"),
    ] {
        let complaint = complaint(&with(rp_id, origins));
        assert!(complaint.contains(key), "{rp_id} {origins:?}: {complaint}");
    }
}

/// The driver would look it up as a name at the first connection.
#[test]
fn an_ipv6_address_in_brackets_is_refused_with_the_key() {
    type Change = fn(&mut Configuration, Secret);
    let changes: [(Change, &str); 4] = [
        (|it, url| it.database.url = url, "database.url"),
        (|it, url| it.database.platform_url = url, "database.platform_url"),
        (|it, url| it.database.owner_url = url, "database.owner_url"),
        (|it, url| it.database.admin_url = url, "database.admin_url"),
    ];
    for (change, key) in changes {
        for profile in [Profile::Production, Profile::Development] {
            let mut config = complete();
            config.profile = profile;
            change(
                &mut config,
                Secret::new("postgres://app:a-long-password@[2001:db8::1]:5433/x".into()),
            );
            let complaint = complaint(&config);
            assert!(complaint.starts_with(&format!("setting {key}: ")), "{complaint}");
            assert!(
                complaint.contains("?host=2001:db8::1") && !complaint.contains('\n'),
                "{complaint}"
            );
            assert!(!complaint.contains("a-long-password"), "{complaint}");
        }
    }
    let mut config = complete();
    config.database.url = Secret::new("postgres://app:a-long-password@localhost/x?host=::1".into());
    assert_eq!(complaint(&config), "");
}

#[test]
fn production_refuses_a_network_without_tls_unless_told() {
    type Change = fn(&mut Configuration);
    let secret = |url: &str| Secret::new(url.into());
    let cases: [(Change, &str, Change); 7] = [
        (
            |it| it.database.url = Secret::new("postgres://app:a-long-password@db/x".into()),
            "database.url: must have sslmode=verify-full",
            |it| it.database.allow_plaintext = true,
        ),
        (
            |it| it.database.platform_url = Secret::new("postgres://p@db/x?sslmode=require".into()),
            "database.platform_url: must have sslmode=verify-full",
            |it| it.database.allow_plaintext = true,
        ),
        (
            |it| it.database.owner_url = Secret::new("postgres://owner@db/x?sslmode=verify-ca".into()),
            "database.owner_url: must have sslmode=verify-full",
            |it| it.database.allow_plaintext = true,
        ),
        (
            |it| it.database.admin_url = Secret::new("postgres://root@db/x".into()),
            "database.admin_url: must have sslmode=verify-full",
            |it| it.database.allow_plaintext = true,
        ),
        (
            |it| it.redis.url = Secret::new("redis://:secret@cache:6379/0".into()),
            "redis.url: must begin with rediss://",
            |it| it.redis.allow_plaintext = true,
        ),
        (
            |it| it.redis.url = Secret::new("rediss://cache/#insecure".into()),
            "redis.url: must begin with rediss://",
            |it| it.redis.allow_plaintext = true,
        ),
        (
            |it| it.redis.url = Secret::new("rediss://a:26379,redis://[2001:db8::1]/".into()),
            "redis.url: must begin with rediss://",
            |it| it.redis.allow_plaintext = true,
        ),
    ];
    for (change, expected, allow) in cases {
        let mut config = complete();
        change(&mut config);
        assert!(
            complaint(&config).contains(expected),
            "{expected}: {}",
            complaint(&config)
        );
        assert!(!complaint(&config).contains("secret"), "it is not repeated");
        assert_eq!(config.plaintext(), [""; 0]);
        allow(&mut config);
        assert_eq!(complaint(&config), "", "{expected}");
        assert_eq!(config.plaintext().len(), 1, "it is logged");
        config = complete();
        config.profile = Profile::Development;
        change(&mut config);
        assert_eq!(complaint(&config), "", "{expected}");
    }
    for url in [
        "redis://127.0.0.1",
        "redis://localhost:6380/1",
        "redis://[::1]",
        "redis+unix:///run/redis.sock",
        "unix:///run/redis.sock",
        "rediss://cache:6380",
    ] {
        let mut config = complete();
        config.redis.url = secret(url);
        assert_eq!(complaint(&config), "", "{url}");
    }
    for url in [
        "postgres://app:a-long-password@127.0.0.1/x",
        "postgres:///x?host=/var/run/postgresql",
    ] {
        let mut config = complete();
        config.database.url = secret(url);
        assert_eq!(complaint(&config), "", "{url}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_named_together() {
    type Change = fn(&mut Configuration);
    let cases: [(Change, &str); 9] = [
        (
            |it| it.http.request_timeout_ms = 5_000,
            "database.acquire_timeout_ms: must be less than http.request_timeout_ms (5000), is 5000",
        ),
        (
            |it| it.database.connect_timeout_ms = 30_000,
            "database.connect_timeout_ms: must be less than http.request_timeout_ms (30000), is 30000",
        ),
        (
            |it| it.http.body_timeout_ms = 30_001,
            "http.body_timeout_ms: must be at most http.request_timeout_ms (30000), is 30001",
        ),
        (
            |it| it.database.statement_timeout_ms = 30_001,
            "database.statement_timeout_ms: must be at most http.request_timeout_ms (30000), is 30001",
        ),
        (
            |it| it.database.statement_timeout_ms = 4_000,
            "database.lock_timeout_ms: must be at most database.statement_timeout_ms (4000), is 5000",
        ),
        (
            |it| it.database.per_tenant = 11,
            "database.per_tenant: must be at most database.pool_size (10), is 11",
        ),
        (
            |it| it.cache.ttl_ms = 500,
            "cache.alone_ttl_ms: must be at most cache.ttl_ms (500), is 1000",
        ),
        (
            |it| it.http.event_streams = 99,
            "http.event_streams_per_tenant: must be at most http.event_streams (99), is 100",
        ),
        (|it| it.database.statement_timeout_ms = 0, ""),
    ];
    for (change, expected) in cases {
        let mut config = complete();
        change(&mut config);
        let complaint = complaint(&config);
        assert!(complaint.contains(expected), "{expected}: {complaint}");
        assert_eq!(complaint.is_empty(), expected.is_empty(), "{complaint}");
    }
}

#[test]
fn where_traces_go_is_checked() {
    for (endpoint, holds) in [
        ("", true),
        ("http://127.0.0.1:4318", true),
        ("http://collector", true),
        ("https://collector", true),
        ("https://api.example.com/otlp", true),
        ("http://", false),
        ("collector:4318", false),
        ("https://me:secret@collector", false),
        ("https://collector?key=secret", false),
    ] {
        let mut config = complete();
        config.tracing.otlp_endpoint = endpoint.into();
        assert_eq!(complaint(&config).is_empty(), holds, "{endpoint}");
    }
    let mut config = complete();
    for (headers, read) in [
        ("", Some(vec![])),
        (
            "Authorization=Basic%20dTpw, x-team = a",
            Some(vec![("Authorization", "Basic dTpw"), ("x-team", "a")]),
        ),
        ("x-key=a%2Cb=c", Some(vec![("x-key", "a,b=c")])),
        ("x-key", None),
        ("=hush-hush", None),
        ("x-key=hush%0Ahush", None),
        ("x-key=hush%2", None),
        ("x key=hush", None),
    ] {
        config.tracing.otlp_headers = Secret::new(headers.into());
        let pairs = config.tracing.headers();
        let pairs = pairs.as_ref().map(|pairs| {
            let pair = |(name, value): &'_ (String, String)| (name.clone(), value.clone());
            pairs.iter().map(pair).collect::<Vec<_>>()
        });
        let read = read.map(|pairs| {
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            pairs.into_iter().map(owned).collect::<Vec<_>>()
        });
        assert_eq!(pairs, read, "{headers}");
        assert_eq!(complaint(&config).is_empty(), read.is_some(), "{headers}");
        assert!(!complaint(&config).contains("hush"), "{headers}");
    }
    let mut config = complete();
    config.tracing.sampling_ratio = 1.5;
    assert!(complaint(&config).contains("tracing.sampling_ratio: must be in 0..=1, is 1.5"));
}

#[test]
fn how_stripe_is_reached_is_checked() {
    let complaint_of = |key: &str, webhook: &str, base: &str, profile| {
        let mut config = complete();
        config.profile = profile;
        let secrets = [webhook].into_iter().filter(|secret| !secret.is_empty());
        config.billing.stripe = Stripe {
            secret_key: Secret::new(key.into()),
            webhook_secrets: secrets.map(|secret| Secret::new(secret.into())).collect(),
            api_base: base.into(),
            ..Stripe::default()
        };
        complaint(&config)
    };
    use Profile::{Development, Production};
    let (fake, local) = (Stripe::FAKE_KEY, "http://127.0.0.1:9400");
    for (key, webhook, base, profile, expected) in [
        ("", "", "", Production, ""),
        ("sk_live_1", "whsec_1", "", Production, ""),
        ("rk_live_1", "whsec_1", "https://stripe.example", Production, ""),
        ("sk_live_1", "", "", Production, "billing.stripe.webhook_secrets"),
        ("sk_test_1", "", "", Development, ""),
        (fake, "whsec_1", local, Development, ""),
        (fake, "whsec_1", local, Production, "billing.stripe.api_base"),
        (fake, "whsec_1", "", Production, "billing.stripe.api_base"),
        (
            "sk_live_1",
            "whsec_1",
            local,
            Production,
            "billing.stripe.api_base",
        ),
        (
            "pk_live_1",
            "whsec_1",
            "",
            Production,
            "billing.stripe.secret_key",
        ),
        (
            "sk_live_1",
            "secret",
            "",
            Production,
            "billing.stripe.webhook_secrets",
        ),
        ("", "", "127.0.0.1:9400", Development, "billing.stripe.api_base"),
        ("", "", "http://host/v1", Development, "billing.stripe.api_base"),
        ("", "", "https://a@b", Development, "billing.stripe.api_base"),
    ] {
        let complaint = complaint_of(key, webhook, base, profile);
        assert!(
            complaint.contains(expected),
            "{key} {webhook} {base}: {complaint}"
        );
        assert_eq!(
            complaint.is_empty(),
            expected.is_empty(),
            "{key} {webhook} {base}: {complaint}"
        );
        assert!(!complaint.contains("live_1"), "it is not repeated: {complaint}");
    }
}

#[test]
fn how_mail_is_sent_is_checked() {
    type Change = fn(&mut Mail);
    let cases: [(Change, &str); 20] = [
        (|_| {}, ""),
        (|it| it.smtp.host = "smtp.example.com".into(), ""),
        (|it| it.smtp.host = "127.0.0.1".into(), ""),
        (|it| it.smtp.host = "::1".into(), ""),
        (|it| it.from = "Ex Ample <no-reply@example.com>".into(), ""),
        (
            |it| (it.smtp.host, it.from) = ("smtp.example.com".into(), String::new()),
            "mail.from: must be no-reply@example.com, or Example <no-reply@example.com>",
        ),
        (|it| it.from = "no-reply".into(), "mail.from"),
        (
            |it| it.from = "A\r\nBcc: e@example.com <a@example.com>".into(),
            "mail.from",
        ),
        (|it| it.smtp.host = "smtp://example.com".into(), "mail.smtp.host"),
        (
            |it| it.smtp.host = "smtp.example.com\r\nQUIT".into(),
            "mail.smtp.host",
        ),
        (
            |it| it.smtp.user = "me".into(),
            "mail.smtp.password: must be set with mail.smtp.user",
        ),
        (
            |it| it.smtp.password = Secret::new("hush-hush".into()),
            "mail.smtp.password",
        ),
        (
            |it| {
                it.smtp.user = "me".into();
                it.smtp.password = Secret::new("hush-hush".into());
                it.smtp.tls = SmtpTls::None;
            },
            "mail.smtp.tls: must be starttls or tls where a password is sent",
        ),
        (
            |it| {
                it.smtp.tls = SmtpTls::None;
                it.smtp.ca_file = Some("ca.pem".into());
            },
            "mail.smtp.ca_file",
        ),
        (|it| it.app_url = "app.example.com".into(), "mail.app_url"),
        (|it| it.api_url = "api.example.com".into(), "mail.api_url"),
        (|it| it.app_url = "javascript:alert(1)".into(), "mail.app_url"),
        (
            |it| it.smtp.timeout_ms = 99,
            "mail.smtp.timeout_ms: must be in 100..=600000, is 99",
        ),
        (
            |it| it.smtp.connect_timeout_ms = 60_001,
            "mail.smtp.connect_timeout_ms: must be in 100..=60000, is 60001",
        ),
        (
            |it| it.smtp.pool_size = 0,
            "mail.smtp.pool_size: must be in 1..=100, is 0",
        ),
    ];
    for (change, expected) in cases {
        let mut config = complete();
        config.mail.from = "no-reply@example.com".into();
        change(&mut config.mail);
        let complaint = complaint(&config);
        assert!(complaint.contains(expected), "{expected}: {complaint}");
        assert_eq!(
            complaint.is_empty(),
            expected.is_empty(),
            "{expected}: {complaint}"
        );
        assert!(!complaint.contains("hush-hush"), "{complaint}");
    }
    let ports = [(SmtpTls::Starttls, 587), (SmtpTls::Tls, 465), (SmtpTls::None, 25)];
    for (tls, port) in ports {
        let smtp = Smtp {
            tls,
            ..Smtp::default()
        };
        assert_eq!((smtp.port(), Smtp { port: 2525, ..smtp }.port()), (port, 2525));
    }
}

#[test]
fn unknown_keys_and_wrong_types_name_the_key() {
    let unknown = Figment::from(Serialized::defaults(Configuration::default()))
        .merge(Toml::string("[database]\npool_sice = 3"))
        .extract::<Configuration>();
    assert!(
        ConfigurationError::unreadable(&unknown.unwrap_err())
            .to_string()
            .contains("pool_sice")
    );
    let wrong = Figment::from(Serialized::defaults(Configuration::default()))
        .merge(Toml::string("[database]\npool_size = 'many'"))
        .extract::<Configuration>();
    assert!(
        ConfigurationError::unreadable(&wrong.unwrap_err())
            .to_string()
            .starts_with("configuration: database.pool_size: ")
    );
    let wrong = Figment::from(Serialized::defaults(Configuration::default()))
        .merge(Toml::string("[domains]\nname_servers = '192.0.2.53:53'"))
        .extract::<Configuration>();
    let said = ConfigurationError::unreadable(&wrong.unwrap_err()).to_string();
    assert!(
        said.starts_with("configuration: domains.name_servers: must be a list")
            && said.contains("[\"192.0.2.53:53\"]"),
        "{said}"
    );
}

/// The configuration of a file, each with its name.
fn leaves(name: &str, value: &serde_json::Value) -> Vec<(String, serde_json::Value)> {
    let Some(section) = value.as_object() else {
        return vec![(name.trim_start_matches('.').to_owned(), value.clone())];
    };
    let below = section
        .iter()
        .map(|(key, value)| leaves(&format!("{name}.{key}"), value));
    below.flatten().collect()
}

/// Who reads the table must not be surprised by a file.
#[test]
fn readme_names_what_a_profile_sets_differently() {
    let readme = include_str!("../../../../README.md");
    let defaults = serde_json::to_value(Configuration::default()).unwrap();
    for (profile, file) in [
        ("development", include_str!("../../../../config/development.toml")),
        ("production", include_str!("../../../../config/production.toml")),
    ] {
        let set: serde_json::Value = Figment::from(Toml::string(file)).extract().unwrap();
        let default = |name: &str| defaults.pointer(&format!("/{}", name.replace('.', "/")));
        let set = leaves("", &set).into_iter();
        for (name, value) in set.filter(|(name, value)| default(name) != Some(value)) {
            let of = |row: &&str| row.split(" | ").next().is_some_and(|cell| cell.contains(&name));
            let row = readme.lines().filter(|line| line.starts_with("| `")).find(of);
            let row = row.unwrap_or_else(|| panic!("README has no row of {name}"));
            assert!(row.contains(&format!("in {profile}")), "{profile}: {name}: {row}");
            let first = value.as_array().and_then(|list| list.first());
            let shown = first.unwrap_or(&value).to_string();
            let shown = shown.trim_matches('"');
            assert!(row.contains(&format!("`{shown}`")), "{shown}: {row}");
        }
    }
}

#[test]
fn secrets_are_not_printed() {
    let mut config = complete();
    config.mail.smtp.password = Secret::new("hush-hush".into());
    let shown = format!("{config:?}");
    assert!(!shown.contains("a-long-password") && !shown.contains("hush-hush"));
}

#[test]
fn challenges_are_checked_when_they_are_configured() {
    type Change = fn(&mut Challenge);
    let checked = |profile, change: Change| {
        let mut config = complete();
        config.profile = profile;
        let challenge = &mut config.signup.challenge;
        challenge.provider = ChallengeProvider::Siteverify;
        challenge.url = "https://api.hcaptcha.com/siteverify".into();
        challenge.secret = Secret::new("secret".into());
        challenge.site_key = "site".into();
        change(challenge);
        complaint(&config)
    };
    let changes: [(Change, &str); 9] = [
        (|it| it.url.clear(), "url"),
        (|it| it.url = "http://api.hcaptcha.com/siteverify".into(), "url"),
        (|it| it.url = "api.hcaptcha.com".into(), "url"),
        (|it| it.secret = Secret::default(), "secret"),
        (|it| it.site_key.clear(), "site_key"),
        (|it| it.purposes = vec!["login".into()], "purposes"),
        (|it| it.purposes.clear(), "purposes"),
        (|it| it.difficulty = 33, "difficulty"),
        (|it| it.timeout_ms = 0, "timeout_ms"),
    ];
    for (change, key) in changes {
        let complaint = checked(Profile::Production, change);
        let expected = format!("setting signup.challenge.{key}: ");
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
    assert_eq!(checked(Profile::Production, |_| ()), "");
    assert_eq!(checked(Profile::Production, |it| *it = Challenge::default()), "");
    let local: Change = |it| it.url = "http://127.0.0.1:9/siteverify".into();
    assert_eq!(checked(Profile::Development, local), "");
}

#[test]
fn address_of_breached_passwords_is_checked() {
    let checked = |profile, url: &str, timeout_ms| {
        let mut config = complete();
        config.profile = profile;
        config.auth.breached_passwords.url = url.into();
        config.auth.breached_passwords.timeout_ms = timeout_ms;
        complaint(&config)
    };
    let public = "https://api.pwnedpasswords.com";
    for url in [
        "http://api.pwnedpasswords.com",
        "api.pwnedpasswords.com",
        "https://api.pwnedpasswords.com/?range=",
    ] {
        let complaint = checked(Profile::Production, url, 2_000);
        assert!(
            complaint.starts_with("setting auth.breached_passwords.url: "),
            "{url}: {complaint}"
        );
    }
    let complaint = checked(Profile::Production, public, 0);
    assert!(
        complaint.starts_with("setting auth.breached_passwords.timeout_ms: "),
        "{complaint}"
    );
    assert_eq!(checked(Profile::Production, public, 2_000), "");
    assert_eq!(checked(Profile::Production, "", 2_000), "");
    assert_eq!(
        checked(Profile::Development, "http://127.0.0.1:9/copy", 2_000),
        ""
    );
}
