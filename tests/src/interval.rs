//! Shares with their uncertainty, for measurements.

/// A share in per cent with Wilson's 95 % interval.
pub fn share(count: usize, n: usize) -> String {
    if n == 0 {
        return "none".into();
    }
    let (p, n, z) = (count as f64 / n as f64, n as f64, 1.96f64);
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let percent = |x: f64| (100.0 * x.clamp(0.0, 1.0)).round();
    format!("{:.0} % ({:.0} to {:.0})", 100.0 * p, percent(centre - half), percent(centre + half))
}
