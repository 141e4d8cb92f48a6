use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::tls::{Authority, Wired};

/// A mail server of the test's own: it speaks SMTP (RFC 5321) on a port of this machine, keeps what it is
/// given, and fails as it is told to. Ends with this value.
pub struct SmtpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// Whether and when the server encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Never.
    None,
    /// When it is asked to (RFC 3207); mail is not taken before that.
    Starttls,
    /// From the beginning.
    Implicit,
}

/// How the server meets the next mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// It takes it.
    Take,
    /// It answers the recipient with this code.
    AtRecipient(u16),
    /// It answers the whole mail with this code, and has not taken it.
    AtEnd(u16),
    /// It takes the mail and is gone before it says so.
    TakeAndVanish,
    /// It takes the mail and never says so.
    TakeAndHang,
}

/// A mail as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Who sent it, by the envelope.
    pub from: String,
    /// Who gets it, by the envelope.
    pub to: Vec<String>,
    /// Head and body.
    pub data: String,
    /// Whether it came encrypted.
    pub encrypted: bool,
    /// Who had logged in: user and password.
    pub login: Option<(String, String)>,
}

struct Shared {
    encryption: Encryption,
    authority: Option<Authority>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    silent: bool,
    received: Vec<Received>,
    reactions: VecDeque<Reaction>,
    refused: BTreeMap<String, u16>,
    login: Option<(String, String)>,
    open: Vec<TcpStream>,
    connections: u32,
}

impl SmtpServer {
    /// Starts one that does not encrypt.
    pub fn start() -> Self {
        Self::with(Encryption::None)
    }

    /// Starts one. Where it encrypts, its certificate is for 127.0.0.1, from an authority made for it.
    pub fn with(encryption: Encryption) -> Self {
        let authority = (encryption != Encryption::None).then(Authority::make);
        let shared = Arc::new(Shared {
            encryption,
            authority,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Self {
            address,
            shared,
            accepting: None,
        };
        server.accept(listener);
        server
    }

    /// Where it is.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority that its own is from.
    pub fn authority(&self) -> PathBuf {
        self.shared.authority.as_ref().unwrap().certificate()
    }

    /// What it was given, in the order in which it arrived.
    pub fn received(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> u32 {
        self.shared.lock().connections
    }

    /// The next mail that nothing was said about is met like this.
    pub fn react(&self, reaction: Reaction) {
        self.shared.lock().reactions.push_back(reaction);
    }

    /// Mail to this address is answered with this code.
    pub fn refuse(&self, address: &str, code: u16) {
        self.shared.lock().refused.insert(address.to_owned(), code);
    }

    /// Nothing is taken from anybody who has not logged in like this.
    pub fn demand(&self, user: &str, password: &str) {
        self.shared.lock().login = Some((user.to_owned(), password.to_owned()));
    }

    /// It takes connections and says nothing any more.
    pub fn fall_silent(&self) {
        self.shared.lock().silent = true;
    }

    /// Ends it: nobody listens there any more.
    pub fn stop(&mut self) {
        let open = {
            let mut state = self.shared.lock();
            state.stopped = true;
            self.shared.changed.notify_all();
            std::mem::take(&mut state.open)
        };
        for stream in open {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            // Wakes whoever waits for a connection.
            let _ = TcpStream::connect(self.address);
            accepting.join().unwrap();
        }
    }

    /// Starts it again at the same place.
    pub fn restart(&mut self) {
        self.stop();
        {
            let mut state = self.shared.lock();
            (state.stopped, state.silent) = (false, false);
        }
        self.accept(TcpListener::bind(self.address).unwrap());
    }

    fn accept(&mut self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut state = shared.lock();
                if state.stopped {
                    return;
                }
                state.connections += 1;
                state.open.push(stream.try_clone().unwrap());
                drop(state);
                let shared = Arc::clone(&shared);
                // However the conversation ends, it is over.
                std::thread::spawn(move || drop(converse(&shared, stream)));
            }
        }));
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the server ends.
    fn hang(&self) {
        let state = self.lock();
        drop(self.changed.wait_while(state, |state| !state.stopped));
    }

