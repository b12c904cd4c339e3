//! The documentation's examples, the mistakes that are told apart, and random filters
//! against a second, naive reading of them.

use std::collections::BTreeMap;

use levada_core::Attributes;
use levada_disk::SimRng;

use super::{Filter, MAX_FILTER_BYTES};

fn attributes(pairs: &[(&'static str, &'static str)]) -> Attributes {
    pairs.iter().copied().collect()
}

#[track_caller]
fn check(
    text: &str,
    wanted: &[&[(&'static str, &'static str)]],
    unwanted: &[&[(&'static str, &'static str)]],
) {
    let filter = Filter::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(filter.text(), text);
    for pairs in wanted {
        assert!(filter.matches(&attributes(pairs)), "{text} wants {pairs:?}");
    }
    for pairs in unwanted {
        assert!(!filter.matches(&attributes(pairs)), "{text} does not want {pairs:?}");
    }
}

#[test]
fn the_examples_of_the_documentation_mean_what_it_says() {
    let tag = "iana.org/language_tag";
    check("", &[&[], &[("a", "b")]], &[]);
    check(
        "attributes:domain",
        &[&[("domain", "")], &[("x", "1"), ("domain", "com")]],
        &[&[], &[("Domain", "com")]],
    );
    check(
        r#"attributes.domain = "com""#,
        &[&[("domain", "com")]],
        &[&[("domain", "Com")], &[], &[("com", "domain")]],
    );
    check(
        r#"attributes.domain != "com""#,
        &[&[("domain", "org")], &[], &[("domain", "")]],
        &[&[("domain", "com")]],
    );
    check(
        r#"hasPrefix(attributes.domain, "co")"#,
        &[&[("domain", "com")], &[("domain", "co")]],
        &[&[("domain", "c")], &[]],
    );
    check(r#"attributes:"iana.org/language_tag""#, &[&[(tag, "en")]], &[&[("iana", "")]]);
    check(
        r#"attributes:"iana.org/language_tag" AND attributes.name = "com""#,
        &[&[(tag, "en"), ("name", "com")]],
        &[&[(tag, "en")], &[("name", "com")]],
    );
    check(
        r#"attributes:"iana.org/language_tag" OR attributes.name = "com""#,
        &[&[(tag, "en")], &[("name", "com")]],
        &[&[], &[("name", "org")]],
    );
    check(r#"NOT attributes:name"#, &[&[], &[("x", "")]], &[&[("name", "")]]);
    check(r#"-attributes:name"#, &[&[]], &[&[("name", "")]]);
    check(
        r#"attributes.name = "com" AND -attributes:"iana.org/language_tag""#,
        &[&[("name", "com")]],
        &[&[("name", "com"), (tag, "en")], &[]],
    );
    check(
        r#"attributes:"iana.org/language_tag" AND (attributes.name = "net" OR attributes.name = "org")"#,
        &[&[(tag, ""), ("name", "net")], &[(tag, ""), ("name", "org")]],
        &[&[("name", "net")], &[(tag, ""), ("name", "com")]],
    );
    check(r#"NOT hasPrefix(attributes.name, "co")"#, &[&[], &[("name", "net")]], &[&[("name", "com")]]);
    check(r#"attributes:"\u307F\u3093\u306A""#, &[&[("みんな", "")]], &[&[("みん", "")]]);
    check(r#"attributes.x = "\u307F\u3093\u306A""#, &[&[("x", "みんな")]], &[&[("x", "みん")]]);
}

#[test]
fn white_space_is_free_and_keys_may_be_quoted() {
    let com: &[(&str, &str)] = &[("a-b_1", "com")];
    for text in [
        r#"attributes.a-b_1="com""#,
        "  attributes . a-b_1\t=\n\"com\"  ",
        r#"attributes."a-b_1" = "com""#,
        r#"((attributes.a-b_1="com"))"#,
        r#"NOT(attributes.a-b_1!="com")"#,
        r#"- - attributes.a-b_1 = "com""#,
        r#"hasPrefix ( attributes . a-b_1 , "c" )"#,
        r#"attributes:a-b_1 AND(attributes.a-b_1="com")"#,
    ] {
        check(text, &[com], &[&[]]);
    }
    check("attributes:AND AND attributes:NOT", &[&[("AND", ""), ("NOT", "")]], &[&[("AND", "")]]);
    check(" \n", &[&[]], &[]);
}

#[test]
fn escapes_are_those_of_string_literals() {
    for (escaped, plain) in [
        (r#"\""#, "\""),
        (r"\\", "\\"),
        (r"\n\t\r", "\n\t\r"),
        (r"\x41\101\u0041\U00000041", "AAAA"),
        (r"\U0001F600", "😀"),
        (r"\377", "ÿ"),
        ("it's", "it's"),
    ] {
        let filter = Filter::parse(&format!("attributes.k = \"{escaped}\"")).unwrap();
        assert!(filter.matches(&[("k", plain)].into_iter().collect()), "{escaped}");
        assert!(!filter.matches(&[("k", escaped)].into_iter().collect()) || escaped == plain, "{escaped}");
    }
}

#[test]
fn a_mistake_is_named_with_its_place_and_its_mend() {
    let long = format!("attributes:{}", "k".repeat(MAX_FILTER_BYTES));
    for (text, column, hint) in [
        ("attributes", 11, "attributes:key"),
        ("attributes.", 12, "double quotes"),
        ("attributes.name", 16, "= or !="),
        ("attributes.name = com", 19, "double quotes"),
        ("attributes.name = 'com'", 19, "double quotes"),
        ("attributes.name == \"com\"", 18, "double quotes"),
        ("attributes.name > \"com\"", 17, "= or !="),
        ("attributes.a.b = \"com\"", 13, "double quotes"),
        ("attributes:a and attributes:b", 14, "capitals"),
        ("attributes:a or attributes:b", 14, "capitals"),
        ("not attributes:a", 1, "capitals"),
        ("attributes:a attributes:b", 14, "AND or OR"),
        ("attributes:a AND attributes:b OR attributes:c", 31, "parentheses"),
        ("attributes:a OR attributes:b AND attributes:c", 30, "parentheses"),
        ("attributes:a AND", 17, "condition"),
        ("AND attributes:a", 1, "condition"),
        ("(attributes:a", 1, "close"),
        ("attributes:a)", 13, "remove"),
        ("()", 2, "condition"),
        ("(attributes:a attributes:b)", 15, "AND or OR"),
        ("attribute:a", 1, "condition"),
        ("Attributes:a", 1, "condition"),
        ("hasprefix(attributes.a, \"b\")", 1, "condition"),
        ("hasPrefix(attributes.a)", 23, "hasPrefix("),
        ("hasPrefix(attributes:a, \"b\")", 21, "hasPrefix("),
        ("hasPrefix(data, \"b\")", 11, "hasPrefix("),
        ("attributes.é = \"com\"", 12, "double quotes"),
        ("attributes.\"é\" = \"com", 18, "close"),
        ("attributes.a = \"\\q\"", 17, "\\n"),
        ("attributes.a = \"\\ud800\"", 17, "surrogate"),
        ("attributes.a = \"\\x4\"", 17, "\\xhh"),
        ("attributes.a = \"\n\"", 17, "\\n"),
        ("attributes.a = \"\\", 17, "\\n"),
        ("data = \"x\"", 1, "condition"),
        (&long, 257, "shorten"),
    ] {
        let error = Filter::parse(text).expect_err(text);
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.mend.contains(hint), "{text}: {error}");
    }
    assert!(Filter::parse(&long[..MAX_FILTER_BYTES]).is_ok());
    assert!(Filter::parse(&"(".repeat(256)).is_err());
    assert!(Filter::parse(&"-".repeat(256)).is_err());
}

const KEYS: [&str; 5] = ["a", "b-c", "d_1", "e.f", "gö"];
const VALUES: [&str; 5] = ["", "x", "xy", "y\"\\", "é"];

/// What a random filter means, kept apart from the code under test.
enum Meaning {
    Has(&'static str),
    Equal(&'static str, &'static str, bool),
    Prefix(&'static str, &'static str),
    Negated(Box<Meaning>),
    Joined(Vec<Meaning>, bool),
}

impl Meaning {
    fn random(rng: &mut SimRng, depth: u64) -> Self {
        let key = KEYS[rng.below(5) as usize];
        let value = VALUES[rng.below(5) as usize];
        match rng.below(if depth == 0 { 3 } else { 5 }) {
            0 => Self::Has(key),
            1 => Self::Equal(key, value, rng.one_in(2)),
            2 => Self::Prefix(key, value),
            3 => Self::Negated(Box::new(Self::random(rng, depth - 1))),
            _ => {
                let parts = (0..2 + rng.below(2)).map(|_| Self::random(rng, depth - 1)).collect();
                Self::Joined(parts, rng.one_in(2))
            }
        }
    }

    fn write(&self, rng: &mut SimRng) -> String {
        let mut space = |least: usize| [" ", "  ", "\n", "\t"][rng.below(4) as usize].repeat(least.max(1));
        let quoted = |t: &str| format!("\"{}\"", t.replace('\\', "\\\\").replace('"', "\\\""));
        let key = |k: &str| {
            if k.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
                k.to_owned()
            } else {
                quoted(k)
            }
        };
        match self {
            Self::Has(k) => format!("attributes:{}", key(k)),
            Self::Equal(k, v, is_equal) => {
                let op = if *is_equal { "=" } else { "!=" };
                format!("attributes.{}{}{op}{}{}", key(k), space(1), space(1), quoted(v))
            }
            Self::Prefix(k, v) => format!("hasPrefix(attributes.{},{}{})", key(k), space(1), quoted(v)),
            Self::Negated(inner) => {
                let not = if rng.one_in(2) { "NOT " } else { "-" };
                let text = inner.write(rng);
                if matches!(**inner, Self::Joined(..)) {
                    format!("{not}({text})")
                } else {
                    format!("{not}{text}")
                }
            }
            Self::Joined(parts, all) => {
                let texts: Vec<_> = parts
                    .iter()
                    .map(|p| {
                        let text = p.write(rng);
                        if matches!(p, Self::Joined(..)) { format!("({text})") } else { text }
                    })
                    .collect();
                texts.join(if *all { " AND " } else { " OR " })
            }
        }
    }

    fn holds(&self, map: &BTreeMap<&str, &str>) -> bool {
        match self {
            Self::Has(k) => map.contains_key(k),
            Self::Equal(k, v, is_equal) => (map.get(k) == Some(v)) == *is_equal,
            Self::Prefix(k, v) => map.get(k).is_some_and(|t| t.find(v) == Some(0)),
            Self::Negated(inner) => !inner.holds(map),
            Self::Joined(parts, all) => {
                let held = parts.iter().filter(|p| p.holds(map)).count();
                if *all { held == parts.len() } else { held > 0 }
            }
        }
    }
}

#[test]
fn random_filters_agree_with_a_naive_reading() {
    let mut parsed = 0;
    for seed in 0..3_000 {
        let mut rng = SimRng::new(seed);
        let meaning = Meaning::random(&mut rng, 3);
        let text = meaning.write(&mut rng);
        if text.len() > MAX_FILTER_BYTES {
            assert!(Filter::parse(&text).is_err(), "seed {seed}");
            continue;
        }
        parsed += 1;
        let filter = Filter::parse(&text).unwrap_or_else(|e| panic!("seed {seed}: {text:?}: {e}"));
        for _ in 0..20 {
            let mut map = BTreeMap::new();
            for key in KEYS {
                if rng.one_in(2) {
                    map.insert(key, VALUES[rng.below(5) as usize]);
                }
            }
            let attributes: Attributes = map.iter().map(|(k, v)| (*k, *v)).collect();
            assert_eq!(filter.matches(&attributes), meaning.holds(&map), "seed {seed}: {text:?} on {map:?}");
        }
    }
    assert!(parsed > 1_500, "too few of the random filters are short enough: {parsed}");
}

#[test]
fn no_text_makes_the_parser_panic() {
    let tokens = [
        "attributes",
        ":",
        ".",
        "=",
        "!=",
        "\"",
        "\\",
        "NOT",
        "-",
        "AND",
        "OR",
        "(",
        ")",
        "hasPrefix",
        ",",
        "k",
        " ",
        "é",
        "\\u12",
        "\n",
    ];
    for seed in 0..20_000 {
        let mut rng = SimRng::new(seed);
        let text: String = (0..rng.below(24)).map(|_| tokens[rng.below(20) as usize]).collect();
        if let Err(error) = Filter::parse(&text) {
            assert!(error.column <= text.chars().count() + 1, "seed {seed}: {text:?}: {error}");
        }
    }
}
