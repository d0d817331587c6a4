use super::*;
use crate::catalogue::{self, Purpose};
use sha2::{Digest as _, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as the server saw it.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    range: Option<u64>,
    authorized: bool,
}

/// An HTTP server of one behaviour on a local port, for as long as the test runs.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn start(answer: impl Fn(&Seen, usize, &mut TcpStream) -> io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let request = read_request(&stream);
                log.lock().unwrap().push(request.clone());
                let _ = answer(&request, n, &mut stream);
            }
        });
        Self { url, seen }
    }

    fn ranges(&self) -> Vec<Option<u64>> {
        self.seen.lock().unwrap().iter().map(|seen| seen.range).collect()
    }
}

fn read_request(stream: &TcpStream) -> Seen {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
    let mut seen = Seen { path, range: None, authorized: false };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = value.strip_prefix("bytes=").and_then(|v| v.strip_suffix('-')?.parse().ok()),
            "authorization" => seen.authorized = true,
            _ => {}
        }
    }
    seen
}

/// Serves `body`, honouring ranges, but closes the connection after `cut` bytes.
fn serve(body: &[u8], request: &Seen, cut: usize, stream: &mut TcpStream) -> io::Result<()> {
    let start = request.range.unwrap_or(0) as usize;
    let rest = &body[start.min(body.len())..];
    let status = match request.range {
        Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", body.len() - 1, body.len()),
        None => "200 OK".into(),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len())?;
    stream.write_all(&rest[..cut.min(rest.len())])
}

fn body() -> Vec<u8> {
    (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// An entry of one file that the hub has.
fn entry(bytes: &[u8]) -> &'static Entry {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    let files = vec![catalogue::File { path: "tiny.gguf", bytes: bytes.len() as u64, sha256: hex.leak() }];
    Box::leak(Box::new(Entry {
        name: "tiny",
        description: "",
        licence: "Apache-2.0",
        purpose: Purpose::Chat,
        path: "tiny.gguf",
        files: files.leak(),
        sources: &[Source::Hub { repository: "owner/tiny", revision: "main" }],
    }))
}

fn options<'a>(dir: &'a Path, endpoint: &'a str) -> PullOptions<'a> {
    PullOptions { models_dir: dir, endpoint, token: None, offline: false, progress: &|_| {} }
}

#[test]
fn a_cut_download_is_continued_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = body();
    let served = bytes.clone();
    let server = Server::start(move |request, n, stream| {
        serve(&served, request, if n == 0 { 500_000 } else { usize::MAX }, stream)
    });
    let progress = Mutex::new(Vec::new());
    let report = |p: Progress<'_>| progress.lock().unwrap().push((p.done_bytes, p.total_bytes));
    let options = PullOptions { progress: &report, ..options(dir.path(), &server.url) };
    let path = pull(entry(&bytes), &options).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(server.seen.lock().unwrap()[0].path, "/owner/tiny/resolve/main/tiny.gguf");
    let ranges = server.ranges();
    assert_eq!(ranges.len(), 2);
    assert!(ranges[0].is_none() && ranges[1].is_some_and(|at| at > 0 && at <= 500_000), "{ranges:?}");
    let progress = progress.lock().unwrap();
    assert_eq!(progress.last(), Some(&(bytes.len() as u64, Some(bytes.len() as u64))));
    assert!(progress.windows(2).all(|pair| pair[0].0 <= pair[1].0), "progress never goes back");
    // What is here is not fetched again, also when offline.
    let again = pull(entry(&bytes), &PullOptions { offline: true, ..options }).unwrap();
    assert_eq!((again, server.ranges().len()), (path, 2));
}

#[test]
fn a_server_that_cannot_continue_sends_the_file_from_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = body();
    let staging = dir.path().join(".pull-tiny");
    std::fs::create_dir_all(&staging).unwrap();
    std::fs::write(staging.join("tiny.gguf.part"), b"an older start").unwrap();
    let served = bytes.clone();
    let server = Server::start(move |request, _, stream| {
        serve(&served, &Seen { range: None, ..request.clone() }, usize::MAX, stream)
    });
    let path = pull(entry(&bytes), &options(dir.path(), &server.url)).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert_eq!(server.ranges(), [Some(14)]);
}

