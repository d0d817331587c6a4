//! The data of server-sent events. Source: WHATWG HTML, "Server-sent events", without ids and reconnection.

/// The `data` of each event that ends, in order.
pub fn events(text: &str) -> Vec<String> {
    let mut events = Vec::new();
    let mut data: Option<String> = None;
    // The standard takes three line ends.
    for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
        if line.is_empty() {
            events.extend(data.take());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => data = Some(value.into()),
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_joined_and_the_rest_passed_over() {
        let text = "\u{feff}: hello\nevent: message\ndata: {\"a\":\ndata:1}\nid: 3\n\ndata: two\r\n\r\nretry: 1\n\ndata: cut off";
        assert_eq!(events(text), ["{\"a\":\n1}", "two"]);
        assert_eq!(events("data\n\n"), [""]);
    }
}
