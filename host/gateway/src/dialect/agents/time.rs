//! Times as Llama Stack writes them.

use stockade_core::registry::day;

/// Seconds since 1970 as RFC 3339, UTC.
pub fn rfc3339(seconds: u64) -> String {
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{}T{h:02}:{m:02}:{s:02}Z", day(seconds))
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(super::rfc3339(951_868_799), "2000-02-29T23:59:59Z");
    }
}
