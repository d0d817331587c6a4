use super::*;
use std::io::Write as _;

#[test]
fn html_becomes_its_visible_text_with_headings() {
    let html = "<html><head><title>T</title><style>p{}</style></head><body><h1>Tea &amp; milk</h1>\
        <p>Brew <b>it</b>\n  hot.<script>var x = '<p>no</p>';</script></p><ul><li>one<li>two</ul><h2>End</h2>";
    let got = text("text/html; charset=utf-8", "", html.as_bytes()).unwrap();
    assert_eq!(got, "# Tea & milk\nBrew it hot.\n- one\n- two\n## End");
}

#[test]
fn hostile_html_ends_and_shows_nothing_hidden() {
    for html in ["<script>x", "<", "</p></p>", "<svg><svg></svg>x</svg>y", "<!--", "<style><style></style>z"] {
        let got = html::text(html);
        assert!(!got.contains('x'), "{html}: {got}");
    }
    html::text(&"<div>".repeat(100_000));
}

fn docx(xml: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("word/document.xml", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(xml.as_bytes()).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn docx_becomes_its_paragraphs() {
    let xml = r#"<w:document><w:body><w:p><w:pPr><w:pStyle w:val="Heading2"/></w:pPr><w:r><w:t>Tea &amp; milk</w:t></w:r></w:p>
        <w:p><w:r><w:t>Brew</w:t><w:tab/><w:t xml:space="preserve"> hot&#233;</w:t></w:r></w:p></w:body></w:document>"#;
    assert_eq!(text("", "a.docx", &docx(xml)).unwrap(), "## Tea & milk\nBrew\t hoté");
    for bad in [&b"PK\x03\x04"[..], &docx("<w:t>")[..40], &docx("<w:p></w:t>")] {
        assert!(text("", "a.docx", bad).is_err());
    }
}

#[test]
fn a_zip_bomb_is_refused_before_it_is_unpacked() {
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("word/document.xml", options).unwrap();
    zip.write_all(&[b' '; 1 << 20]).unwrap();
    let bomb = zip.finish().unwrap().into_inner();
    assert!(bomb.len() < 8 << 10);
    assert!(matches!(docx::text(&bomb, 64 << 10), Err(Error::TooLarge(_))));
}

/// A PDF of one page with this content stream.
fn pdf(content: &str) -> Vec<u8> {
    let objects = [
        "<</Type/Catalog/Pages 2 0 R>>".to_string(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_string(),
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>".to_string(),
        format!("<</Length {}>>stream\n{content}\nendstream", content.len()),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>".to_string(),
    ];
    let mut out = String::from("%PDF-1.4\n");
    let mut offsets = Vec::new();
    for (i, object) in objects.iter().enumerate() {
        offsets.push(out.len());
        out += &format!("{} 0 obj{object}endobj\n", i + 1);
    }
    let start = out.len();
    out += "xref\n0 6\n0000000000 65535 f \n";
    offsets.iter().for_each(|at| out += &format!("{at:010} 00000 n \n"));
    out += &format!("trailer<</Size 6/Root 1 0 R>>\nstartxref\n{start}\n%%EOF");
    out.into_bytes()
}

#[test]
fn pdf_becomes_its_text() {
    let data = pdf("BT /F 12 Tf 20 200 Td (Tea is brewed) Tj 0 -20 Td (from leaves.) Tj ET");
    let got = text("application/pdf", "", &data).unwrap();
    let words: Vec<_> = got.split_whitespace().collect();
    assert_eq!(words, ["Tea", "is", "brewed", "from", "leaves."]);
    assert_eq!(text("application/octet-stream", "file", &data).unwrap(), got, "told by its first bytes");
    assert!(text("application/pdf", "", &data[..200]).is_err());
    assert!(text("application/pdf", "", b"%PDF-1.4 nothing").is_err());
}

#[test]
fn text_is_utf8_and_what_is_not_read_is_said() {
    assert_eq!(text("text/markdown", "", b"\xef\xbb\xbf# Caf\xc3\xa9").unwrap(), "# Café");
    assert!(matches!(text("text/plain", "", b"caf\xe9"), Err(Error::Invalid(_))));
    assert!(matches!(text("image/png", "", b"x"), Err(Error::Invalid(_))));
    assert!(matches!(text("text/html", "", b"<p></p>"), Err(Error::Invalid(_))));
}
