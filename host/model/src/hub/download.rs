//! One file over HTTP into a partial file that a later call continues.
//!
//! `ureq` alone, not `hf-hub`: that crate fills its own cache of links and snapshots, checks no digest and wants
//! response headers which plain mirrors do not send; all that is needed here is a `Range` request.

use super::PullError;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

/// A connection that fails is tried again this often, as long as each try brings bytes.
const MAX_TRIES: u32 = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the response's headers.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// For one response's body; a download that takes longer continues in the next try.
const BODY_TIMEOUT: Duration = Duration::from_secs(3600);

/// What to fetch.
#[derive(Clone, Copy)]
pub struct Download<'a> {
    pub url: &'a str,
    /// The partial file. What it holds already is taken as the start of the download.
    pub to: &'a Path,
    /// The length, where it is known; another one is refused.
    pub bytes: Option<u64>,
    /// More is refused.
    pub max_bytes: u64,
    pub token: Option<&'a str>,
    /// Bytes there, and in all where known.
    pub progress: &'a dyn Fn(u64, Option<u64>),
}

/// Fetches until `to` is complete. Checks lengths, not digests.
pub fn download(what: &Download<'_>) -> Result<(), PullError> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(RESPONSE_TIMEOUT))
        .timeout_recv_body(Some(BODY_TIMEOUT))
        .user_agent(concat!("stockade/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = config.new_agent();
    let mut tries = 0;
    loop {
        let before = length(what.to);
        let error = match attempt(&agent, what) {
            Ok(()) => return Ok(()),
            Err(error @ PullError::Transfer { .. }) => error,
            Err(error) => return Err(error),
        };
        tries = if length(what.to) > before { 1 } else { tries + 1 };
        if before == 0 && length(what.to) == 0 || tries >= MAX_TRIES {
            return Err(error); // nothing answers here: the next source is the better try
        }
        std::thread::sleep(Duration::from_millis(100) * tries);
    }
}

fn attempt(agent: &ureq::Agent, what: &Download<'_>) -> Result<(), PullError> {
    let write = |e| PullError::write(what.to, e);
    let transfer = |source| PullError::Transfer { what: format!("downloading {}", what.url), source };
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(what.to).map_err(write)?;
    let mut start = file.seek(SeekFrom::End(0)).map_err(write)?;
    if what.bytes == Some(start) {
        return Ok(());
    }
    if start > what.max_bytes {
        file.set_len(0).map_err(write)?;
        start = 0;
    }
    let mut request = agent.get(what.url);
    if start > 0 {
        request = request.header("Range", format!("bytes={start}-"));
    }
    if let Some(token) = what.token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let response = request.call().map_err(|e| transfer(e.into()))?;
    let status = response.status().as_u16();
    match status {
        206 if starts_at(&response, start) => {}
        // The server does not continue, or continues something else: from the start.
        206 | 416 if start > 0 => {
            file.set_len(0).map_err(write)?;
            return Err(transfer("the server does not continue this file".into()));
        }
        200 => {
            file.set_len(0).map_err(write)?;
            start = 0;
        }
        _ => {
            return Err(PullError::Status { url: what.url.to_owned(), status });
        }
    }
    file.seek(SeekFrom::Start(start)).map_err(write)?;
    let left = response.body().content_length();
    let total = left.and_then(|left| left.checked_add(start)).or(what.bytes);
    let wrong = |n: u64| n > what.max_bytes || what.bytes.is_some_and(|bytes| bytes != n);
    if total.is_some_and(wrong) {
        return Err(PullError::TooLarge { what: what.url.to_owned(), limit: what.bytes.unwrap_or(what.max_bytes) });
    }
    let mut done = start;
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 17];
    loop {
        (what.progress)(done, total);
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                done += n as u64;
                if done > what.max_bytes {
                    return Err(PullError::TooLarge { what: what.url.to_owned(), limit: what.max_bytes });
                }
                file.write_all(&buffer[..n]).map_err(write)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(transfer(e.into())),
        }
    }
    if total.is_some_and(|total| total != done) {
        return Err(transfer("the connection ended early".into()));
    }
    Ok(())
}

/// Whether a partial response continues at `start`: `Content-Range: bytes START-END/TOTAL`.
fn starts_at(response: &ureq::http::Response<ureq::Body>, start: u64) -> bool {
    let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()) == Some(start)
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}
