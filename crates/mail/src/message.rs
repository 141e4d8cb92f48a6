//! A mail in the form in which it is sent: RFC 5322 and MIME.

use std::time::SystemTime;

use lettre::address::{Address, Envelope};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox as Party, Message, MessageBuilder, MultiPart, SinglePart};
use tenantry_domain::kernel::Line;
use tenantry_domain::operations::{Mail, MailError, Mailbox};

/// The mail with its envelope. The same mail from the same sender is the same to the byte, whenever it is
/// sent.
pub fn encode(mail: &Mail, from: &Mailbox) -> Result<(Envelope, Vec<u8>), MailError> {
    let domain = from
        .email
        .as_str()
        .rsplit_once('@')
        .map_or("localhost", |(_, domain)| domain);
    let message = Message::builder()
        .message_id(Some(format!("<{}@{domain}>", mail.id)))
        .date(SystemTime::from(mail.written_at))
        .from(party(from)?)
        .to(party(&mail.to)?)
        .subject(plain(&mail.subject))
        // Nobody's absence is to be answered to us (RFC 3834).
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    let message = with_unsubscription(message, mail.unsubscribe.as_deref());
    let text = SinglePart::builder()
        .header(ContentType::TEXT_PLAIN)
        .body(mail.text.trim_end_matches('\n').to_owned());
    let message = match &mail.html {
        None => message.singlepart(text),
        Some(html) => {
            let html = SinglePart::builder()
                .header(ContentType::TEXT_HTML)
                .body(html.clone());
            let both = MultiPart::alternative().boundary(format!("part-{}", mail.id));
            message.multipart(both.singlepart(text).singlepart(html))
        }
    };
    let message = message.map_err(|error| MailError::Refused(error.to_string()))?;
    let mut bytes = message.formatted();
    // What ends the mail on the wire begins with the end of its last line.
    if bytes.ends_with(b"\r\n") {
        bytes.truncate(bytes.len() - 2);
    }
    Ok((message.envelope().clone(), bytes))
}

/// The headers of RFC 2369 and RFC 8058. One click needs `https`. The link is one long word, which is not to be folded or encoded; one with
/// anything but plain ASCII in it is left out.
fn with_unsubscription(message: MessageBuilder, link: Option<&str>) -> MessageBuilder {
    let is_plain = |link: &&str| {
        link.bytes()
            .all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>')
    };
    let Some(link) = link.filter(is_plain) else {
        return message;
    };
    let value = format!("<{link}>");
    let name = HeaderName::new_from_ascii_str("List-Unsubscribe");
    let message = message.raw_header(HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value));
    if !link.starts_with("https://") {
        return message;
    }
    message.raw_header(HeaderValue::new(
        HeaderName::new_from_ascii_str("List-Unsubscribe-Post"),
        "List-Unsubscribe=One-Click".to_owned(),
    ))
}

fn party(mailbox: &Mailbox) -> Result<Party, MailError> {
    let address: Result<Address, _> = mailbox.email.as_str().parse();
    let address = address.map_err(|error| MailError::Refused(format!("the address is none: {error}")))?;
    let name = mailbox.name.as_ref().map(plain);
    Ok(Party::new(name, address))
}

/// A line as a header says it. What looks like an encoded word (RFC 2047) is broken with a space: mail programs would
/// decode it, and show a link where the line has none.
fn plain(line: &Line) -> String {
    line.as_str().replace("=?", "= ?")
}

#[cfg(test)]
mod tests {
    use tenantry_domain::identity::Email;
    use tenantry_domain::operations::MessageId;
    use uuid::Uuid;

    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    fn mail() -> Mail {
        Mail {
            id: MessageId::once(Uuid::from_u128(7)),
            to: mailbox("Ada <ada@example.com>"),
            subject: Line::of("[Acme] Grüße"),
            text: "Hello Ada,\n.\nGrüße\n".into(),
            html: None,
            written_at: "2026-07-01T12:00:00Z".parse().unwrap(),
            unsubscribe: None,
        }
    }

