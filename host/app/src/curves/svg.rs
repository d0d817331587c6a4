//! Curves as an SVG picture: a panel each, two a row.

use super::{Axis, Panel, short};
use std::fmt::Write as _;

/// A panel in pixels, and what its frame leaves for labels.
pub const PANEL: (f64, f64) = (520.0, 260.0);
pub const MARGIN: (f64, f64, f64, f64) = (62.0, 30.0, 16.0, 30.0);
pub const COLORS: [&str; 2] = ["#2563eb", "#dc2626"];

/// Where the panels of a picture stand, and how large it is.
pub fn layout(panels: usize) -> (Vec<(f64, f64)>, (f64, f64)) {
    let columns = panels.clamp(1, 2);
    let rows = panels.max(1).div_ceil(columns);
    let places = (0..panels).map(|i| ((i % columns) as f64 * PANEL.0, (i / columns) as f64 * PANEL.1));
    (places.collect(), (columns as f64 * PANEL.0, rows as f64 * PANEL.1))
}

pub fn draw(title: &str, panels: &[Panel<'_>]) -> String {
    const HEAD: f64 = 28.0;
    let (places, (width, height)) = layout(panels.len());
    let mut out = String::new();
    let height = height + HEAD;
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"20\" text-anchor=\"middle\" font-size=\"14\">{}</text>",
        width / 2.0,
        escape(title)
    );
    for (panel, (x, y)) in panels.iter().zip(places) {
        let _ = writeln!(out, "<g transform=\"translate({x} {})\">", y + HEAD);
        draw_panel(panel, &mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw_panel(panel: &Panel<'_>, out: &mut String) {
    let (left, top, right, bottom) = MARGIN;
    let (width, height) = (PANEL.0 - left - right, PANEL.1 - top - bottom);
    let points = || panel.curves.iter().flat_map(|c| c.points.iter());
    let x = Axis::around(points().map(|p| p.0), 6);
    let y = Axis::around(points().map(|p| p.1), 5);
    let across = |v: f64| left + x.share(v) * width;
    let down = |v: f64| top + (1.0 - y.share(v)) * height;
    for tick in &y.ticks {
        let at = down(*tick);
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#e5e7eb\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left + width,
            left - 6.0,
            at + 4.0,
            short(*tick)
        );
    }
    for tick in &x.ticks {
        let at = across(*tick);
        let _ = writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            top + height + 16.0,
            short(*tick)
        );
    }
    let _ = writeln!(
        out,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#9ca3af\"/>"
    );
    for (i, curve) in panel.curves.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let path: Vec<String> = curve.points.iter().map(|p| format!("{:.1},{:.1}", across(p.0), down(p.1))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" stroke-linejoin=\"round\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"{color}\">{} {}</text>",
            path.join(" "),
            left + 4.0 + 150.0 * i as f64,
            top - 8.0,
            escape(&curve.name),
            curve.last().map(short).unwrap_or_default()
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::Curves;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_picture_holds_each_panel_and_escapes_names() {
        let mut curves = Curves::default();
        for step in 1..=10 {
            curves
                .add(&json!({"step": step, "loss": 1.0 / f64::from(step), "eval_loss": 0.4, "<b>&": step, "lr": 0.1}));
        }
        let svg = draw("run <1>", &curves.panels());
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert_eq!(svg.matches("<g ").count(), 3);
        assert!(svg.contains("&lt;b&gt;&amp;") && svg.contains("run &lt;1&gt;"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
