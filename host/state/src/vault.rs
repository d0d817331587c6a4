//! Secrets at rest: ChaCha20-Poly1305 under keys that stand in a file of their own or come from the environment.
//!
//! A sealed value is a random salt of 32 bytes, then the ciphertext with its tag. The salt and the vault's key make the key
//! of this one value (HKDF-SHA256, RFC 5869), so that no nonce has to be counted or hoped to be fresh. The row's key is
//! authenticated along: a value opens in its own row only.
//!
//! The key file is no part of a backup: whoever has a copy of the state has no secret. It holds a key a line, 64
//! hexadecimal digits each: the first one seals, the others open what they once sealed.
//!
//! Invariants:
//! - a value's key seals once
//! - a key file is made whole, readable by its owner alone, and never written again

use crate::error::OpenError;
use crate::folder::{NewFile, sync_folder};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use stockade_core::vault::{KeyId, Sealed, Vault, VaultError};

/// The key file's name in a state folder.
const FILE: &str = "secrets.key";
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 32;
/// Most keys: the current one and those that it has replaced.
const MAX_KEYS: usize = 64;
/// What is read of a key file.
const MAX_FILE_BYTES: u64 = 16 << 10;

/// Keys in memory.
pub struct KeyVault {
    /// At least one; the first seals.
    keys: Vec<Key>,
}

struct Key {
    id: KeyId,
    bytes: [u8; KEY_BYTES],
}

/// A text that holds no usable keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    #[error("no key in it: at least one line of 64 hexadecimal digits")]
    None,
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
    #[error("key {0} is not 64 hexadecimal digits")]
    Malformed(usize),
}

impl KeyVault {
    /// Where the key of a state folder stands.
    pub fn file(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// The keys of a state folder, which exists; a first key is made where there is no file.
    ///
    /// # Errors
    /// [`OpenError::Key`] when the file holds no keys, or others than its owner may read it.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let path = Self::file(folder);
        match Self::read(&path) {
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; KEY_BYTES];
                getrandom::fill(&mut key).map_err(|e| OpenError::io("making a key", &path)(io::Error::other(e)))?;
                write(&path, &key)?;
                tracing::info!(path = %path.display(), "made the key that seals secrets; no backup holds it");
                Ok(Self { keys: vec![Key::new(key)] })
            }
            read => read,
        }
    }

    /// The keys of a file that is there.
    pub fn read(path: &Path) -> Result<Self, OpenError> {
        let failed = |e| OpenError::io("reading the key", path)(e);
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode();
        let refused = |what: String| OpenError::Key { path: path.to_owned(), what };
        if mode & 0o077 != 0 {
            return Err(refused(format!("others than its owner may read it (mode {:o}): chmod 600", mode & 0o777)));
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
        text.parse().map_err(|e: KeyError| refused(e.to_string()))
    }
}

impl std::str::FromStr for KeyVault {
    type Err = KeyError;

    /// Keys with white space between them.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let keys: Vec<&str> = text.split_whitespace().collect();
        match keys.len() {
            0 => Err(KeyError::None),
            n if n > MAX_KEYS => Err(KeyError::TooMany),
            _ => {
                let read = |(i, text)| parse(text).map(Key::new).ok_or(KeyError::Malformed(i + 1));
                Ok(Self { keys: keys.into_iter().enumerate().map(read).collect::<Result<_, _>>()? })
            }
        }
    }
}

impl Vault for KeyVault {
    fn current(&self) -> KeyId {
        self.keys[0].id
    }

    fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Sealed, VaultError> {
        let key = &self.keys[0];
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|e| VaultError::Host(Box::new(e)))?;
        let mut sealed = plain.to_vec();
        let done = key.of_value(&salt).and_then(|key| {
            let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
            key.seal_in_place_append_tag(nonce, Aad::from(place), &mut sealed).ok()
        });
        done.ok_or_else(|| VaultError::Host("the value is too long".into()))?;
        Ok(Sealed { key: key.id, bytes: [&salt[..], &sealed].concat() })
    }

    fn open(&self, place: &[u8], sealed: &Sealed) -> Result<Vec<u8>, VaultError> {
        let known = self.keys.iter().find(|key| key.id == sealed.key);
        let key = known.ok_or(VaultError::UnknownKey(sealed.key))?;
        let (salt, bytes) = sealed.bytes.split_first_chunk().ok_or(VaultError::Damaged)?;
        let mut opened = bytes.to_vec();
        let length = key.of_value(salt).and_then(|key| {
            let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
            key.open_in_place(nonce, Aad::from(place), &mut opened).ok().map(|plain| plain.len())
        });
        opened.truncate(length.ok_or(VaultError::Damaged)?);
        Ok(opened)
    }
}