    fn encoded(mail: &Mail) -> String {
        let from = mailbox("Tenantry <no-reply@mail.example>");
        let (_, message) = encode(mail, &from).unwrap();
        assert_eq!(encode(mail, &from).unwrap().1, message, "the same to the byte");
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn a_mail_has_the_headers_it_needs_and_is_ascii() {
        let text = encoded(&mail());
        for header in [
            "Message-ID: <00000000-0000-0000-0000-000000000007@mail.example>\r\n",
            "Date: Wed, 01 Jul 2026 12:00:00 +0000\r\n",
            "From: Tenantry <no-reply@mail.example>\r\n",
            "To: Ada <ada@example.com>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "MIME-Version: 1.0\r\n",
        ] {
            assert!(text.contains(header), "{header}: {text}");
        }
        assert!(text.is_ascii(), "{text}");
    }

    #[test]
    fn no_name_begins_a_header() {
        let evil = "Ada\r\nBcc: eve@example.com\r\n\r\nHello\u{2028}Bcc: x@example.com";
        let mail = Mail {
            to: Mailbox {
                name: Some(Line::of(evil)),
                email: Email::stored("ada@example.com".into()),
            },
            subject: Line::of(&format!("{evil}{}", "ä".repeat(10_000))),
            ..mail()
        };
        let text = encoded(&mail);
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let names: Vec<_> = head
            .split("\r\n")
            .filter(|line| !line.starts_with(' '))
            .map(|line| line.split_once(':').unwrap().0)
            .collect();
        assert_eq!(
            names,
            [
                "Message-ID",
                "Date",
                "From",
                "To",
                "Subject",
                "Auto-Submitted",
                "MIME-Version",
                "Content-Type",
                "Content-Transfer-Encoding"
            ]
        );
    }

    /// Mail programs decode them, wherever they stand in a subject or a name.
    #[test]
    fn no_name_is_an_encoded_word() {
        let evil = "=?us-ascii?Q?Pay_http=3A=2F=2Fevil=2Eio=2F?=";
        let mail = Mail {
            to: Mailbox {
                name: Some(Line::of(evil)),
                email: Email::stored("ada@example.com".into()),
            },
            subject: Line::of(&format!("[Acme] {evil} =={evil} invites you")),
            ..mail()
        };
        let text = encoded(&mail);
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        // The name of a mailbox is encoded by ourselves; what it decodes to is not decoded again.
        assert_eq!(
            head.matches("=?").count(),
            head.matches("=?utf-8?b?").count(),
            "{head}"
        );
        assert!(head.contains("us-ascii"), "{head}");
    }

    #[test]
    fn an_address_that_is_none_is_refused_whatever_the_database_says() {
        for address in [
            "ada@example.com\r\nRCPT TO:<eve@example.com>",
            "ada",
            "a b@example.com",
        ] {
            let mail = Mail {
                to: Mailbox {
                    name: None,
                    email: Email::stored(address.into()),
                },
                ..mail()
            };
            let error = encode(&mail, &mailbox("no-reply@mail.example")).unwrap_err();
            assert!(!error.may_pass(), "{error}");
        }
    }

    #[test]
    fn link_to_unsubscribe_is_in_one_line() {
        let link = format!("https://api.example.com/unsubscribe?token=un_{}", "x".repeat(107));
        let mut mail = mail();
        mail.unsubscribe = Some(link.clone());
        let text = encoded(&mail);
        assert!(
            text.contains(&format!("\r\nList-Unsubscribe: <{link}>\r\n")),
            "{text}"
        );
        assert!(
            text.contains("\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"),
            "{text}"
        );
        mail.unsubscribe = Some(link.replace("https", "http"));
        let text = encoded(&mail);
        assert!(
            text.contains("List-Unsubscribe: ") && !text.contains("List-Unsubscribe-Post"),
            "{text}"
        );
        mail.unsubscribe = Some("https://x.example/\r\nBcc: eve@example.com".into());
        assert!(!encoded(&mail).contains("List-Unsubscribe"));
    }

    #[test]
    fn html_goes_beside_the_text() {
        let mail = Mail {
            html: Some("<p>Hello</p>".into()),
            ..mail()
        };
        let text = encoded(&mail);
        assert!(text.contains("multipart/alternative"), "{text}");
        assert!(
            text.contains("<p>Hello</p>") && text.contains("text/plain"),
            "{text}"
        );
    }
}
