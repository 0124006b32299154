//! Numbers as people read them, the same in text and on the page.

use indicatif::HumanCount;

/// `12,101`.
pub(super) fn thousands(number: usize) -> String {
    HumanCount(number as u64).to_string()
}

/// `86.0 %`; small shares keep two digits that say something (`0.041 %`), only the whole is
/// `100 %`, and what six decimals do not show is `0 %`.
pub(super) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let decimals = match percent {
        // Nothing, up to rounding, and without a sign.
        -5e-7..5e-7 => return "0 %".into(),
        // The whole, up to rounding.
        99.999_999..100.000_001 => 0,
        99.95..100.0 => return format!("{:.2} %", percent.min(99.99)),
        _ if percent.abs() >= 0.95 => 1,
        // 0.95 % and less: the first two digits that are not zero.
        _ => (1 - percent.abs().log10().floor() as i32).clamp(2, 6) as usize,
    };
    format!("{percent:.decimals$} %")
}

/// Three digits that say something, without an exponent where that stays short.
pub(super) fn short(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let magnitude = number.abs().log10().floor() as i32;
    match magnitude {
        3.. if number.fract() == 0.0 && magnitude < 9 => {
            let sign = if number < 0.0 { "-" } else { "" };
            format!("{sign}{}", thousands(number.abs() as usize))
        }
        -4..6 => {
            let decimals = (2 - magnitude).max(0) as usize;
            let text = format!("{number:.decimals$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        }
        _ => format!("{number:.1e}"),
    }
}

/// Three decimals, and no sign on a zero.
pub(super) fn score(number: f64) -> String {
    format!("{:.3}", (number * 1000.0).round() / 1000.0 + 0.0)
}

/// `1 item`, `2 items`.
pub(super) fn count(number: usize, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {one}{plural}", thousands(number))
}

/// At most `longest` characters, the rest as an ellipsis.
pub(super) fn clip(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 0.86, 1.0 - 1e-12, 0.9999, 0.012, 0.0041, 0.000_412].map(percent),
            ["0 %", "86.0 %", "100 %", "99.99 %", "1.2 %", "0.41 %", "0.041 %"]
        );
        assert_eq!(
            [2e-16, -2e-16, 6e-9, -0.012].map(percent),
            ["0 %", "0 %", "0.000001 %", "-1.2 %"]
        );
        assert_eq!([0.9997, -0.999_96, 0.009_999, 9.9996].map(short), ["1", "-1", "0.01", "10"]);
        assert_eq!(
            [0.0, 218.33, 1.5, 0.373_84, 0.002, 20_000.0, 1e-7, -0.05].map(short),
            ["0", "218", "1.5", "0.374", "0.002", "20,000", "1.0e-7", "-0.05"]
        );
        assert_eq!([-0.0001, 0.25, -0.5].map(score), ["0.000", "0.250", "-0.500"]);
        assert_eq!([0, 1, 2].map(|n| count(n, "item")), ["0 items", "1 item", "2 items"]);
    }

    #[test]
    fn text_is_clipped_between_characters() {
        assert_eq!(clip("größer als", 6), "größer…");
        assert_eq!(clip("größe", 5), "größe");
    }
}
