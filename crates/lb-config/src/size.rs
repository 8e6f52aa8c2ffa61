//! Amounts of memory: bytes, or a number with a unit.

/// Reads `1048576`, `512MiB`, `1.5GiB`, `2GB`, `64Ki`; the error is a reason to print after the value.
pub(crate) fn parse(text: &str) -> Result<u64, &'static str> {
    const NOT_ONE: &str = "is not an amount of memory";
    const TOO_MUCH: &str = "is more than there is";
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "k" | "kB" | "KB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        _ => return Err(NOT_ONE),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit).ok_or(TOO_MUCH);
    }
    let fraction: f64 = number.parse().map_err(|_| NOT_ONE)?;
    let bytes = fraction * unit as f64;
    // 2^64 itself, the next that a float can tell from it.
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(TOO_MUCH) }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_of_both_kinds_are_read() {
        for (text, bytes) in [
            ("1048576", Some(1 << 20)),
            ("512MiB", Some(512 << 20)),
            ("512 MiB", Some(512 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("2GB", Some(2_000_000_000)),
            ("64Ki", Some(65_536)),
            ("0", Some(0)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5.2G", None),
            ("12 parsecs", None),
            ("99999999999GiB", None),
            ("99999999999.5GiB", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(parse(text).ok(), bytes, "{text:?}");
        }
    }
}