#[test]
fn wrong_bytes_are_refused_and_the_next_pull_starts_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = body();
    let served = bytes.clone();
    let server = Server::start(move |request, n, stream| {
        let mut wrong = served.clone();
        wrong[1000] ^= u8::from(n == 0);
        serve(&wrong, request, usize::MAX, stream)
    });
    let options = options(dir.path(), &server.url);
    let error = pull(entry(&bytes), &options).unwrap_err();
    let PullError::NoSource { failures, .. } = &error else { panic!("{error}") };
    assert!(matches!(failures[..], [(_, PullError::Digest { .. })]), "{error}");
    assert!(!dir.path().join("tiny.gguf").exists());
    pull(entry(&bytes), &options).unwrap();
    assert_eq!(server.ranges(), [None, None]);
}

#[test]
fn redirects_are_followed_without_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = body();
    let served = bytes.clone();
    let store = Server::start(move |request, _, stream| serve(&served, request, usize::MAX, stream));
    let target = store.url.replace("127.0.0.1", "localhost");
    let hub = Server::start(move |_, _, stream| {
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {target}/blob\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    });
    let options = PullOptions { token: Some("secret"), ..options(dir.path(), &hub.url) };
    pull(entry(&bytes), &options).unwrap();
    assert!(hub.seen.lock().unwrap()[0].authorized);
    let seen = store.seen.lock().unwrap();
    assert!(!seen[0].authorized && seen[0].path == "/blob", "{seen:?}");
}

#[test]
fn files_of_another_length_and_error_statuses_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = body();
    let mut longer = bytes.clone();
    longer.push(0);
    let server = Server::start(move |request, n, stream| match n {
        0 => serve(&longer, request, usize::MAX, stream),
        _ => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    });
    for want in ["larger", "404"] {
        let error = pull(entry(&bytes), &options(dir.path(), &server.url)).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("three ways out"), "{error}");
    }
}

#[test]
fn offline_names_the_model_and_three_ways_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = PullOptions { offline: true, ..options(dir.path(), "http://127.0.0.1:9") };
    let text = pull(catalogue::default_entry(), &options).unwrap_err().to_string();
    for part in ["smollm2", "offline", "1. run `stockade models pull smollm2`", "2. copy", "3. serve", "NAME=PATH"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing was written");
}

fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn archives_resolve_to_the_one_model_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    let noise: Vec<u8> = body()[..4096].to_vec();
    let folder: &[(&str, &[u8])] = &[
        ("m/config.json", b"{}"),
        ("m/model.safetensors", &noise),
        ("m/1_Pooling/config.json", b"{}"),
        ("m/run.py", b"no"),
    ];
    let inner = zip_of(folder);
    for (name, bytes, file) in [
        ("a.zip", zip_of(&[("x/tiny.gguf", &noise), ("README", b"")]), None),
        ("b.whl", inner.clone(), Some("model.safetensors")),
        ("c.whl", zip_of(&[("pkg/__init__.py", b""), ("pkg/model.zip", &inner)]), Some("1_Pooling/config.json")),
    ] {
        let archive = dir.path().join(name);
        std::fs::write(&archive, bytes).unwrap();
        let path = resolve(&archive, &models).unwrap_or_else(|e| panic!("{name}: {e}"));
        match file {
            None => assert_eq!(std::fs::read(&path).unwrap(), noise, "{name}"),
            Some(file) => assert!(path.join(file).is_file() && !path.join("run.py").exists(), "{name}"),
        }
        assert_eq!(resolve(&archive, &models).unwrap(), path, "{name}: the second time it is there already");
    }
    assert_eq!(resolve(dir.path(), &models).unwrap(), dir.path());
}

#[test]
fn hostile_archives_write_nothing_outside_and_do_not_grow_without_bound() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    let zeros = vec![0; 8 << 20];
    for (name, bytes) in [
        ("outside.zip", zip_of(&[("../../evil.gguf", b"x"), ("../config.json", b"{}"), ("../a.safetensors", b"x")])),
        ("bomb.zip", zip_of(&[("a.gguf", &zeros)])),
        ("two.zip", zip_of(&[("a.gguf", b"x"), ("b.gguf", b"y")])),
        ("none.whl", zip_of(&[("a.py", b"x")])),
        ("cut.zip", zip_of(&[("a.gguf", b"x")])[..40].to_vec()),
        ("model.bin", b"x".to_vec()),
    ] {
        let archive = dir.path().join(name);
        std::fs::write(&archive, bytes).unwrap();
        let error = resolve(&archive, &models).unwrap_err().to_string();
        assert!(error.contains(name) || error.contains("larger"), "{name}: {error}");
        let _ = std::fs::remove_file(&archive);
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["models"], "nothing else was written");
    let unpacked = std::fs::read_dir(models.join("unpacked")).unwrap().count();
    assert_eq!(unpacked, 0, "nothing half unpacked is left");
}
