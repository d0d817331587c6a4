//! Wallet addresses whose checksum holds: Bitcoin's base58 and bech32 forms, Ethereum's hexadecimal one.

use crate::reader::{Open, Reader};
use sha2::{Digest, Sha256};
use sha3::Keccak256;

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BECH32: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// What the checksum of BIP 173 and that of its successor BIP 350 come to.
const BECH32_CONSTANTS: [u32; 2] = [1, 0x2bc8_30a3];

pub fn address(reader: &mut Reader<'_>, _: &[String]) -> Result<Option<usize>, Open> {
    let text = reader.run(91, |b| b.is_ascii_alphanumeric())?;
    if !reader.at_word_end()? {
        return Ok(None);
    }
    let valid = match text {
        [b'0', b'x', digits @ ..] => ethereum(digits),
        [b'1' | b'3', ..] => base58(text),
        [b'b', b'c', b'1', data @ ..] => bech32(data),
        [b'B', b'C', b'1', data @ ..] => bech32(&data.to_ascii_lowercase()),
        _ => false,
    };
    Ok(valid.then_some(reader.at()))
}

/// 40 digits, whose case carries the checksum of EIP-55 where it is mixed.
fn ethereum(digits: &[u8]) -> bool {
    if digits.len() != 40 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    let lower = digits.to_ascii_lowercase();
    if digits == lower || digits == digits.to_ascii_uppercase() {
        return true;
    }
    let hash = Keccak256::digest(&lower);
    digits.iter().enumerate().all(|(i, digit)| {
        let nibble = hash[i / 2] >> (4 * (1 - i % 2)) & 0xF;
        !digit.is_ascii_alphabetic() || digit.is_ascii_uppercase() == (nibble >= 8)
    })
}

/// 25 bytes, of which the last four begin the double SHA-256 of the others.
fn base58(text: &[u8]) -> bool {
    if !(26..=35).contains(&text.len()) {
        return false;
    }
    let mut bytes = [0u8; 25];
    for symbol in text {
        let Some(value) = BASE58.iter().position(|b| b == symbol) else { return false };
        let mut carry = value;
        for byte in bytes.iter_mut().rev() {
            carry += usize::from(*byte) * 58;
            *byte = (carry & 0xFF) as u8;
            carry >>= 8;
        }
        if carry != 0 {
            return false;
        }
    }
    let (payload, checksum) = bytes.split_at(21);
    Sha256::digest(Sha256::digest(payload))[..4] == *checksum && matches!(payload[0], 0 | 5)
}

/// The data behind `bc1`.
fn bech32(data: &[u8]) -> bool {
    if !(11..=87).contains(&data.len()) {
        return false;
    }
    // The human-readable part `bc`, spread as BIP 173 says.
    let mut checksum = [3, 3, 0, 2, 3].iter().fold(1, |sum, &value| polymod(sum, value));
    for symbol in data {
        let Some(value) = BECH32.iter().position(|b| b == symbol) else { return false };
        checksum = polymod(checksum, value as u32);
    }
    BECH32_CONSTANTS.contains(&checksum)
}

fn polymod(sum: u32, value: u32) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = sum >> 25;
    let next = (sum & 0x01ff_ffff) << 5 ^ value;
    GENERATOR.iter().enumerate().fold(next, |sum, (i, g)| if top >> i & 1 == 1 { sum ^ g } else { sum })
}
