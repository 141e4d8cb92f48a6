use proptest::prelude::*;
use serde_json::json;
use tenantry_domain::billing::{
    ApiKeyNotice, DomainNotice, DunningNotice, DunningStep, EndingKey, Notice, OpenInvoice, QuotaNotice,
    WebhookNotice,
};
use tenantry_domain::identity::{
    AccountNotice, Email, Invitation, InvitationMail, LinkPurpose, NewInvitation, SecurityNotice, Workspace,
    WorkspaceMail,
};
use tenantry_domain::kernel::{Currency, Line, MailTemplate, Period, Role, Time};
use tenantry_domain::notifications::{NoticeType, Notification, NotificationMail};
use tenantry_domain::security::{AlertAction, AlertNotice, RULES, Rule, Severity, SubjectKind};
use tenantry_domain::usage::{AlertBase, MeterKey, Threshold};
use uuid::Uuid;

use super::*;

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

fn recipient() -> Recipient {
    Recipient {
        name: Line::of("Ada"),
        tenant: Line::of("Acme Inc"),
        zone: "Europe/Berlin".into(),
        app_url: Line::of("https://app.example.com/"),
    }
}

fn look(language: Language) -> Look {
    Look {
        language,
        color: "#1d4ed8".into(),
        text_color: "#ffffff".into(),
    }
}

fn english(message: &Message) -> RenderedMail {
    let templates = CompiledTemplates::new();
    templates
        .render(message, &recipient(), &look(Language::English))
        .unwrap()
}

fn quota(base: AlertBase, percent: u32, enforced: bool) -> Notice {
    Notice::Quota(QuotaNotice {
        meter: MeterKey::api_calls(),
        title: "API calls".into(),
        threshold: Threshold {
            base,
            percent,
            amount: 10_000,
        },
        used: 8_003,
        enforced,
        period: Period {
            start: at("2026-07-01T00:00:00Z"),
            end: at("2026-08-01T00:00:00Z"),
        },
    })
}

fn open_invoice(number: u32, amount: i64, currency: &str) -> OpenInvoice {
    OpenInvoice {
        number: Some(format!("INV-{number}")),
        amount,
        currency: Currency::try_from(currency.to_owned()).unwrap(),
        url: Some(format!("https://pay.example.com/{number}")),
    }
}

fn dunning(step: DunningStep, open_invoices: Vec<OpenInvoice>) -> Notice {
    Notice::Dunning(DunningNotice {
        step,
        open_invoices,
        suspended_at: Some(at("2026-07-08T00:00:00Z")),
        deleted_at: Some(at("2026-08-08T00:00:00Z")),
    })
}

fn keys(ends: &[bool]) -> Notice {
    let key = |(number, is_over): (usize, &bool)| EndingKey {
        name: format!("key {number}"),
        expires_at: at("2026-07-08T00:00:00Z"),
        is_over: *is_over,
    };
    Notice::ApiKeys(ApiKeyNotice {
        keys: ends.iter().enumerate().map(key).collect(),
    })
}

fn domain(release_at: Option<Time>) -> Notice {
    Notice::Domain(DomainNotice {
        domain: "portal.acme.com".into(),
        record: "_tenantry-verify.portal.acme.com".into(),
        value: "tenant-verification=token".into(),
        release_at,
    })
}

fn webhook(description: Option<&str>, failing_since: Option<Time>) -> Notice {
    Notice::Webhook(WebhookNotice {
        origin: "https://hooks.acme.com".into(),
        description: description.map(str::to_owned),
        failing_since,
    })
}

fn network(address: Option<&str>, user_agent: Option<&str>) -> AccountNotice {
    AccountNotice::NewNetwork {
        address: address.map(str::to_owned),
        user_agent: user_agent.map(str::to_owned),
    }
}

fn invitation(role: Role, inviter: &str) -> Message {
    let data = NewInvitation {
        email: Email::parse("grace@example.com", "").unwrap(),
        role,
        invited_by: Uuid::nil().into(),
    };
    let invitation = Invitation::new(Uuid::nil().into(), data, [1; 32], at("2026-01-01T12:00:00Z"));
    InvitationMail {
        invitation: &invitation,
        inviter,
        link: "https://app.example.com/accept-invitation#token=inv_x",
    }
    .message(&recipient())
}

/// A list of so many workspaces of that name.
fn workspaces(number: usize, name: &str) -> Message {
    let workspace = Workspace {
        name: name.into(),
        slug: "acme".into(),
    };
    WorkspaceMail {
        workspaces: &vec![workspace; number],
        app_url: "https://app.example.com/",
    }
    .message()
}

