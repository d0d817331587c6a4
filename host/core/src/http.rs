//! The outbound HTTP seam: what components may send to the network, and to where. Implemented by the binary.
//!
//! A URL is read once, by [`Target::parse`], and what is connected to is written out again from what was read, so that no
//! second parser can see another host in it. Invariant: an address is connected to only if [`Reach::allows`] it.

use crate::error::BoxFuture;
use bytes::Bytes;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Longest URL in bytes.
pub const MAX_URL_BYTES: usize = 8 << 10;
/// Most headers of a request or response, and their bytes together.
pub const MAX_HEADERS: usize = 64;
pub const MAX_HEADER_BYTES: usize = 32 << 10;
/// Largest body of a request or a response.
pub const MAX_BODY_BYTES: usize = 4 << 20;
/// Time for one exchange, look-up of the name included: what a request gets that asks for none, and the most.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
pub const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// A request within the bounds above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// In capitals.
    pub method: String,
    pub target: Target,
    pub reach: Reach,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// Why an exchange did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// The host's name leads to an address that the grant does not cover.
    #[error("{0} leads to an address that is not granted")]
    Denied(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("no answer in time")]
    Timeout,
    #[error("too many requests at once")]
    Overloaded,
    /// No connection, or one that broke.
    #[error("{0}")]
    Failed(String),
}

/// Sends requests for components. No redirect is followed, no cookie kept, no proxy asked.
pub trait Http: Send + Sync + 'static {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>>;
}

/// A host without a network: for tests of components, and where the operator wants none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNetwork;

impl Http for NoNetwork {
    fn send(&self, _: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(async { Err(HttpError::Failed("this host has no network".into())) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub scheme: Scheme,
    /// In lower case; an IPv6 address in its brackets.
    pub host: String,
    pub port: u16,
    /// Path and query, from the first `/`.
    pub rest: String,
}

impl Target {
    /// Reads an absolute `http` or `https` URL. The fragment is dropped.
    ///
    /// # Errors
    /// What browsers and libraries read in different ways is refused: user names, backslashes, percent signs and letters
    /// beyond ASCII in the host, and IPv4 addresses in any form but four decimal numbers.
    pub fn parse(url: &str) -> Result<Self, HttpError> {
        let bad = |why: &str| HttpError::Invalid(format!("url: {why}"));
        if url.len() > MAX_URL_BYTES {
            return Err(HttpError::TooLarge(format!("a URL has at most {MAX_URL_BYTES} bytes")));
        }
        if !url.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("only visible ASCII; encode the rest"));
        }
        let (scheme, after) = url.split_once("://").ok_or_else(|| bad("no scheme"))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(bad("the scheme is neither http nor https")),
        };
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        let (host, port) = authority_parts(authority).ok_or_else(|| bad("the host is not one"))?;
        let rest = rest.split('#').next().unwrap_or_default();
        let slash = if rest.starts_with('/') { "" } else { "/" };
        Ok(Self { scheme, host, port: port.unwrap_or(scheme.port()), rest: format!("{slash}{rest}") })
    }

    /// The address where the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        address(&self.host)
    }

    /// How far a list of grants lets one go there; `None`: not at all.
    ///
    /// `example.org`, `*.example.org` and `*` cover https on its own port (`example.org:8443`: on that one) at public
    /// addresses. A grant with a scheme, such as `http://127.0.0.1:9000`, covers that origin alone, at local addresses as
    /// well.
    pub fn reach(&self, grants: &[String]) -> Option<Reach> {
        let reach = grants.iter().filter_map(|g| self.reach_by(&g.to_ascii_lowercase()));
        reach.max_by_key(|r| !matches!(r, Reach::Public))
    }

    fn reach_by(&self, grant: &str) -> Option<Reach> {
        if grant.contains("://") {
            let origin = Self::parse(grant).ok()?;
            let same = (origin.scheme, &origin.host, origin.port) == (self.scheme, &self.host, self.port);
            return same.then(|| self.address().map_or(Reach::Local, Reach::Exactly));
        }
        if self.scheme != Scheme::Https {
            return None;
        }
        let covered = if grant == "*" {
            self.port == Scheme::Https.port()
        } else if let Some(domain) = grant.strip_prefix("*.") {
            let below = self.host.strip_suffix(domain).is_some_and(|h| h.len() > 1 && h.ends_with('.'));
            below && self.port == Scheme::Https.port()
        } else {
            authority_parts(grant)
                .is_some_and(|(h, p)| h == self.host && p.unwrap_or(Scheme::Https.port()) == self.port)
        };
        covered.then_some(Reach::Public)
    }
}

/// The URL as it is sent.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.rest)
    }
}

impl Target {
    /// Scheme, host and port, the port left out where it is the scheme's own.
    pub fn origin(&self) -> String {
        let scheme = if self.scheme == Scheme::Http { "http" } else { "https" };
        let host = &self.host;
        if self.port == self.scheme.port() {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{}", self.port)
        }
    }
}

/// Host in lower case, and port.
fn authority_parts(authority: &str) -> Option<(String, Option<u16>)> {
    let host_end = match authority.strip_prefix('[') {
        Some(inner) => inner.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_end);
    let host = host.to_ascii_lowercase();
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok().filter(|p| *p != 0)?),
        _ => return None,
    };
    sound_host(&host).then_some((host, port))
}

fn sound_host(host: &str) -> bool {
    if host.starts_with('[') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return address(host).is_some();
    }
    let sound = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    // A name that ends in a number is an address to some: `127.0x1`.
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    host.len() <= 253 && host.split('.').all(sound) && !number
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Which addresses a grant covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those of the public internet.
    Public,
    /// These, and the machine's and its networks' own: the operator has named the host.
    Local,
    /// The one that the grant spells out.
    Exactly(IpAddr),
}

