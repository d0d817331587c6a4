//! The key-value pairs of a GGUF file. Arrays stay as the file has them, so that they take no more memory.

use std::collections::BTreeMap;

/// The key-value pairs of a GGUF file.
#[derive(Debug, Default)]
pub struct Metadata(pub(super) BTreeMap<String, Value>);

/// One metadata value. Integers of all widths are widened.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Strings(Strings),
    /// An array of numbers or bools.
    Numbers(Numbers),
}

/// Many strings in one allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    pub(super) text: String,
    pub(super) ends: Vec<u32>,
}

/// An array of numbers, kept as the file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    pub(super) ty: u32,
    pub(super) bytes: Vec<u8>,
}

impl Metadata {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(s) => Some(s),
            _ => None,
        }
    }
    /// Any non-negative integer.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Unsigned(n) => Some(*n),
            Value::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }
    pub fn f64(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Float(x) => Some(*x),
            _ => None,
        }
    }
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }
    pub fn strings(&self, key: &str) -> Option<&Strings> {
        match self.get(key)? {
            Value::Strings(s) => Some(s),
            _ => None,
        }
    }
    pub fn numbers(&self, key: &str) -> Option<&Numbers> {
        match self.get(key)? {
            Value::Numbers(n) => Some(n),
            _ => None,
        }
    }
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Test and conversion code builds metadata without a file.
impl FromIterator<(String, Value)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Strings {
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
    pub fn get(&self, i: usize) -> Option<&str> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        self.text.get(start..end)
    }
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i).unwrap_or_default())
    }
}

impl<S: AsRef<str>> FromIterator<S> for Strings {
    /// # Panics
    /// Above 4 GiB of text.
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Self::default();
        for s in strings {
            all.text.push_str(s.as_ref());
            all.ends.push(u32::try_from(all.text.len()).expect("less than 4 GiB of text"));
        }
        all
    }
}

impl Numbers {
    pub fn len(&self) -> usize {
        self.bytes.len() / scalar_bytes(self.ty).unwrap_or(1)
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f64> {
        self.bytes.chunks_exact(scalar_bytes(self.ty).unwrap_or(1)).map(|raw| match scalar(self.ty, raw) {
            Some(Value::Unsigned(n)) => n as f64,
            Some(Value::Signed(n)) => n as f64,
            Some(Value::Float(x)) => x,
            Some(Value::Bool(b)) => f64::from(u8::from(b)),
            _ => f64::NAN,
        })
    }
}

impl FromIterator<f32> for Numbers {
    fn from_iter<I: IntoIterator<Item = f32>>(values: I) -> Self {
        Self { ty: 6, bytes: values.into_iter().flat_map(f32::to_le_bytes).collect() }
    }
}

impl FromIterator<i32> for Numbers {
    fn from_iter<I: IntoIterator<Item = i32>>(values: I) -> Self {
        Self { ty: 5, bytes: values.into_iter().flat_map(i32::to_le_bytes).collect() }
    }
}

/// Bytes of a number or bool in metadata; `None` for strings, arrays and unknown types.
pub(super) fn scalar_bytes(ty: u32) -> Option<usize> {
    Some(match ty {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// `None` for a bool that is neither 0 nor 1, or bytes of another length.
pub(super) fn scalar(ty: u32, raw: &[u8]) -> Option<Value> {
    let wide = || {
        let mut wide = [0; 8];
        wide.get_mut(..raw.len())?.copy_from_slice(raw);
        Some(u64::from_le_bytes(wide))
    };
    Some(match ty {
        0 | 2 | 4 | 10 => Value::Unsigned(wide()?),
        1 => Value::Signed(i64::from(wide()? as u8 as i8)),
        3 => Value::Signed(i64::from(wide()? as u16 as i16)),
        5 => Value::Signed(i64::from(wide()? as u32 as i32)),
        11 => Value::Signed(wide()? as i64),
        6 => Value::Float(f64::from(f32::from_bits(wide()? as u32))),
        12 => Value::Float(f64::from_bits(wide()?)),
        7 => match raw.first()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            _ => return None,
        },
        _ => return None,
    })
}
