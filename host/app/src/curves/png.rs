//! The picture of [`super::svg`] as dots: a PNG with a palette. An SVG renderer would weigh more than the rest of the command
//! line; lines and short labels are all that a curve needs.

use super::braille::line;
use super::font::{SIZE, glyph};
use super::svg::{MARGIN, PANEL, layout};
use super::{Axis, Panel, short};

const WHITE: u8 = 0;
const BLACK: u8 = 1;
const GRID: u8 = 2;
const FRAME: u8 = 3;
const CURVES: [u8; 2] = [4, 5];
const PALETTE: [[u8; 3]; 8] = [
    [255, 255, 255],
    [17, 24, 39],
    [229, 231, 235],
    [156, 163, 175],
    [37, 99, 235],
    [220, 38, 38],
    [255, 255, 255],
    [255, 255, 255],
];
/// Height of the title in pixels.
const HEAD: i64 = 28;

pub fn draw(title: &str, panels: &[Panel<'_>]) -> Vec<u8> {
    let (places, (width, height)) = layout(panels.len());
    let mut picture = Picture::new(width as usize, height as usize + HEAD as usize);
    picture.text(title, (width as i64 - text_width(title)) / 2, 10, BLACK);
    for (panel, (x, y)) in panels.iter().zip(places) {
        draw_panel(panel, &mut picture, (x as i64, y as i64 + HEAD));
    }
    picture.encode()
}

fn draw_panel(panel: &Panel<'_>, picture: &mut Picture, (ox, oy): (i64, i64)) {
    let (left, top, right, bottom) = MARGIN;
    let (width, height) = (PANEL.0 - left - right, PANEL.1 - top - bottom);
    let points = || panel.curves.iter().flat_map(|c| c.points.iter());
    let x = Axis::around(points().map(|p| p.0), 6);
    let y = Axis::around(points().map(|p| p.1), 5);
    let across = |v: f64| ox + (left + x.share(v) * width) as i64;
    let down = |v: f64| oy + (top + (1.0 - y.share(v)) * height) as i64;
    let (x0, x1) = (ox + left as i64, ox + (left + width) as i64);
    let (y0, y1) = (oy + top as i64, oy + (top + height) as i64);
    for tick in &y.ticks {
        let (at, label) = (down(*tick), short(*tick));
        line((x0, at), (x1, at), |p| picture.set(p, GRID));
        picture.text(&label, x0 - 6 - text_width(&label), at - 3, BLACK);
    }
    for tick in &x.ticks {
        let label = short(*tick);
        picture.text(&label, across(*tick) - text_width(&label) / 2, y1 + 8, BLACK);
    }
    for (from, to) in [((x0, y0), (x1, y0)), ((x0, y1), (x1, y1)), ((x0, y0), (x0, y1)), ((x1, y0), (x1, y1))] {
        line(from, to, |p| picture.set(p, FRAME));
    }
    for (i, curve) in panel.curves.iter().enumerate() {
        let color = CURVES[i % CURVES.len()];
        let dots: Vec<(i64, i64)> = curve.points.iter().map(|p| (across(p.0), down(p.1))).collect();
        let thick = |picture: &mut Picture, (px, py): (i64, i64)| {
            picture.set((px, py), color);
            picture.set((px, py + 1), color);
        };
        match &dots[..] {
            [one] => thick(picture, *one),
            dots => dots.windows(2).for_each(|w| line(w[0], w[1], |p| thick(picture, p))),
        }
        let name = format!("{} {}", curve.name, curve.last().map(short).unwrap_or_default());
        picture.text(&name, x0 + 4 + 170 * i as i64, y0 - 14, color);
    }
}

fn text_width(text: &str) -> i64 {
    (text.chars().count() * (SIZE.0 + 1)) as i64
}

/// One byte a pixel: a place of the palette.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![WHITE; width * height] }
    }

    fn set(&mut self, (x, y): (i64, i64), color: u8) {
        if let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y))
            && x < self.width
            && y < self.height
        {
            self.pixels[y * self.width + x] = color;
        }
    }

    fn text(&mut self, text: &str, x: i64, y: i64, color: u8) {
        for (i, c) in text.chars().enumerate() {
            let left = x + (i * (SIZE.0 + 1)) as i64;
            for (row, bits) in glyph(c).into_iter().enumerate() {
                for column in (0..SIZE.0).filter(|column| bits >> (SIZE.0 - 1 - column) & 1 == 1) {
                    self.set((left + column as i64, y + row as i64), color);
                }
            }
        }
    }

    /// The file. Source: W3C, "Portable Network Graphics", third edition: a palette, four bits a pixel, no filter.
    fn encode(&self) -> Vec<u8> {
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut header = Vec::new();
        header.extend((self.width as u32).to_be_bytes());
        header.extend((self.height as u32).to_be_bytes());
        header.extend([4, 3, 0, 0, 0]);
        chunk(&mut out, b"IHDR", &header);
        chunk(&mut out, b"PLTE", PALETTE.as_flattened());
        let mut rows = Vec::with_capacity(self.height * (self.width / 2 + 2));
        for row in self.pixels.chunks(self.width) {
            rows.push(0);
            rows.extend(row.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&WHITE)));
        }
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let compressed = std::io::Write::write_all(&mut encoder, &rows).and_then(|()| encoder.finish());
        chunk(&mut out, b"IDAT", &compressed.expect("writing to memory cannot fail"));
        chunk(&mut out, b"IEND", &[]);
        out
    }
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    let begin = out.len();
    out.extend(kind);
    out.extend(data);
    let crc = crc32fast::hash(&out[begin..]);
    out.extend(crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::Curves;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_picture_is_a_png_of_the_size_that_its_header_says() {
        let mut curves = Curves::default();
        for step in 1..=10 {
            curves.add(&json!({"step": step, "loss": 1.0 / f64::from(step), "lr": 0.1}));
        }
        let png = draw("run", &curves.panels());
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
        let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
        assert_eq!((number(16), number(20)), (1040, 288));
        let at = png.windows(4).position(|w| w == b"IDAT").unwrap();
        let mut rows = Vec::new();
        let mut decoder = flate2::read::ZlibDecoder::new(&png[at + 4..at + 4 + number(at - 4) as usize]);
        std::io::Read::read_to_end(&mut decoder, &mut rows).unwrap();
        assert_eq!(rows.len(), 288 * (1 + 520));
        let colours: std::collections::BTreeSet<u8> = rows.iter().flat_map(|b| [b >> 4, b & 15]).collect();
        assert!(colours.contains(&CURVES[0]) && colours.contains(&BLACK) && colours.contains(&GRID));
    }
}
