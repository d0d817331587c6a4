//! Names of tools: MCP allows more characters than models do. What a model cannot say is written as `_xHH_`.

/// Longest name that the host takes, the bound name of the set and what lies between apart.
const MAX_BYTES: usize = 48;

/// The server's name as the host takes it; `None` when it is too long or would not come back as it was.
pub fn ours(theirs: &str) -> Option<String> {
    let mut name = String::new();
    for b in theirs.bytes() {
        if b.is_ascii_alphanumeric() || b"_-".contains(&b) {
            name.push(b.into());
        } else {
            name += &format!("_x{b:02x}_");
        }
    }
    let sound = !name.is_empty() && name.len() <= MAX_BYTES && self::theirs(&name) == theirs;
    sound.then_some(name)
}

/// The server's own name.
pub fn theirs(ours: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = ours.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match escape(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[5..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| ours.into())
}

/// The byte that `_xHH_` at the beginning stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let [b'_', b'x', high, low, b'_', ..] = text else { return None };
    let digit = |b: u8| char::from(b).to_digit(16).filter(|_| !b.is_ascii_uppercase());
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for (name, shown) in
            [("add", "add"), ("fs.read", "fs_x2e_read"), ("a b/é", "a_x20_b_x2f__xc3__xa9_"), ("a_b-c", "a_b-c")]
        {
            assert_eq!(ours(name).as_deref(), Some(shown));
            assert_eq!(theirs(shown), name);
        }
        assert_eq!(ours("fs_x2e_read"), None, "it would come back as another");
        assert_eq!(ours(""), None);
        assert_eq!(ours(&"a".repeat(49)), None);
    }
}