/// Every notice about what protects an account, with a text that others chose.
fn security(text: &str) -> [SecurityNotice; 18] {
    let (address, user_agent, name) = (Some(text.to_owned()), Some(text.to_owned()), text.to_owned());
    [
        SecurityNotice::EmailChangedByAdmin,
        SecurityNotice::FactorEnabled,
        SecurityNotice::FactorDisabled,
        SecurityNotice::FactorReset,
        SecurityNotice::RecoveryCodesRenewed,
        SecurityNotice::RecoveryCodeUsed,
        SecurityNotice::DeviceTrusted {
            address: address.clone(),
            user_agent,
        },
        SecurityNotice::WrongCodes { address },
        SecurityNotice::ApiKeyCreated { name: name.clone() },
        SecurityNotice::ApiKeyRotated { name: name.clone() },
        SecurityNotice::ApiKeyRotatedItself { name: name.clone() },
        SecurityNotice::PasskeyAdded { name: name.clone() },
        SecurityNotice::PasskeyRemoved { name: name.clone() },
        SecurityNotice::PasskeyCloned { name: name.clone() },
        SecurityNotice::FactorsAfterRecovery {
            app_removed: true,
            removed: vec![name.clone(), "Phone".into()],
            remaining: Vec::new(),
        },
        SecurityNotice::FactorsAfterRecovery {
            app_removed: false,
            removed: Vec::new(),
            remaining: vec![name],
        },
        SecurityNotice::PasswordResetWithKeys { keys: 1 },
        SecurityNotice::PasswordResetWithKeys { keys: 2 },
    ]
}

/// An alert of every rule, about every kind of subject, with every action.
fn alerts(name: &str) -> Vec<(AlertNotice, Option<&str>)> {
    let notice = |rule: &str, severity, subject_kind, action| AlertNotice {
        alert: Uuid::nil().into(),
        rule: rule.to_owned(),
        severity,
        count: 7,
        subject_kind,
        subject: "192.0.2.0/24".to_owned(),
        action,
        further: 0,
    };
    let of_rule = |rule: &Rule| notice(rule.id, rule.severity, SubjectKind::Network, AlertAction::Nothing);
    let mut all: Vec<_> = RULES.iter().map(|rule| (of_rule(rule), None)).collect();
    for subject in SubjectKind::ALL {
        for action in AlertAction::ALL {
            all.push((
                notice("of_a_service", Severity::High, subject, action),
                Some(name),
            ));
        }
    }
    for further in [1, 12] {
        let held = notice(
            "tenant_mismatch",
            Severity::High,
            SubjectKind::User,
            AlertAction::Nothing,
        );
        all.push((AlertNotice { further, ..held }, Some(name)));
    }
    all
}

/// Notifications of every type, whose parts are this text.
fn notifications(text: &str) -> Vec<Notification> {
    let notification = |notice: &NoticeType| Notification {
        id: Uuid::nil().into(),
        user_id: Uuid::nil().into(),
        kind: notice.name.to_owned(),
        event_id: Uuid::nil().into(),
        occurred_at: at("2026-01-15T12:00:00Z"),
        actor_kind: "system".into(),
        actor_id: None,
        entity: "task".into(),
        entity_id: None,
        parts: notice
            .parts
            .iter()
            .map(|part| ((*part).to_owned(), text.into()))
            .collect(),
        in_app: true,
        mail: None,
        read_at: None,
        created_at: at("2026-01-15T12:00:00Z"),
    };
    NoticeType::all().iter().map(notification).collect()
}

fn notification_mail(items: &[Notification], more: u32, is_digest: bool) -> Message {
    NotificationMail {
        items,
        more,
        is_digest,
        unsubscribe: "https://api.example.com/unsubscribe?token=un_x",
    }
    .message(&recipient())
}

/// Each alone and at once, and digests.
fn mails_of_notifications(text: &str) -> Vec<Message> {
    let items = notifications(text);
    let mut all: Vec<_> = items
        .iter()
        .map(|item| notification_mail(std::slice::from_ref(item), 0, false))
        .collect();
    for more in [0, 7] {
        all.push(notification_mail(&items, more, true));
    }
    all.push(notification_mail(&items[..1], 0, true));
    all
}

#[test]
fn title_of_a_task_begins_no_line_of_a_digest() {
    for message in mails_of_notifications("T\r\n\r\nClick https://evil.example") {
        let text = english(&message).text;
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        assert!(lines.iter().all(|line| !line.starts_with("Click")), "{text}");
        assert!(
            text.contains("https://api.example.com/unsubscribe?token=un_x"),
            "{text}"
        );
    }
}