impl Reach {
    pub fn allows(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match self {
            Self::Public => is_public(ip),
            Self::Local => is_public(ip) || is_local(ip),
            Self::Exactly(granted) => ip == granted.to_canonical() && !ip.is_multicast() && !ip.is_unspecified(),
        }
    }
}

/// Global unicast, with nothing special about it. Source: the IANA special-purpose address registries.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let special = matches!(
                (a, b, c),
                (0 | 10 | 127, ..)
                    | (100, 64..=127, _)
                    | (169, 254, _)
                    | (172, 16..=31, _)
                    | (192, 0, 0 | 2)
                    | (192, 88, 99)
                    | (192, 168, _)
                    | (198, 18 | 19, _)
                    | (198, 51, 100)
                    | (203, 0, 113)
                    | (224.., ..)
            );
            !special
        }
        IpAddr::V6(ip) => match ip.segments() {
            // 6to4 carries an IPv4 address.
            [0x2002, high, low, ..] => {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                is_public(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            // Protocol assignments, Teredo among them, and documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
            [first, ..] => first & 0xe000 == 0x2000,
        },
    }
}

/// Loopback and private networks. Link-local ones, where clouds keep their credentials, are not among them.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(url: &str, grants: &[&str]) -> Option<Reach> {
        let grants: Vec<String> = grants.iter().map(|g| g.to_string()).collect();
        Target::parse(url).unwrap().reach(&grants)
    }

    #[test]
    fn urls_are_written_out_as_they_were_read() {
        for (url, sent) in [
            ("HTTPS://Example.ORG", "https://example.org/"),
            ("https://example.org:443?q=1#x", "https://example.org/?q=1"),
            ("http://127.0.0.1:9000/a/../b", "http://127.0.0.1:9000/a/../b"),
            ("http://[::1]:80/x@y", "http://[::1]/x@y"),
        ] {
            assert_eq!(Target::parse(url).unwrap().to_string(), sent, "{url}");
        }
    }

    #[test]
    fn what_others_read_differently_is_refused() {
        for url in [
            "https://user@example.org/",
            "https://example.org@127.0.0.1/",
            "https://example.org\\@127.0.0.1/",
            "https://127.0.0.1%2f.example.org/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://127.1/",
            "http://0177.0.0.1/",
            "http://127.0.0.0x1/",
            "http://example.1/",
            "http://[::ffff:127.0.0.1/",
            "http://[fe80::1%25eth0]/",
            "http://exam ple.org/",
            "http://ⅼocalhost/",
            "http://localhost./",
            "https://example.org:0/",
            "https://example.org:99999/",
            "https://example.org:/",
            "https:///x",
            "https://",
            "ftp://example.org/",
            "file:///etc/passwd",
            "//example.org/",
        ] {
            assert!(matches!(Target::parse(url), Err(HttpError::Invalid(_))), "{url}");
        }
        assert!(matches!(Target::parse(&format!("https://a/{}", "x".repeat(9000))), Err(HttpError::TooLarge(_))));
    }

    #[test]
    fn grants_cover_what_they_say_and_no_more() {
        let public = Some(Reach::Public);
        for (url, grants, want) in [
            ("https://api.example.com/x", &["api.example.com"][..], public),
            ("https://API.example.com/x", &["Api.Example.com"], public),
            ("https://api.example.com/x", &["example.com"], None),
            ("https://api.example.com/x", &["*.example.com"], public),
            ("https://example.com/x", &["*.example.com"], None),
            ("https://evilexample.com/x", &["*.example.com"], None),
            ("https://api.example.com:8443/", &["api.example.com"], None),
            ("https://api.example.com:8443/", &["api.example.com:8443"], public),
            ("http://api.example.com/", &["api.example.com", "*"], None),
            ("https://anything.net/", &["*"], public),
            ("https://anything.net:22/", &["*"], None),
            ("http://127.0.0.1:9000/a", &["http://127.0.0.1:9000"], Some(Reach::Exactly("127.0.0.1".parse().unwrap()))),
            ("http://127.0.0.1:9001/a", &["http://127.0.0.1:9000"], None),
            ("http://localhost:9000/a", &["*", "http://localhost:9000"], Some(Reach::Local)),
            ("https://localhost/", &["*"], public),
            ("https://localhost/", &[], None),
        ] {
            assert_eq!(reach(url, grants), want, "{url} by {grants:?}");
        }
    }

    #[test]
    fn addresses_of_the_machine_and_its_networks_are_not_public() {
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(!Reach::Public.allows(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["1.1.1.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "2002:101:101::"] {
            assert!(Reach::Public.allows(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_named_host_may_be_local_and_metadata_only_where_it_is_spelled_out() {
        for ip in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "1.1.1.1"] {
            assert!(Reach::Local.allows(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["169.254.169.254", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1"] {
            assert!(!Reach::Local.allows(ip.parse().unwrap()), "{ip}");
        }
        let one = Reach::Exactly("169.254.169.254".parse().unwrap());
        assert!(one.allows("169.254.169.254".parse().unwrap()));
        assert!(one.allows("::ffff:169.254.169.254".parse().unwrap()));
        assert!(!one.allows("169.254.169.253".parse().unwrap()));
        assert!(!Reach::Exactly("0.0.0.0".parse().unwrap()).allows("0.0.0.0".parse().unwrap()));
    }
}
