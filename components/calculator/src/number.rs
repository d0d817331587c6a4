//! Numbers: exact fractions, and doubles for what has no fraction.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};
use std::fmt;

/// Most bits of a numerator or denominator: about 9,800 decimal digits.
pub const MAX_BITS: u64 = 32_768;
/// Digits after which an exact result that does not end is rounded.
const SHOWN_DIGITS: u32 = 30;
/// Longest exact result that is written out.
const MAX_SHOWN_DIGITS: usize = 10_000;

#[derive(Debug, Clone, PartialEq)]
pub enum Number {
    Exact(BigRational),
    /// Finite.
    Double(f64),
}

pub type Outcome = Result<Number, String>;

impl Number {
    pub fn exact(value: BigRational) -> Outcome {
        if value.numer().bits() > MAX_BITS || value.denom().bits() > MAX_BITS {
            return Err(too_large());
        }
        Ok(Self::Exact(value))
    }

    pub fn double(value: f64) -> Outcome {
        if value.is_finite() { Ok(Self::Double(value)) } else { Err("the result is not a finite number".into()) }
    }

    pub fn integer(value: i64) -> Self {
        Self::Exact(BigRational::from_integer(value.into()))
    }

    pub fn to_double(&self) -> Result<f64, String> {
        let value = match self {
            Self::Exact(r) => r.to_f64().unwrap_or(f64::INFINITY),
            Self::Double(d) => *d,
        };
        if value.is_finite() { Ok(value) } else { Err("a number is too large for this function".into()) }
    }

    /// The whole number that it is, where it is one.
    pub fn whole(&self) -> Option<&BigInt> {
        match self {
            Self::Exact(r) if r.is_integer() => Some(r.numer()),
            _ => None,
        }
    }

    pub fn is_zero(&self) -> bool {
        match self {
            Self::Exact(r) => r.is_zero(),
            Self::Double(d) => *d == 0.0,
        }
    }

    /// Applies an operation to both, exactly where both are exact.
    pub fn with(
        &self,
        other: &Self,
        exact: impl FnOnce(&BigRational, &BigRational) -> BigRational,
        double: impl FnOnce(f64, f64) -> f64,
    ) -> Outcome {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => Self::exact(exact(a, b)),
            _ => Self::double(double(self.to_double()?, other.to_double()?)),
        }
    }

    /// Raises it to a power; exact for whole powers of exact numbers.
    pub fn power(&self, exponent: &Self) -> Outcome {
        let (Self::Exact(base), Some(whole)) = (self, exponent.whole()) else {
            return Self::double(self.to_double()?.powf(exponent.to_double()?));
        };
        if base.is_zero() && whole.is_negative() {
            return Err("division by zero".into());
        }
        let trivial = base.is_zero() || base.is_integer() && base.numer().magnitude().is_one();
        let size = base.numer().bits().max(base.denom().bits());
        let times = whole.magnitude().to_u64().unwrap_or(u64::MAX);
        if !trivial && size.saturating_mul(times) > 2 * MAX_BITS {
            return Err(too_large());
        }
        // 0, 1 and -1 stay small whatever the power; only its parity counts.
        let times = if trivial { if times == 0 { 0 } else { 2 - (times & 1) } } else { times };
        let times = i32::try_from(times).map_err(|_| too_large())?;
        Self::exact(base.pow(if whole.is_negative() { -times } else { times }))
    }
}

pub fn too_large() -> String {
    format!("a number in between has more than {MAX_BITS} bits")
}

/// In decimals; `≈` stands before what is rounded.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Double(d) => {
                let text = format!("{d:.14e}");
                let rounded: f64 = text.parse().unwrap_or(*d);
                let plain = rounded == 0.0 || (1e-6..1e15).contains(&rounded.abs());
                if plain { write!(f, "≈ {rounded}") } else { write!(f, "≈ {rounded:e}") }
            }
            Self::Exact(r) => match ending_digits(r.denom()) {
                Some(digits) => write!(f, "{}", decimal(r, digits)),
                None => write!(f, "≈ {}", decimal(r, SHOWN_DIGITS)),
            },
        }
    }
}

/// Digits after the point of a fraction with this denominator, when they end.
fn ending_digits(denominator: &BigInt) -> Option<u32> {
    let (mut rest, mut twos, mut fives) = (denominator.clone(), 0u32, 0u32);
    while (&rest % 2u32).is_zero() {
        rest /= 2u32;
        twos += 1;
    }
    while (&rest % 5u32).is_zero() {
        rest /= 5u32;
        fives += 1;
    }
    (rest.is_one() && (twos.max(fives) as usize) < MAX_SHOWN_DIGITS).then_some(twos.max(fives))
}

/// With this many digits after the point, the last one rounded half away from zero.
fn decimal(value: &BigRational, digits: u32) -> String {
    let scaled = (value.abs() * BigRational::from_integer(BigInt::from(10u32).pow(digits))).round().to_integer();
    let text = format!("{scaled:0>width$}", scaled = scaled.to_string(), width = digits as usize + 1);
    let (whole, after) = text.split_at(text.len() - digits as usize);
    let sign = if value.is_negative() && !scaled.is_zero() { "-" } else { "" };
    if after.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{after}") }
}
