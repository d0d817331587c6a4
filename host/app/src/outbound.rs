//! [`Http`] over `ureq` and `rustls`: a connection for each request, to an address that was checked and no other.
//!
//! Invariants:
//! - the addresses of a name are looked up once, each is held against the grant's reach, and only those go to the connector
//! - no redirect is followed, no cookie kept, no proxy taken from the environment, no connection used twice

use bytes::Bytes;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use stockade_core::BoxFuture;
use stockade_core::http::{
    Http, HttpError, HttpRequest, HttpResponse, MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, Reach,
};
use tokio::sync::Semaphore;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{self, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Exchanges at once over all tenants; each has a thread.
const AT_ONCE: usize = 64;

/// Requests of components.
pub struct Outbound {
    lookup: Arc<dyn Resolver>,
    at_once: Arc<Semaphore>,
}

impl Outbound {
    /// Looks names up as the system does.
    pub fn new() -> Self {
        Self::with_lookup(DefaultResolver::default())
    }

    fn with_lookup(lookup: impl Resolver) -> Self {
        Self { lookup: Arc::new(lookup), at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Http for Outbound {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(async move {
            let place = self.at_once.clone().try_acquire_owned().map_err(|_| HttpError::Overloaded)?;
            let lookup = self.lookup.clone();
            // A caller that goes away leaves the exchange to its own timeout, and its place taken until then.
            let sent = tokio::task::spawn_blocking(move || {
                let _place = place;
                exchange(&request, lookup)
            });
            sent.await.unwrap_or_else(|_| Err(HttpError::Failed("the exchange broke off".into())))
        })
    }
}

fn exchange(request: &HttpRequest, lookup: Arc<dyn Resolver>) -> Result<HttpResponse, HttpError> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEADER_BYTES)
        .timeout_global(Some(request.timeout))
        .allow_non_standard_methods(true)
        .user_agent("stockade")
        .accept_encoding("identity")
        .build();
    let agent = Agent::with_parts(config, DefaultConnector::default(), Checked { lookup, reach: request.reach });
    let mut outgoing = http::Request::builder().method(request.method.as_str()).uri(request.target.to_string());
    for (name, value) in &request.headers {
        outgoing = outgoing.header(name, value);
    }
    let invalid = |e: http::Error| HttpError::Invalid(e.to_string());
    let answered = if request.body.is_empty() {
        agent.run(outgoing.body(()).map_err(invalid)?)
    } else {
        agent.run(outgoing.body(&request.body[..]).map_err(invalid)?)
    };
    let mut response = answered.map_err(|e| failure(e, request))?;
    if response.headers().len() > MAX_HEADERS {
        return Err(HttpError::TooLarge(format!("more than {MAX_HEADERS} headers in the response")));
    }
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers = response.headers().iter().map(header).collect();
    let body = response.body_mut().with_config().limit(MAX_BODY_BYTES as u64).read_to_vec();
    let body = Bytes::from(body.map_err(|e| failure(e, request))?);
    Ok(HttpResponse { status: response.status().as_u16(), headers, body })
}

/// Lets through only the addresses that the grant covers.
struct Checked {
    lookup: Arc<dyn Resolver>,
    reach: Reach,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Resolver for Checked {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.lookup.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in found.iter().filter(|a: &&SocketAddr| self.reach.allows(a.ip())) {
            allowed.push(*address);
        }
        if allowed.is_empty() {
            return Err(ureq::Error::Io(io::Error::other(NotGranted)));
        }
        Ok(allowed)
    }
}

/// Every address of a name is outside of the grant.
#[derive(Debug)]
struct NotGranted;

impl fmt::Display for NotGranted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address that is granted")
    }
}

impl std::error::Error for NotGranted {}