    /// How the mail to these is met.
    fn reaction(&self, to: &str) -> Reaction {
        let mut state = self.lock();
        match state.refused.get(to) {
            Some(code) => Reaction::AtRecipient(*code),
            None => state.reactions.pop_front().unwrap_or(Reaction::Take),
        }
    }
}

type Wire = BufReader<Wired>;

fn converse(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    if shared.lock().silent {
        shared.hang();
        return Ok(());
    }
    let mut encrypted = shared.encryption == Encryption::Implicit;
    let plain = stream.try_clone()?;
    let mut wire = if encrypted {
        encrypt(shared, stream)
    } else {
        wire(stream)
    };
    say(&mut wire, "220 sink.example ESMTP")?;
    let (mut from, mut to, mut login, mut reaction) = (String::new(), Vec::new(), None, Reaction::Take);
    while let Some(line) = next(&mut wire)? {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let starttls = shared.encryption == Encryption::Starttls && !encrypted;
        let demanded = shared.lock().login.clone();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" if starttls => say(&mut wire, "250-sink.example\r\n250 STARTTLS")?,
            "EHLO" => say(&mut wire, "250-sink.example\r\n250 AUTH PLAIN LOGIN")?,
            "STARTTLS" if starttls => {
                say(&mut wire, "220 go ahead")?;
                wire = encrypt(shared, plain.try_clone()?);
                encrypted = true;
            }
            _ if starttls => say(&mut wire, "530 must issue a STARTTLS command first")?,
            "AUTH" => {
                login = plain_login(rest);
                let right = login == demanded;
                say(&mut wire, if right { "235 welcome" } else { "535 who are you?" })?;
            }
            "MAIL" if demanded.is_some() && login != demanded => say(&mut wire, "530 log in first")?,
            "MAIL" => {
                (from, to) = (between(rest), Vec::new());
                say(&mut wire, "250 ok")?;
            }
            "RCPT" => {
                let address = between(rest);
                reaction = shared.reaction(&address);
                match reaction {
                    Reaction::AtRecipient(code) => say(&mut wire, &format!("{code} <{address}>: no"))?,
                    _ => {
                        to.push(address);
                        say(&mut wire, "250 ok")?;
                    }
                }
            }
            "DATA" => {
                say(&mut wire, "354 go ahead")?;
                let Some(data) = data(&mut wire)? else { break };
                let mail = Received {
                    from: from.clone(),
                    to: to.clone(),
                    data,
                    encrypted,
                    login: login.clone(),
                };
                if !take(shared, &mut wire, mail, reaction)? {
                    break;
                }
            }
            "NOOP" | "RSET" => say(&mut wire, "250 ok")?,
            "QUIT" => {
                say(&mut wire, "221 bye")?;
                break;
            }
            _ => say(&mut wire, "502 what?")?,
        }
    }
    // A clone is kept for stopping; without this the peer would not notice that it is over.
    plain.shutdown(Shutdown::Both)
}

/// Reacts to a mail that was sent whole. Returns whether the conversation goes on.
fn take(shared: &Shared, wire: &mut Wire, mail: Received, reaction: Reaction) -> std::io::Result<bool> {
    if let Reaction::AtEnd(code) = reaction {
        say(wire, &format!("{code} no"))?;
        return Ok(true);
    }
    shared.lock().received.push(mail);
    match reaction {
        Reaction::TakeAndVanish => return Ok(false),
        Reaction::TakeAndHang => shared.hang(),
        _ => say(wire, "250 2.0.0 taken as 4711")?,
    }
    Ok(true)
}

fn wire(stream: TcpStream) -> Wire {
    BufReader::new(Box::new(stream))
}

fn encrypt(shared: &Shared, stream: TcpStream) -> Wire {
    BufReader::new(shared.authority.as_ref().unwrap().serve(stream))
}

fn say(wire: &mut Wire, line: &str) -> std::io::Result<()> {
    let stream = wire.get_mut();
    stream.write_all(format!("{line}\r\n").as_bytes())?;
    stream.flush()
}

fn next(wire: &mut Wire) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    let read = wire.read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// What comes until the line with a dot; `None` when the connection ended before it.
fn data(wire: &mut Wire) -> std::io::Result<Option<String>> {
    let mut data = String::new();
    loop {
        let Some(line) = next(wire)? else { return Ok(None) };
        if line == "." {
            return Ok(Some(data));
        }
        data.push_str(line.strip_prefix('.').unwrap_or(&line));
        data.push_str("\r\n");
    }
}

