//! PostgreSQL's binary `numeric`: decimal text to groups of four digits, and back.
//!
//! Layout (network order, 16 bit each): number of groups, weight of the first group in
//! powers of 10,000, sign, decimals shown, then the groups.

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
/// Longer texts are no numbers that the lake can hold.
const MAX_GROUPS: usize = 1024;

/// Encodes `[-]digits[.digits]`.
pub(crate) fn encode(text: &str, out: &mut Vec<u8>) {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let mut padded = "0".repeat((4 - whole.len() % 4) % 4);
    padded.push_str(whole);
    let whole_groups = padded.len() / 4;
    padded.push_str(fraction);
    padded.push_str(&"0".repeat((4 - fraction.len() % 4) % 4));
    let mut groups: Vec<u16> = padded
        .as_bytes()
        .chunks(4)
        .map(|c| c.iter().fold(0, |n, d| n * 10 + u16::from(d.wrapping_sub(b'0'))))
        .collect();
    let mut weight = i16::try_from(whole_groups).unwrap_or(i16::MAX) - 1;
    let leading = groups.iter().take_while(|g| **g == 0).count();
    groups.drain(..leading);
    weight -= i16::try_from(leading).unwrap_or(0);
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign = if negative && !groups.is_empty() { NEGATIVE } else { 0 };
    for part in [
        u16::try_from(groups.len()).unwrap_or(u16::MAX),
        weight.cast_unsigned(),
        sign,
        u16::try_from(fraction.len()).unwrap_or(u16::MAX),
    ] {
        out.extend_from_slice(&part.to_be_bytes());
    }
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

/// Decodes to decimal text; `None` if the bytes are no number.
pub(crate) fn decode(bytes: &[u8]) -> Option<String> {
    let part = |i: usize| Some(u16::from_be_bytes(bytes.get(i * 2..i * 2 + 2)?.try_into().ok()?));
    let count = usize::from(part(0)?);
    let weight = i32::from(part(1)?.cast_signed());
    let (sign, scale) = (part(2)?, usize::from(part(3)?));
    let too_far = weight.unsigned_abs() as usize > MAX_GROUPS;
    if sign == NAN || count > MAX_GROUPS || too_far || scale > MAX_GROUPS * 4 || bytes.len() != 8 + 2 * count
    {
        return None;
    }
    let group = |power: i32| -> Option<u16> {
        let index = weight - power;
        match usize::try_from(index) {
            Ok(i) if i < count => part(4 + i).filter(|g| *g < 10_000),
            _ => Some(0),
        }
    };
    let mut text = String::new();
    for power in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", group(power)?));
    }
    let whole = text.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let mut fraction = String::new();
    let mut power = -1;
    while fraction.len() < scale {
        fraction.push_str(&format!("{:04}", group(power)?));
        power -= 1;
    }
    fraction.truncate(scale);
    let minus = if sign == NEGATIVE { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{minus}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in [
            "0",
            "1",
            "-1",
            "10000",
            "12345678.9",
            "0.0001",
            "0.00001",
            "-0.5",
            "99999999999999999999.123450",
            "10000.00",
            "0.00",
            "100000000",
        ] {
            let mut bytes = Vec::new();
            encode(text, &mut bytes);
            assert_eq!(decode(&bytes).as_deref(), Some(text));
        }
    }

    #[test]
    fn bytes_are_as_postgresql_writes_them() {
        let mut bytes = Vec::new();
        encode("-12345.67", &mut bytes);
        assert_eq!(bytes, [0, 3, 0, 1, 0x40, 0, 0, 2, 0, 1, 9, 0x29, 0x1A, 0x2C]);
    }

    #[test]
    fn nonsense_is_no_number() {
        for bytes in [&b""[..], &[0; 7], &[0, 1, 0, 0, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]] {
            assert_eq!(decode(bytes), None);
        }
        assert_eq!(decode(&[0xFF; 8]), None);
    }
}