impl Key {
    fn new(bytes: [u8; KEY_BYTES]) -> Self {
        let digest = Sha256::new().chain_update("stockade key id").chain_update(bytes).finalize();
        let id = digest.first_chunk().expect("a digest has 32 bytes");
        Self { id: KeyId(*id), bytes }
    }

    /// The key of the one value that was given this salt; `None` never happens for a cipher's own key length.
    fn of_value(&self, salt: &[u8; SALT_BYTES]) -> Option<LessSafeKey> {
        let extracted = Salt::new(HKDF_SHA256, salt).extract(&self.bytes);
        let expanded = extracted.expand(&[b"stockade secret"], &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(expanded)))
    }
}

impl std::fmt::Debug for KeyVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| key.id)).finish()
    }
}

fn parse(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

fn write(path: &Path, key: &[u8; KEY_BYTES]) -> Result<(), OpenError> {
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = NewFile::private(path.to_owned())?;
    file.write(format!("{digits}\n").as_bytes())?;
    file.rename()?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const ONE: &str = "0101010101010101010101010101010101010101010101010101010101010101";
    const TWO: &str = "02020202020202020202020202020202020202020202020202020202020202ff";

    fn vault(text: &str) -> KeyVault {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_own_place_alone_and_only_unchanged() {
        let vault = vault(ONE);
        let sealed = vault.seal(b"t/a/secret/x", b"hunter2").unwrap();
        assert!(!sealed.bytes.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(vault.open(b"t/a/secret/x", &sealed).unwrap(), b"hunter2");
        assert_ne!(vault.seal(b"t/a/secret/x", b"hunter2").unwrap(), sealed, "a salt of its own each time");
        assert!(matches!(vault.open(b"t/b/secret/x", &sealed), Err(VaultError::Damaged)));
        for i in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[i] ^= 1;
            assert!(matches!(vault.open(b"t/a/secret/x", &changed), Err(VaultError::Damaged)), "byte {i}");
            changed.bytes.truncate(i);
            assert!(matches!(vault.open(b"t/a/secret/x", &changed), Err(VaultError::Damaged)), "cut at {i}");
        }
    }

    #[test]
    fn an_older_key_still_opens_and_a_strange_one_is_named() {
        let sealed = vault(ONE).seal(b"x", b"text").unwrap();
        let both = vault(&format!("{TWO}\n{ONE}\n"));
        assert_ne!(both.current(), sealed.key);
        assert_eq!(both.open(b"x", &sealed).unwrap(), b"text");
        assert!(matches!(vault(TWO).open(b"x", &sealed), Err(VaultError::UnknownKey(id)) if id == sealed.key));
    }

    #[test]
    fn texts_that_hold_no_keys_are_refused() {
        for (text, error) in [
            ("", KeyError::None),
            (" \n", KeyError::None),
            (&ONE[1..], KeyError::Malformed(1)),
            (&ONE.replace('0', "g"), KeyError::Malformed(1)),
            (&ONE.replace("01", "+1"), KeyError::Malformed(1)),
            (&format!("{ONE} {ONE}0"), KeyError::Malformed(2)),
            (&format!("{ONE}\n").repeat(65), KeyError::TooMany),
        ] {
            assert_eq!(text.parse::<KeyVault>().unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_key_file_is_made_once_private_and_refused_when_others_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = KeyVault::open(folder.path()).unwrap();
        let path = KeyVault::file(folder.path());
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(KeyVault::open(folder.path()).unwrap().current(), first.current());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(KeyVault::open(folder.path()), Err(OpenError::Key { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(matches!(KeyVault::open(folder.path()), Err(OpenError::Key { .. })));
        assert_eq!(mode(), 0o600);
    }
}