fn failure(error: ureq::Error, request: &HttpRequest) -> HttpError {
    let host = &request.target.host;
    match error {
        ureq::Error::Io(e) if e.get_ref().is_some_and(|inner| inner.is::<NotGranted>()) => {
            HttpError::Denied(request.target.origin())
        }
        ureq::Error::Timeout(_) => HttpError::Timeout,
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::TimedOut => HttpError::Timeout,
        ureq::Error::BodyExceedsLimit(limit) => HttpError::TooLarge(format!("the response exceeds {limit} bytes")),
        ureq::Error::LargeResponseHeader(..) => {
            HttpError::TooLarge(format!("the response's headers exceed {MAX_HEADER_BYTES} bytes"))
        }
        ureq::Error::BadUri(why) => HttpError::Invalid(format!("url: {why}")),
        ureq::Error::HostNotFound => HttpError::Failed(format!("{host} has no address")),
        other => HttpError::Failed(format!("{host}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};
    use stockade_core::http::Target;

    /// Every name leads to these addresses, as a hostile name server would have it.
    #[derive(Debug)]
    struct Leads(&'static [&'static str]);

    impl Resolver for Leads {
        fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut all = self.empty();
            for ip in self.0 {
                all.push(SocketAddr::new(ip.parse().unwrap(), uri.port_u16().unwrap_or(443)));
            }
            Ok(all)
        }
    }

    /// A server that answers every connection with these bytes, and tells what it was sent.
    fn server(answer: impl Into<Vec<u8>>) -> (u16, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, requests) = mpsc::channel();
        let answer = answer.into();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut bytes = vec![0; 64 << 10];
                let n = stream.read(&mut bytes).unwrap();
                let _ = seen.send(String::from_utf8_lossy(&bytes[..n]).into_owned());
                let _ = stream.write_all(&answer);
            }
        });
        (port, requests)
    }

    fn request(url: &str, grants: &[String]) -> HttpRequest {
        let target = Target::parse(url).unwrap();
        HttpRequest {
            method: "GET".into(),
            reach: target.reach(grants).expect("granted"),
            target,
            headers: vec![("x-test".into(), "1".into())],
            body: Bytes::new(),
            timeout: Duration::from_secs(5),
        }
    }

    async fn get(outbound: &Outbound, url: &str, grant: &str) -> Result<HttpResponse, HttpError> {
        outbound.send(request(url, &[grant.to_string()])).await
    }

    #[tokio::test]
    async fn a_named_origin_is_reached_and_answers() {
        let (port, seen) = server("HTTP/1.1 404 No\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nhi");
        let url = format!("http://127.0.0.1:{port}/a?b=c#d");
        let answer = get(&Outbound::new(), &url, &format!("http://127.0.0.1:{port}")).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (404, &b"hi"[..]));
        let twice: Vec<_> = answer.headers.iter().filter(|(n, _)| n == "x-a").map(|(_, v)| v.as_str()).collect();
        assert_eq!(twice, ["1", "2"]);
        let sent = seen.recv().unwrap();
        assert!(sent.starts_with("GET /a?b=c HTTP/1.1\r\n") && sent.contains("x-test: 1"), "{sent}");
    }

    #[tokio::test]
    async fn a_body_is_sent_by_any_method() {
        let (port, seen) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let grant = format!("http://127.0.0.1:{port}");
        let mut post = request(&grant, std::slice::from_ref(&grant));
        post.method = "POST".into();
        post.body = Bytes::from_static(b"{}");
        Outbound::new().send(post).await.unwrap();
        let sent = seen.recv().unwrap();
        assert!(sent.to_lowercase().contains("content-length: 2") && sent.starts_with("POST / "), "{sent}");
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_local_address_is_denied() {
        let (port, seen) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        for ip in ["127.0.0.1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "fd00:ec2::254"] {
            let addresses: &'static [&'static str] = Box::leak(Box::new([ip]));
            let outbound = Outbound::with_lookup(Leads(addresses));
            let url = format!("https://rebinds.example:{port}/");
            let answer = get(&outbound, &url, &format!("rebinds.example:{port}")).await;
            assert!(matches!(answer, Err(HttpError::Denied(_))), "{ip}: {answer:?}");
        }
        assert!(seen.try_recv().is_err(), "no connection was made");
    }

    #[tokio::test]
    async fn of_several_addresses_only_those_that_are_granted_are_tried() {
        let (port, seen) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let outbound = Outbound::with_lookup(Leads(&["169.254.169.254", "127.0.0.1"]));
        let url = format!("http://inside.example:{port}/");
        assert_eq!(get(&outbound, &url, &format!("http://inside.example:{port}")).await.unwrap().status, 200);
        assert!(seen.recv().unwrap().to_lowercase().contains(&format!("host: inside.example:{port}")));
        // The same name by a grant of public addresses.
        let answer =
            get(&outbound, &format!("https://inside.example:{port}/"), &format!("inside.example:{port}")).await;
        assert!(matches!(answer, Err(HttpError::Denied(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn the_systems_own_names_for_this_machine_are_denied() {
        let answer = get(&Outbound::new(), "https://localhost/", "*").await;
        assert!(matches!(answer, Err(HttpError::Denied(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_followed() {
        let (inside, seen) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{inside}/\r\nContent-Length: 0\r\n\r\n");
        let (port, _) = server(answer);
        let answer =
            get(&Outbound::new(), &format!("http://127.0.0.1:{port}/"), &format!("http://127.0.0.1:{port}")).await;
        assert_eq!(answer.unwrap().status, 302);
        assert!(seen.try_recv().is_err());
    }

    #[tokio::test]
    async fn bodies_headers_and_time_are_bounded() {
        let large = "x".repeat(MAX_BODY_BYTES + 1);
        let (port, _) = server(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}", large.len()));
        let reach = |port: u16| (format!("http://127.0.0.1:{port}/"), format!("http://127.0.0.1:{port}"));
        let (url, grant) = reach(port);
        let answer = get(&Outbound::new(), &url, &grant).await;
        assert!(matches!(answer, Err(HttpError::TooLarge(_))), "{:?}", answer.map(|r| r.body.len()));

        let header = format!("X-L: {}\r\n", "x".repeat(MAX_HEADER_BYTES));
        let (port, _) = server(format!("HTTP/1.1 200 OK\r\n{header}Content-Length: 0\r\n\r\n"));
        let (url, grant) = reach(port);
        let answer = get(&Outbound::new(), &url, &grant).await;
        assert!(matches!(answer, Err(HttpError::TooLarge(_))), "{answer:?}");

        // It accepts and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let (url, grant) = reach(silent.local_addr().unwrap().port());
        let began = Instant::now();
        let mut asked = request(&url, &[grant]);
        asked.timeout = Duration::from_millis(200);
        assert_eq!(Outbound::new().send(asked).await, Err(HttpError::Timeout));
        assert!(began.elapsed() < Duration::from_secs(3));
    }

    #[tokio::test]
    async fn a_proxy_in_the_environment_is_not_asked() {
        let (port, _) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let (proxy, asked) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        // SAFETY: nextest runs each test in a process of its own; under `cargo test` no other test reads this variable.
        unsafe { std::env::set_var("HTTP_PROXY", format!("http://127.0.0.1:{proxy}")) };
        let grant = format!("http://127.0.0.1:{port}");
        assert_eq!(get(&Outbound::new(), &grant, &grant).await.unwrap().status, 200);
        assert!(asked.try_recv().is_err());
    }
}
