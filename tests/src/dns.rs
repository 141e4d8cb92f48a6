use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A name server of the test's own: it speaks DNS (RFC 1035) over UDP and TCP on a port of this machine, answers like a resolver
/// that follows aliases, and fails as it is told to. It is written without the library that the adapter uses, so that it cannot
/// share its mistakes. Ends with this value.
pub struct DnsServer {
    address: SocketAddr,
    zone: Arc<Zone>,
    running: Vec<JoinHandle<()>>,
}

/// How the server answers for a name.
#[derive(Debug, Clone, Default)]
pub enum DnsAnswer {
    /// There is no such name (NXDOMAIN).
    #[default]
    NoName,
    /// With these records.
    Records(Vec<DnsRecord>),
    /// With this code, for example 2 (SERVFAIL) or 5 (REFUSED).
    Code(u8),
    /// Not at all.
    Silence,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsRecord {
    /// Text, in parts of at most 255 bytes.
    Txt(String),
    /// An alias.
    Alias(String),
    /// An address.
    Address(IpAddr),
}

#[derive(Default)]
struct Zone {
    names: Mutex<BTreeMap<String, DnsAnswer>>,
    stopped: AtomicBool,
    over_tcp: AtomicU32,
    questions: AtomicU32,
}

const A: u16 = 1;
const CNAME: u16 = 5;
const TXT: u16 = 16;
const AAAA: u16 = 28;

/// So much fits into an answer over UDP.
const UDP_BYTES: usize = 1_232;

impl DnsServer {
    /// A server that knows no name.
    pub fn start() -> Self {
        let zone = Arc::new(Zone::default());
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (of_udp, of_tcp) = (Arc::clone(&zone), Arc::clone(&zone));
        let running = vec![
            std::thread::spawn(move || serve_udp(&udp, &of_udp)),
            std::thread::spawn(move || serve_tcp(&tcp, &of_tcp)),
        ];
        Self {
            address,
            zone,
            running,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for a name like this from now on.
    pub fn set(&self, name: &str, answer: DnsAnswer) {
        self.zone.names.lock().unwrap().insert(name.to_owned(), answer);
    }

    /// Answers for a name with these texts from now on.
    pub fn set_txt(&self, name: &str, texts: &[&str]) {
        let records = texts.iter().map(|text| DnsRecord::Txt((*text).to_owned()));
        self.set(name, DnsAnswer::Records(records.collect()));
    }

    /// Makes a name an alias of another from now on.
    pub fn set_alias(&self, name: &str, target: &str) {
        self.set(
            name,
            DnsAnswer::Records(vec![DnsRecord::Alias(target.to_owned())]),
        );
    }

    /// How many questions came over TCP.
    pub fn over_tcp(&self) -> u32 {
        self.zone.over_tcp.load(Ordering::SeqCst)
    }

    /// How many questions came.
    pub fn questions(&self) -> u32 {
        self.zone.questions.load(Ordering::SeqCst)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.zone.stopped.store(true, Ordering::SeqCst);
        for thread in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}

/// UDP and TCP at one port.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Zone) {
    let mut buffer = [0; 4_096];
    while !zone.stopped.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Some(mut answer) = zone.answer(&buffer[..length]) else {
            continue;
        };
        if answer.len() > UDP_BYTES {
            answer = cut(&buffer[..length]);
        }
        let _ = socket.send_to(&answer, from);
    }
}

fn serve_tcp(listener: &TcpListener, zone: &Arc<Zone>) {
    while !zone.stopped.load(Ordering::SeqCst) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let zone = Arc::clone(zone);
        std::thread::spawn(move || {
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut question).is_err() {
                    return;
                }
                zone.over_tcp.fetch_add(1, Ordering::SeqCst);
                let Some(answer) = zone.answer(&question) else {
                    return;
                };
                let size = u16::try_from(answer.len()).unwrap().to_be_bytes();
                let _ = stream.write_all(&[&size[..], &answer].concat());
            }
        });
    }
}

impl Zone {
    /// The answer to a question, if there is to be one.
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        let (name, kind, end) = read_question(question)?;
        let mut records = Vec::new();
        let mut code = 0;
        let mut current = name;
        // An alias leads on, a few times.
        for _ in 0..16 {
            let known = self.names.lock().unwrap().get(&current).cloned();
            match known.unwrap_or_default() {
                DnsAnswer::Silence => return None,
                DnsAnswer::Code(failure) => code = failure,
                // The names on the way were there.
                DnsAnswer::NoName => code = 3,
                DnsAnswer::Records(found) => {
                    for record in &found {
                        records.extend(encode(&current, kind, record));
                    }
                    let alias = found.iter().find_map(|record| match record {
                        DnsRecord::Alias(target) => Some(target.clone()),
                        DnsRecord::Txt(_) | DnsRecord::Address(_) => None,
                    });
                    if let Some(target) = alias.filter(|_| kind != CNAME) {
                        current = target;
                        continue;
                    }
                }
            }
            break;
        }
        let count = u16::try_from(records.len()).unwrap();
        let mut answer = head(question, code, false, count, end);
        records.iter().for_each(|record| answer.extend(record));
        Some(answer)
    }
}

/// Name, type, and where the question ends.
fn read_question(message: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

/// The head of an answer and the question again: recursion was asked for and is available.
fn head(question: &[u8], code: u8, is_cut: bool, answers: u16, end: usize) -> Vec<u8> {
    let mut head = question[..2].to_vec();
    head.extend([0x81 | if is_cut { 0x02 } else { 0 }, 0x80 | code]);
    head.extend([0, 1]);
    head.extend(answers.to_be_bytes());
    head.extend([0, 0, 0, 0]);
    head.extend(&question[12..end]);
    head
}

/// An answer that does not fit: the client asks again over TCP.
fn cut(question: &[u8]) -> Vec<u8> {
    let end = read_question(question).map_or(question.len(), |(_, _, end)| end);
    head(question, 0, true, 0, end)
}

/// A record, if a question of that type gets it.
fn encode(name: &str, asked: u16, record: &DnsRecord) -> Option<Vec<u8>> {
    let (kind, data) = match record {
        DnsRecord::Txt(text) => (TXT, parts(text)),
        DnsRecord::Alias(target) => (CNAME, labels(target)),
        DnsRecord::Address(IpAddr::V4(four)) => (A, four.octets().to_vec()),
        DnsRecord::Address(IpAddr::V6(six)) => (AAAA, six.octets().to_vec()),
    };
    if kind != asked && kind != CNAME {
        return None;
    }
    let mut encoded = labels(name);
    encoded.extend(kind.to_be_bytes());
    encoded.extend([0, 1, 0, 0, 0, 60]);
    encoded.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    encoded.extend(data);
    Some(encoded)
}

fn labels(name: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for label in name.split('.') {
        encoded.push(u8::try_from(label.len()).unwrap());
        encoded.extend(label.as_bytes());
    }
    encoded.push(0);
    encoded
}

fn parts(text: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for part in text.as_bytes().chunks(255) {
        encoded.push(u8::try_from(part.len()).unwrap());
        encoded.extend(part);
    }
    encoded
}
