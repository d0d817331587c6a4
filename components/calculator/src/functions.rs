//! The functions and constants that an expression may name.

use crate::number::{Number, Outcome, too_large};
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

/// Largest argument of the factorial.
const MAX_FACTORIAL: u32 = 2_000;
/// Most digits that a number is rounded to.
const MAX_ROUND_DIGITS: i64 = 1_000;

pub fn constant(name: &str) -> Option<Number> {
    Some(Number::Double(match name {
        "pi" => std::f64::consts::PI,
        "e" => std::f64::consts::E,
        "tau" => std::f64::consts::TAU,
        _ => return None,
    }))
}

pub fn call(name: &str, arguments: &[Number]) -> Outcome {
    match (name, arguments) {
        ("abs", [x]) => match x {
            Number::Exact(r) => Ok(Number::Exact(r.abs())),
            Number::Double(d) => Number::double(d.abs()),
        },
        ("floor", [x]) => whole(x, BigRational::floor, f64::floor),
        ("ceil", [x]) => whole(x, BigRational::ceil, f64::ceil),
        ("round", [x]) => whole(x, BigRational::round, f64::round),
        ("round", [x, digits]) => round(x, digits),
        ("sqrt", [x]) => root(x, 2),
        ("cbrt", [x]) => root(x, 3),
        ("min", [first, rest @ ..]) => choose(first, rest, |a, b| a < b),
        ("max", [first, rest @ ..]) => choose(first, rest, |a, b| a > b),
        ("gcd", [a, b]) => integers(name, a, b, |a, b| a.gcd(b)),
        ("lcm", [a, b]) => integers(name, a, b, |a, b| a.lcm(b)),
        (_, [x]) => double(name, x),
        _ if known(name) => Err(format!("`{name}` takes another number of arguments than {}", arguments.len())),
        _ => Err(unknown(name)),
    }
}

pub fn factorial(x: &Number) -> Outcome {
    let n = x.whole().and_then(BigInt::to_u32).filter(|n| *n <= MAX_FACTORIAL);
    let n = n.ok_or_else(|| format!("`!` takes a whole number from 0 to {MAX_FACTORIAL}"))?;
    let product = (1..=n).fold(BigInt::from(1u32), |product, k| product * k);
    Number::exact(BigRational::from_integer(product))
}

fn double(name: &str, x: &Number) -> Outcome {
    let function: fn(f64) -> f64 = match name {
        "exp" => f64::exp,
        "ln" => f64::ln,
        "log" | "log10" => f64::log10,
        "log2" => f64::log2,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        _ if known(name) => return Err(format!("`{name}` takes another number of arguments than 1")),
        _ => return Err(unknown(name)),
    };
    Number::double(function(x.to_double()?)).map_err(|why| format!("{name}: {why}"))
}

fn known(name: &str) -> bool {
    const ALL: &str =
        " abs floor ceil round sqrt cbrt min max gcd lcm exp ln log log10 log2 sin cos tan asin acos atan ";
    ALL.contains(&format!(" {name} "))
}

fn unknown(name: &str) -> String {
    format!("`{name}` is neither a function nor a constant")
}

fn whole(x: &Number, exact: fn(&BigRational) -> BigRational, double: fn(f64) -> f64) -> Outcome {
    match x {
        Number::Exact(r) => Number::exact(exact(r)),
        // A whole double is a whole number; beyond 2^53 it stays what it is.
        Number::Double(d) => match BigRational::from_float(double(*d)) {
            Some(r) => Number::exact(r),
            None => Number::double(double(*d)),
        },
    }
}

/// To this many digits after the point, half away from zero; negative: before it.
fn round(x: &Number, digits: &Number) -> Outcome {
    let digits = digits.whole().and_then(BigInt::to_i64).filter(|d| d.abs() <= MAX_ROUND_DIGITS);
    let digits = digits.ok_or_else(|| format!("round: digits are a whole number up to {MAX_ROUND_DIGITS}"))?;
    let exact = match x {
        Number::Exact(r) => r.clone(),
        Number::Double(d) => BigRational::from_float(*d).ok_or_else(too_large)?,
    };
    let scale = BigRational::from_integer(BigInt::from(10u32)).pow(digits as i32);
    Number::exact((exact * &scale).round() / scale)
}

/// Exact for powers of fractions, else a double.
fn root(x: &Number, degree: u32) -> Outcome {
    if let Number::Exact(r) = x
        && !r.is_negative()
    {
        let (top, bottom) = (r.numer().nth_root(degree), r.denom().nth_root(degree));
        if top.pow(degree) == *r.numer() && bottom.pow(degree) == *r.denom() {
            return Number::exact(BigRational::new(top, bottom));
        }
    }
    let value = x.to_double()?;
    if degree == 2 && value < 0.0 {
        return Err("sqrt: the number is negative".into());
    }
    Number::double(if degree == 2 { value.sqrt() } else { value.cbrt() })
}

fn choose(first: &Number, rest: &[Number], better: fn(f64, f64) -> bool) -> Outcome {
    let mut best = first;
    for x in rest {
        let first = match (x, best) {
            (Number::Exact(a), Number::Exact(b)) => {
                // The sign of the difference decides without leaving exact numbers.
                let difference = a - b;
                !difference.is_zero() && better(difference.signum().to_f64().unwrap_or(0.0), 0.0)
            }
            _ => better(x.to_double()?, best.to_double()?),
        };
        if first {
            best = x;
        }
    }
    Ok(best.clone())
}

fn integers(name: &str, a: &Number, b: &Number, f: fn(&BigInt, &BigInt) -> BigInt) -> Outcome {
    match (a.whole(), b.whole()) {
        (Some(a), Some(b)) => Number::exact(BigRational::from_integer(f(a, b))),
        _ => Err(format!("`{name}` takes whole numbers")),
    }
}
