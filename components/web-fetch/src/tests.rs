use super::*;

fn page(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    Response { status, headers, body: body.into() }
}

fn fetch(url: &str) -> ToolOutput {
    testing::call::<WebFetch>(json!({"max_characters": 100, "max_redirects": 2}), json!({"url": url})).unwrap()
}

#[test]
fn html_comes_as_text_and_other_text_as_it_is() {
    let _host = testing::Host::new().network(|request| {
        Ok(if request.url.ends_with("json") {
            page(200, &[("content-type", "application/json")], r#"{"a": "<b>"}"#)
        } else {
            page(200, &[("content-type", "text/html; charset=utf-8")], "<title>T</title><p>é <b>x</b>")
        })
    });
    assert_eq!(fetch("https://a.example/"), ToolOutput::ok("https://a.example/\n\nT\n\né x"));
    assert_eq!(fetch("https://a.example/json"), ToolOutput::ok("https://a.example/json\n\n{\"a\": \"<b>\"}"));
}

#[test]
fn redirects_are_asked_for_one_by_one_and_bounded() {
    let host = testing::Host::new().network(|request| match request.url.as_str() {
        "https://a.example/old" => Ok(page(302, &[("location", "../new")], "")),
        "https://a.example/new" => Ok(page(301, &[("location", "http://169.254.169.254/meta")], "")),
        "https://a.example/loop" => Ok(page(302, &[("location", "/loop")], "")),
        url => Err(Error::Denied(format!("http: {url}"))),
    });
    let answer = fetch("https://a.example/old");
    assert!(answer.is_error && answer.content.contains("169.254.169.254") && answer.content.contains("not granted"));
    let urls: Vec<_> = host.fetched().into_iter().map(|r| r.url).collect();
    assert_eq!(urls, ["https://a.example/old", "https://a.example/new", "http://169.254.169.254/meta"]);
    let answer = fetch("https://a.example/loop");
    assert!(answer.is_error && answer.content == "more than 2 redirects", "{answer:?}");
}

#[test]
fn what_is_no_text_or_no_success_is_told() {
    let _host = testing::Host::new().network(|request| {
        Ok(match request.url.as_str() {
            "https://a.example/png" => page(200, &[("content-type", "image/png")], "123"),
            _ => page(404, &[("content-type", "text/html")], "<h1>Not here</h1>"),
        })
    });
    let answer = fetch("https://a.example/png");
    assert!(answer.is_error && answer.content.contains("image/png of 3 bytes"), "{answer:?}");
    let answer = fetch("https://a.example/gone");
    assert!(answer.is_error && answer.content.contains("status 404") && answer.content.contains("# Not here"));
}

#[test]
fn a_long_page_is_cut_and_says_so() {
    let _host = testing::Host::new().network(|_| Ok(page(200, &[("content-type", "text/plain")], &"é".repeat(500))));
    let answer = fetch("https://a.example/");
    assert!(answer.content.ends_with("[cut after 100 characters]"));
    assert_eq!(answer.content.matches('é').count(), 100);
}

#[test]
fn an_old_encoding_is_read() {
    let _host = testing::Host::new().network(|_| {
        let headers = vec![("content-type".to_string(), "text/plain; charset=ISO-8859-1".to_string())];
        Ok(Response { status: 200, headers, body: vec![0xe9] })
    });
    assert!(fetch("https://a.example/").content.ends_with('é'));
}

/// A page of random elements in each other, with the words that a reader sees (`v17`) and those that nobody does (`h17`).
fn random_page(seed: u64) -> (String, Vec<String>, Vec<String>) {
    const AROUND: [&str; 16] = [
        "p",
        "div",
        "section",
        "h1",
        "h3",
        "ul",
        "li",
        "table",
        "tr",
        "td",
        "b",
        "em",
        "a href='/x'",
        "blockquote",
        "pre",
        "span",
    ];
    const UNSEEN: [(&str, &str); 6] = [
        ("<script>var a = '<p>';", "</script>"),
        ("<style>", "</style>"),
        ("<!-- <p> ", " -->"),
        ("<template><p>", "</p></template>"),
        ("<noscript>", "</noscript>"),
        ("<svg><text>", "</text></svg>"),
    ];
    let mut state = seed;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let (mut html, mut seen, mut unseen, mut open) = (String::from("<!doctype html>"), vec![], vec![], vec![]);
    for n in 0..80 {
        match next(4) {
            0 if open.len() < 12 => {
                let tag = AROUND[next(AROUND.len())];
                html += &format!("<{tag}>");
                open.extend(tag.split(' ').next());
            }
            1 => html.extend(open.pop().map(|tag| format!("</{tag}>"))),
            2 => {
                let (before, after) = UNSEEN[next(UNSEEN.len())];
                html += &format!("{before} h{n} {after}");
                unseen.push(format!("h{n}"));
            }
            _ => {
                html += &format!(" v{n} ");
                seen.push(format!("v{n}"));
            }
        }
    }
    (html, seen, unseen)
}

#[test]
fn a_reader_gets_every_word_that_is_seen_and_no_other_in_its_order() {
    let mut words = (0, 0);
    for seed in 0..2_000 {
        let (html, seen, unseen) = random_page(seed);
        let text = html::to_text(&html, "https://a.example/");
        let found: Vec<&str> = text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| w.len() > 1 && w[1..].parse::<u32>().is_ok() && ["v", "h"].contains(&&w[..1]))
            .collect();
        assert_eq!(found, seen, "{html}\n\n{text}");
        words = (words.0 + seen.len(), words.1 + unseen.len());
    }
    assert_eq!(words, (40_509, 40_008));
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    let html = "<p>Tea is <b>served</b> at <a href='/five'>five</a>.</p>\n".repeat(40);
    testing::latency("web-fetch", || {
        let html = html.clone();
        let _host = testing::Host::new()
            .network(move |_| Ok(page(200, &[("content-type", "text/html; charset=utf-8")], &html)));
        let answer = testing::call::<WebFetch>(json!({}), json!({"url": "https://a.example/"})).unwrap();
        assert_eq!(answer.content.matches("served").count(), 40);
    });
}
