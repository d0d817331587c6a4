use super::*;

fn value(expression: &str) -> String {
    let answer = testing::call::<Calculator>(json!({}), json!({"expression": expression})).unwrap();
    assert!(!answer.is_error, "{expression}: {}", answer.content);
    answer.content
}

fn mistake(expression: &str) -> String {
    let answer = testing::call::<Calculator>(json!({}), json!({"expression": expression})).unwrap();
    assert!(answer.is_error, "{expression}: {}", answer.content);
    answer.content
}

#[test]
fn decimals_are_exact() {
    for (expression, want) in [
        ("0.1 + 0.2", "0.3"),
        ("1/3 + 1/6", "0.5"),
        ("1 / 3", "≈ 0.333333333333333333333333333333"),
        ("-2/3", "≈ -0.666666666666666666666666666667"),
        ("2 ^ 100", "1267650600228229401496703205376"),
        ("2 ** -3", "0.125"),
        ("1e3 + 1.5e-3", "1000.0015"),
        ("1_000 * 3", "3000"),
        ("19.99 * 3", "59.97"),
        ("0 * 1e4000", "0"),
        ("(-1) ^ 1000001", "-1"),
        ("0 ^ 0", "1"),
        ("1.10", "1.1"),
    ] {
        assert_eq!(value(expression), want, "{expression}");
    }
}

#[test]
fn operators_bind_as_in_school() {
    for (expression, want) in [
        ("2 + 3 * 4", "14"),
        ("(2 + 3) * 4", "20"),
        ("2 ^ 3 ^ 2", "512"),
        ("-2 ^ 2", "-4"),
        ("2 - -3", "5"),
        ("8 / 2 * 4", "16"),
        ("7 % 3", "1"),
        ("-7 % 3", "2"),
        ("5!", "120"),
        ("-3!", "-6"),
        ("2 × 3 ÷ 4 − 1", "0.5"),
    ] {
        assert_eq!(value(expression), want, "{expression}");
    }
}

#[test]
fn functions_are_exact_where_they_can_be() {
    for (expression, want) in [
        ("sqrt(16)", "4"),
        ("sqrt(2.25)", "1.5"),
        ("cbrt(27)", "3"),
        ("√(2)", "≈ 1.4142135623731"),
        ("sqrt(2)", "≈ 1.4142135623731"),
        ("round(10 / 3, 2)", "3.33"),
        ("round(-2.5)", "-3"),
        ("round(1234, -2)", "1200"),
        ("floor(-1.5) + ceil(1.2)", "0"),
        ("floor(pi)", "3"),
        ("abs(-1/2)", "0.5"),
        ("min(3, 1, 2) + max(1, 1.5)", "2.5"),
        ("gcd(12, 18) + lcm(4, 6)", "18"),
        ("ln(e)", "≈ 1"),
        ("log(1000)", "≈ 3"),
        ("2 * PI", "≈ 6.28318530717959"),
        ("exp(100)", "≈ 2.68811714181614e43"),
    ] {
        assert_eq!(value(expression), want, "{expression}");
    }
}

#[test]
fn mistakes_are_told_to_the_model() {
    for (expression, told) in [
        ("1 / 0", "division by zero"),
        ("1 % (2 - 2)", "division by zero"),
        ("0 ^ -1", "division by zero"),
        ("2 +", "ends too early"),
        ("(1", "`)` is missing"),
        ("2 3", "`3` is out of place (at character 3)"),
        ("1 @ 2", "`@` is out of place"),
        ("nothing(1)", "`nothing` is neither"),
        ("x + 1", "`x` has no value"),
        ("sin(1, 2)", "another number of arguments"),
        ("sqrt()", "out of place"),
        ("sqrt(-1)", "negative"),
        ("ln(0)", "not a finite number"),
        ("gcd(1.5, 2)", "whole numbers"),
        ("1.5!", "whole number from 0"),
        (".", "point without digits"),
    ] {
        assert!(mistake(expression).contains(told), "{expression}: {}", mistake(expression));
    }
}

#[test]
fn work_is_bounded() {
    for expression in [
        "9".repeat(5000),
        "9^9^9^9".into(),
        "1e5000".into(),
        "2001!".into(),
        format!("{}1{}", "(".repeat(100), ")".repeat(100)),
        format!("{}1", "-".repeat(100)),
        format!("{}1", "√".repeat(100)),
        vec!["2^30000"; 40].join("*"),
        format!("min({})", vec!["1"; 100].join(",")),
        "1/3^20000 + 1/7^20000".into(),
        "round(1, 99999)".into(),
    ] {
        mistake(&expression);
    }
    assert!(value("2000!").len() > 5000);
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    testing::Host::new();
    let arguments = json!({"expression": "sqrt(2) * (3 + 4)^2 / 7 - sin(0.5)"});
    testing::latency("calculator", || {
        let answer = testing::call::<Calculator>(json!({}), arguments.clone()).unwrap();
        assert!(!answer.is_error, "{}", answer.content);
    });
}

/// GSM8K's authors wrote the arithmetic of their solutions as `<<48/2=24>>`, computed by a calculator of their own.
#[test]
fn sums_of_schoolbook_solutions_come_out_as_written() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/gsm8k/train_first_3000.jsonl");
    let (mut all, mut same) = (0, 0);
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let answer = row["answer"].as_str().unwrap();
        for sum in answer.split("<<").skip(1).filter_map(|rest| rest.split(">>").next()) {
            let Some((expression, written)) = sum.rsplit_once('=') else { continue };
            let Ok(want) = written.parse::<f64>() else { continue };
            all += 1;
            let answer = testing::call::<Calculator>(json!({}), json!({"expression": expression})).unwrap();
            let got = answer.content.trim_start_matches("≈ ").parse::<f64>();
            let decimals = written.split_once('.').map_or(0, |(_, d)| d.len()) as i32;
            let close = |got: f64| (got - want).abs() <= 0.5 * 10f64.powi(-decimals) + 1e-9;
            match got {
                Ok(got) if !answer.is_error && close(got) => same += 1,
                _ => {}
            }
        }
    }
    // The one is Python's `560//10`.
    assert_eq!((all, same), (9425, 9424));
}