#[test]
fn names_of_keys_and_passkeys_begin_no_line_of_a_notice() {
    let now = at("2026-01-15T12:00:00Z");
    let hostile = "key\r\n\r\nClick https://evil.example";
    let notices = security(hostile).map(|notice| notice.message(&recipient(), now, false));
    let alerts = alerts(hostile)
        .into_iter()
        .map(|(alert, name)| alert.message(&recipient(), now, name));
    for message in notices.into_iter().chain(alerts) {
        let text = english(&message).text;
        assert!(
            !text.lines().any(|line| line.trim_start().starts_with("Click")),
            "{text}"
        );
    }
}

/// Every mail there is, in every variant.
fn all() -> Vec<Message> {
    let recipient = recipient();
    let now = at("2026-01-15T12:00:00Z");
    let mut all = Vec::new();
    for purpose in LinkPurpose::ALL {
        all.push(purpose.message(&recipient, "https://app.example.com/x#token=y", now));
    }
    for notice in [
        AccountNotice::PasswordChanged,
        AccountNotice::PasswordReset,
        network(Some("192.0.2.1"), Some("curl")),
        network(None, None),
        AccountNotice::TokenReused,
        AccountNotice::PasswordExpires { until: now },
    ] {
        all.push(notice.message(&recipient, now));
    }
    all.extend(security("x").map(|notice| notice.message(&recipient, now, false)));
    all.extend(security("x").map(|notice| notice.message(&recipient, now, true)));
    all.extend(
        alerts("x")
            .iter()
            .map(|(notice, name)| notice.message(&recipient, now, *name)),
    );
    all.extend(mails_of_notifications("x"));
    for role in [Role::Admin, Role::Member, Role::Viewer] {
        all.push(invitation(role, "Grace"));
    }
    for base in [AlertBase::Included, AlertBase::Limit] {
        for (percent, enforced) in [(80, true), (100, true), (100, false)] {
            all.push(quota(base, percent, enforced).message(&recipient));
        }
    }
    for step in DunningStep::ALL {
        let many: Vec<_> = (0..12).map(|number| open_invoice(number, 100, "usd")).collect();
        for invoices in [Vec::new(), vec![open_invoice(1, 2_900, "usd")], many] {
            all.push(dunning(step, invoices).message(&recipient));
        }
        let mut never = dunning(step, Vec::new());
        if let Notice::Dunning(notice) = &mut never {
            (notice.suspended_at, notice.deleted_at) = (None, None);
        }
        all.push(never.message(&recipient));
    }
    for number in [1, 3, Workspace::MOST_LISTED + 1] {
        all.push(workspaces(number, "Acme Inc"));
    }
    let (over, ahead) = ([true; 12], [false; 12]);
    for ends in [&over[..1], &ahead[..1], &over, &ahead, &[true, false]] {
        all.push(keys(ends).message(&recipient));
    }
    for release_at in [Some(now), None] {
        all.push(domain(release_at).message(&recipient));
        all.push(webhook(release_at.map(|_| "Orders"), release_at).message(&recipient));
    }
    all
}

/// Each language has each template, and its template uses each value that the others use.
#[test]
fn every_language_has_every_template_and_variable() {
    let templates = CompiledTemplates::new();
    for template in MailTemplate::ALL {
        let variables = Language::ALL.map(|language| {
            let name = format!("{}/{}.txt", language.as_str(), template.as_str());
            let found = templates.environment.get_template(&name).unwrap();
            let mut variables: Vec<_> = found.undeclared_variables(false).into_iter().collect();
            variables.sort();
            variables
        });
        assert!(
            variables.iter().all(|found| *found == variables[0]),
            "{variables:?}"
        );
        let message = all().into_iter().find(|message| message.template() == template);
        for value in message.unwrap().values().keys() {
            assert!(variables[0].contains(value), "{template:?} does not use {value}");
        }
    }
}

