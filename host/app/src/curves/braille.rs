//! A curve in characters: each braille character is two dots wide and four high.

use super::{Axis, Panel, short};

/// Draws a panel into at most `width` columns and `height` rows, axis and title included.
pub fn draw(panel: &Panel<'_>, width: usize, height: usize) -> Vec<String> {
    const MARGIN: usize = 9;
    let (columns, rows) = (width.saturating_sub(MARGIN + 1).max(4), height.saturating_sub(2).max(2));
    let points = || panel.curves.iter().flat_map(|c| c.points.iter());
    let x = Axis::around(points().map(|p| p.0), 4);
    let y = Axis::around(points().map(|p| p.1), 3);
    let mut canvas = Canvas::new(columns, rows);
    for curve in &panel.curves {
        let dot = |(px, py): (f64, f64)| {
            let across = x.share(px) * (canvas.width - 1) as f64;
            let down = (1.0 - y.share(py)) * (canvas.height - 1) as f64;
            (across.round() as i64, down.round() as i64)
        };
        let dots: Vec<(i64, i64)> = curve.points.iter().map(|p| dot(*p)).collect();
        match &dots[..] {
            [one] => canvas.set(*one),
            dots => dots.windows(2).for_each(|w| line(w[0], w[1], |at| canvas.set(at))),
        }
    }
    let latest: Vec<String> =
        panel.curves.iter().filter_map(|c| Some(format!("{} {}", c.name, short(c.last()?)))).collect();
    let mut out = vec![format!("{:>MARGIN$} {}", "", latest.join("   "))];
    for (i, row) in canvas.rows().into_iter().enumerate() {
        let label = match i {
            0 => short(y.high),
            i if i + 1 == rows => short(y.low),
            _ => String::new(),
        };
        out.push(format!("{label:>MARGIN$}┤{row}"));
    }
    let (low, high) = (short(x.low), short(x.high));
    let gap = columns.saturating_sub(low.len() + high.len());
    out.push(format!("{:>MARGIN$} {low}{:gap$}{high}", "", ""));
    out
}

/// The dots between two of them, both included. Source: Bresenham 1965.
pub fn line(from: (i64, i64), to: (i64, i64), mut set: impl FnMut((i64, i64))) {
    let ((mut x, mut y), (dx, dy)) = (from, ((to.0 - from.0).abs(), -(to.1 - from.1).abs()));
    let (sx, sy) = ((to.0 - from.0).signum(), (to.1 - from.1).signum());
    let mut error = dx + dy;
    loop {
        set((x, y));
        if (x, y) == to {
            return;
        }
        let twice = 2 * error;
        if twice >= dy {
            error += dy;
            x += sx;
        }
        if twice <= dx {
            error += dx;
            y += sy;
        }
    }
}

/// Dots, eight to a character.
struct Canvas {
    width: usize,
    height: usize,
    cells: Vec<u8>,
}

impl Canvas {
    fn new(columns: usize, rows: usize) -> Self {
        Self { width: columns * 2, height: rows * 4, cells: vec![0; columns * rows] }
    }

    fn set(&mut self, (x, y): (i64, i64)) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= self.width || y >= self.height {
            return;
        }
        // Unicode counts the dots of the upper three rows by column, and then the lowest row.
        let bit = match (x % 2, y % 4) {
            (0, 3) => 6,
            (_, 3) => 7,
            (column, row) => column * 3 + row,
        };
        self.cells[y / 4 * (self.width / 2) + x / 2] |= 1 << bit;
    }

    fn rows(&self) -> Vec<String> {
        let character = |cell: &u8| char::from_u32(0x2800 + u32::from(*cell)).unwrap_or(' ');
        self.cells.chunks(self.width / 2).map(|row| row.iter().map(character).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Curves;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_falling_curve_goes_from_the_upper_left_to_the_lower_right() {
        let mut curves = Curves::default();
        for step in 1..=50 {
            curves.add(&json!({"step": step, "loss": 50 - step}));
        }
        let drawn = draw(&curves.panels()[0], 40, 8);
        assert_eq!(drawn.len(), 8);
        assert!(drawn.iter().all(|l| l.chars().count() <= 40), "{drawn:#?}");
        let dots = |row: &str| row.chars().position(|c| ('\u{2801}'..='\u{28ff}').contains(&c));
        let (first, last) = (dots(&drawn[1]).unwrap(), dots(&drawn[6]).unwrap());
        assert!(first < last, "{drawn:#?}");
        assert!(drawn[1].starts_with("       49┤"), "{drawn:#?}");
    }

    #[test]
    fn every_dot_of_a_character_is_its_own() {
        for (x, y, character) in [(0, 0, '⠁'), (0, 2, '⠄'), (0, 3, '⡀'), (1, 0, '⠈'), (1, 2, '⠠'), (1, 3, '⢀')]
        {
            let mut canvas = Canvas::new(1, 1);
            canvas.set((x, y));
            canvas.set((7, -1));
            assert_eq!(canvas.rows(), [character.to_string()]);
        }
    }
}