fn between(rest: &str) -> String {
    let address = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    address.map_or_else(String::new, |(address, _)| address.to_owned())
}

/// User and password of `PLAIN <base64>` (RFC 4616).
fn plain_login(rest: &str) -> Option<(String, String)> {
    let decoded = STANDARD.decode(rest.strip_prefix("PLAIN ")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let mut parts = text.split('\0').skip(1);
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}

impl Received {
    /// A header of the mail in words, unfolded and decoded (RFC 2047).
    ///
    /// # Panics
    /// When there is none, or more than one.
    pub fn header(&self, name: &str) -> String {
        let (head, _) = self.parts();
        let unfolded = head.replace("\r\n ", " ");
        let found: Vec<_> = unfolded
            .split("\r\n")
            .filter_map(|line| line.split_once(": "))
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .collect();
        assert_eq!(found.len(), 1, "{name}: {head}");
        words(found[0].1)
    }

    /// The names of its headers, in order.
    pub fn header_names(&self) -> Vec<String> {
        let (head, _) = self.parts();
        let lines = head.split("\r\n").filter(|line| !line.starts_with(' '));
        lines
            .map(|line| line.split_once(':').unwrap().0.to_owned())
            .collect()
    }

    /// What it says in plain text, decoded; lines end with a line feed.
    pub fn text(&self) -> String {
        self.alternative("text/plain")
    }

    /// What it says in HTML.
    pub fn html(&self) -> String {
        self.alternative("text/html")
    }

    fn alternative(&self, kind: &str) -> String {
        let (head, body) = self.parts();
        let content = self.header("Content-Type");
        let Some((_, boundary)) = content.split_once("boundary=\"") else {
            assert!(content.starts_with(kind), "{content}");
            return decoded(head, body);
        };
        let boundary = format!("--{}", boundary.trim_end_matches('"'));
        let mut parts = body
            .split(&boundary)
            .filter_map(|part| part.split_once("\r\n\r\n"));
        let found = parts.find(|(head, _)| head.contains(kind));
        let (head, body) = found.unwrap_or_else(|| panic!("{kind}: {}", self.data));
        decoded(head, body.trim_end_matches("\r\n"))
    }

    fn parts(&self) -> (&str, &str) {
        self.data.split_once("\r\n\r\n").unwrap()
    }
}

/// The text below a head, which says how it is encoded.
fn decoded(head: &str, body: &str) -> String {
    let encoding = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("Content-Transfer-Encoding: "));
    let bytes = match encoding {
        None | Some("7bit") => body.as_bytes().to_vec(),
        Some("quoted-printable") => quoted_printable(body),
        Some("base64") => STANDARD.decode(body.replace("\r\n", "")).unwrap(),
        Some(other) => panic!("{other}"),
    };
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}

fn quoted_printable(text: &str) -> Vec<u8> {
    let joined = text.replace("=\r\n", "");
    let (mut bytes, mut rest) = (Vec::new(), joined.as_bytes());
    while let Some((first, others)) = rest.split_first() {
        if *first == b'=' {
            let digits = std::str::from_utf8(&others[..2]).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            rest = &others[2..];
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    bytes
}

/// The words of a header, encoded ones (`=?utf-8?b?…?=`) as what they mean. Space between two of those is
/// none.
fn words(text: &str) -> String {
    let (mut said, mut bytes, mut encoded) = (String::new(), Vec::new(), false);
    for (number, word) in text.split(' ').enumerate() {
        let inner = word
            .strip_prefix("=?utf-8?b?")
            .and_then(|rest| rest.strip_suffix("?="));
        let joined = encoded && inner.is_some();
        if number > 0 && !joined {
            said.push_str(&String::from_utf8(std::mem::take(&mut bytes)).unwrap());
            said.push(' ');
        }
        match inner {
            Some(inner) => bytes.extend(STANDARD.decode(inner).unwrap()),
            None => said.push_str(word),
        }
        encoded = inner.is_some();
    }
    said + &String::from_utf8(bytes).unwrap()
}