#[test]
fn every_mail_is_written_in_every_language() {
    let templates = CompiledTemplates::new();
    for message in all() {
        let [english, german] = Language::ALL.map(|language| {
            let mail = templates.render(&message, &recipient(), &look(language)).unwrap();
            assert!(
                mail.subject.as_str().starts_with("[Acme Inc] "),
                "{}",
                mail.subject
            );
            assert!(
                mail.subject.as_str().len() > "[Acme Inc] ".len() + 5,
                "{}",
                mail.subject
            );
            let text = &mail.text;
            assert!(
                text.ends_with(".\n") || text.ends_with("https://app.example.com/\n"),
                "{text}"
            );
            assert!(!text.contains("\n\n\n") && !text.contains(" \n"), "{text}");
            assert!(
                text.lines()
                    .all(|line| line.is_empty() || !line.starts_with('\t')),
                "{text}"
            );
            assert!(
                mail.html
                    .contains(&format!("<html lang=\"{}\">", language.as_str()))
            );
            assert!(
                mail.html.contains("background:#1d4ed8;color:#ffffff"),
                "{}",
                mail.html
            );
            mail
        });
        assert!(english.text.starts_with("Hello") && german.text.starts_with("Guten Tag"));
        assert_ne!(english.subject, german.subject);
        let lines = |mail: &RenderedMail| mail.text.lines().count();
        assert_eq!(lines(&english), lines(&german), "{}{}", english.text, german.text);
    }
}

#[test]
fn missing_value_is_an_error() {
    let templates = CompiledTemplates::new();
    let message = Message::new(MailTemplate::Invitation).with("inviter", "Ada");
    let error = templates
        .render(&message, &recipient(), &look(Language::English))
        .unwrap_err();
    assert!(error.template.starts_with("en/invitation."), "{}", error.template);
}

#[test]
fn link_is_on_a_line_of_its_own_with_its_end() {
    for purpose in LinkPurpose::ALL {
        let message = purpose.message(
            &recipient(),
            "https://app.example.com/x#token=y",
            at("2026-01-15T12:00:00Z"),
        );
        let mail = english(&message);
        let is_named = mail.text.starts_with("Hello Ada,\n");
        let knows_its_user = matches!(purpose, LinkPurpose::ResetPassword | LinkPurpose::RevertEmail);
        assert_eq!(is_named, knows_its_user, "{}", mail.text);
        assert!(
            mail.text
                .contains(":\n\n  https://app.example.com/x#token=y\n\nThe link works once, until")
        );
        assert!(mail.text.contains("2026-01-15 13:00 (Europe/Berlin)"));
        let link = "<a href=\"https://app.example.com/x#token=y\">https://app.example.com/x#token=y</a>";
        assert!(mail.html.replace("&#x2f;", "/").contains(link), "{}", mail.html);
    }
}

#[test]
fn notice_of_a_login_has_a_table() {
    let at = at("2026-01-15T12:00:00Z");
    let notice = network(None, Some("Mail\r\n\r\nClick: https://evil.example"));
    let text = english(&notice.message(&recipient(), at)).text;
    assert!(
        text.contains(
            "\n\n  Address  unknown\n  Program  Mail Click: https://evil.example\n\nIf this was not you"
        ),
        "{text}"
    );
}

#[test]
fn invitation_says_who_invites_to_what() {
    let inviter = format!("See https://evil.example/x {}", "A\nB ".repeat(10_000));
    let mail = english(&invitation(Role::Member, &inviter));
    assert!(
        mail.subject
            .as_str()
            .starts_with("[Acme Inc] See https evil. example x A B"),
        "{}",
        mail.subject
    );
    assert_eq!(mail.text.matches("://").count(), 1, "{}", mail.text);
    assert!(mail.text.len() < 600, "{}", mail.text);
    let link = "To accept, open this link and choose a password:\n\n  https://app.example.com/accept-invitation#token=inv_x\n";
    assert!(mail.text.contains(link), "{}", mail.text);
}

#[test]
fn numbers_are_grouped_by_three() {
    let templates = CompiledTemplates::new();
    for (number, english, german) in [
        (0, "0", "0"),
        (999, "999", "999"),
        (1_000, "1,000", "1.000"),
        (12_345, "12,345", "12.345"),
        (
            u64::MAX,
            "18,446,744,073,709,551,615",
            "18.446.744.073.709.551.615",
        ),
    ] {
        for (lang, text) in [("en", english), ("de", german)] {
            let values = Value::from(Serde(json!({"n": number, "lang": lang})));
            let shown = templates.environment.render_str("{{ n|grouped }}", values);
            assert_eq!(shown.unwrap(), text);
        }
    }
}

