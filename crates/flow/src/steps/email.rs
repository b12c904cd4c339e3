//! What counts as an e-mail address: the form that mail systems accept in practice, which
//! is narrower than RFC 5322 (no quotes, comments or address literals).

/// At most 254 bytes; local part of dot-separated atoms up to 64; a domain of at least two
/// labels of letters, digits and inner hyphens, the last not all digits.
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    text.len() <= 254 && is_local(local) && is_domain(domain)
}

fn is_local(local: &str) -> bool {
    (1..=64).contains(&local.len())
        && local.split('.').all(|atom| {
            !atom.is_empty()
                && atom.chars().all(|c| {
                    c.is_ascii_alphanumeric()
                        || "!#$%&'*+/=?^_`{|}~-".contains(c)
                        || (!c.is_ascii() && c.is_alphanumeric())
                })
        })
}

fn is_domain(domain: &str) -> bool {
    let mut labels = 0;
    let mut last_is_number = false;
    for label in domain.split('.') {
        labels += 1;
        last_is_number = label.bytes().all(|b| b.is_ascii_digit());
        let inner = label.chars().all(|c| c == '-' || c.is_alphanumeric());
        if label.is_empty() || label.len() > 63 || !inner || label.starts_with('-') || label.ends_with('-') {
            return false;
        }
    }
    labels >= 2 && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_addresses_from_other_texts() {
        for good in
            ["a@b.co", "first.last+tag@mail.example.org", "o'brien@x-y.example", "jörg@bücher.example"]
        {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@b.co", "a".repeat(65));
        for bad in [
            "",
            "@",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            "a@b..co",
            ".a@b.co",
            "a.@b.co",
            "a..b@c.de",
            "a@-b.co",
            "a@b-.co",
            "a@b.co.",
            "a@127.0.0.1",
            "a@b@",
            "a@b c.de",
            "a\n@b.co",
            &long,
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