#[test]
fn quota_is_shown_with_its_figures_in_the_time_of_the_tenant() {
    let mail = english(&quota(AlertBase::Limit, 80, true).message(&recipient()));
    assert_eq!(
        mail.subject.as_str(),
        "[Acme Inc] API calls: 80 % of the limit is used"
    );
    assert_eq!(
        mail.text,
        "Hello Ada,\n\nAcme Inc has used 80 % of the limit of API calls in this period.\n\n  \
         Meter   API calls (api_calls)\n  Used    8,003 (80 %)\n  Limit   10,000\n  \
         Period  2026-07-01 02:00 (Europe/Berlin) to\n          2026-08-01 02:00 (Europe/Berlin)\n\n\
         What happens next: once the limit is reached, whatever would go beyond it is refused until 2026-08-01 02:00 \
         (Europe/Berlin).\n\nLook at what is used, or change the plan: https://app.example.com/\n\n\
         You get this mail because you are an admin of Acme Inc.\n"
    );
    let lenient = english(&quota(AlertBase::Limit, 100, false).message(&recipient())).text;
    assert!(lenient.contains("is not refused"), "{lenient}");
    let full = english(&quota(AlertBase::Included, 100, true).message(&recipient())).text;
    assert!(full.contains("costs what the plan says"), "{full}");
    let german = CompiledTemplates::new()
        .render(
            &quota(AlertBase::Limit, 80, true).message(&recipient()),
            &recipient(),
            &look(Language::German),
        )
        .unwrap();
    assert!(german.text.contains("8.003 (80 %)"), "{}", german.text);
}

#[test]
fn every_step_of_dunning_says_what_is_open_and_what_comes_next() {
    let mut subjects = Vec::new();
    for step in DunningStep::ALL {
        let invoices = vec![
            open_invoice(1, 2_900, "usd"),
            open_invoice(2, 500, "jpy"),
            open_invoice(3, 1, "usd"),
        ];
        let mail = english(&dunning(step, invoices).message(&recipient()));
        let text = &mail.text;
        let first = "\n\n  Invoice INV-1: 29.00 USD\n    https://pay.example.com/1\n  Invoice INV-2";
        assert!(text.contains(first), "{text}");
        assert!(
            text.contains("\n  Together: 29.01 USD, 500 JPY\n\nWhat happens next: "),
            "{text}"
        );
        subjects.push(mail.subject);
    }
    subjects.dedup();
    assert_eq!(subjects.len(), DunningStep::ALL.len());
    let without = english(&dunning(DunningStep::PaymentFailed, Vec::new()).message(&recipient())).text;
    assert!(!without.contains("Invoice"), "{without}");
    let many = (0..12).map(|number| open_invoice(number, 100, "usd")).collect();
    let many = english(&dunning(DunningStep::PaymentFailed, many).message(&recipient())).text;
    assert!(many.contains("and 2 more\n  Together: 12.00 USD"), "{many}");
}

proptest! {
    /// Whatever people, tenants, meters and invoices are called: no line of the text is theirs, no subject has two lines, and
    /// in the HTML there are the tags that are there without them.
    #[test]
    fn hostile_names_are_text_and_nothing_else(names in prop::array::uniform4(".{0,30}|<[a-z]{1,6} x=['\"&]{1,3}>"), url in "[!-~]{0,20}") {
        let [name, tenant, title, number] = names;
        let hostile = Recipient { name: Line::of(&name), tenant: Line::of(&tenant), ..recipient() };
        let notices = |title: &str, number: &str, url: &str| {
            let mut quota = quota(AlertBase::Limit, 80, true);
            if let Notice::Quota(notice) = &mut quota {
                title.clone_into(&mut notice.title);
            }
            let invoice = OpenInvoice { number: Some(number.into()), url: Some(format!("https://{url}")), ..open_invoice(1, 2_900, "usd") };
            let at = at("2026-01-15T12:00:00Z");
            [
                quota.message(&hostile),
                dunning(DunningStep::PaymentFailed, vec![invoice]).message(&hostile),
                network(Some(title), Some(number)).message(&hostile, at),
                LinkPurpose::ResetPassword.message(&hostile, "https://app.example.com/x#token=y", at),
                invitation(Role::Member, title),
                workspaces(2, title),
            ]
        };
        let templates = CompiledTemplates::new();
        for language in Language::ALL {
            let tame = notices("title", "number", "url");
            for (message, tame) in notices(&title, &number, &url).iter().zip(&tame) {
                let mail = templates.render(message, &hostile, &look(language)).unwrap();
                let expected = templates.render(tame, &recipient(), &look(language)).unwrap();
                prop_assert_eq!(mail.text.lines().count(), expected.text.lines().count(), "{}", mail.text);
                prop_assert!(!mail.text.replace('\n', "").contains(char::is_control), "{}", mail.text);
                prop_assert!(!mail.subject.as_str().contains(['\r', '\n']));
                for sign in ['<', '>', '"'] {
                    let count = |html: &str| html.matches(sign).count();
                    prop_assert_eq!(count(&mail.html), count(&expected.html), "{}", mail.html);
                }
            }
        }
    }
}
