//! URLs of the project: `${NAME}` from the environment, `{field}` from the row.

/// What the environment answers for a variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why `${...}` could not be replaced. `part` is as written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unexpanded {
    Missing {
        part: String,
        name: String,
    },
    Malformed {
        part: String,
    },
    /// A secret's variable: a URL is shown in many places.
    Secret {
        part: String,
    },
}

/// Replaces `${NAME}` and `${NAME:-default}`.
///
/// # Errors
/// Every part that could not be replaced.
pub(crate) fn expand(text: &str, environment: Environment<'_>) -> Result<String, Vec<Unexpanded>> {
    let mut out = String::new();
    let mut problems = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let Some(end) = after.find('}') else {
            problems.push(Unexpanded::Malformed { part: rest[start..].to_owned() });
            return Err(problems);
        };
        let part = &rest[start..start + 3 + end];
        let (name, default) = match after[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&after[..end], None),
        };
        let well_formed = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.as_bytes()[0].is_ascii_digit();
        if !well_formed {
            problems.push(Unexpanded::Malformed { part: part.to_owned() });
        } else if name.starts_with(crate::secrets::ENV_PREFIX) {
            problems.push(Unexpanded::Secret { part: part.to_owned() });
        } else {
            match environment(name).filter(|v| !v.is_empty()).or_else(|| default.map(str::to_owned)) {
                Some(value) => out.push_str(&value),
                None => problems.push(Unexpanded::Missing { part: part.to_owned(), name: name.to_owned() }),
            }
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

/// The `{field}` placeholders of a URL.
///
/// # Errors
/// A sentence, when the URL cannot be used.
pub(crate) fn placeholders(url: &str) -> Result<Vec<&str>, &'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Err("it must begin with http:// or https://") };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Err("it has no host");
    }
    if host.contains(['{', '}']) {
        return Err("its host must be fixed: a row may not choose it");
    }
    if host.contains('@') {
        return Err("it carries a password: name a secret in `bearer_secret` instead");
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it contains a space or control character");
    }
    let mut names = Vec::new();
    let mut rest = rest;
    while let Some(start) = rest.find(['{', '}']) {
        if rest[start..].starts_with('}') {
            return Err("a `}` without its `{`");
        }
        let Some(end) = rest[start..].find('}') else { return Err("a `{` without its `}`") };
        names.push(&rest[start + 1..start + end]);
        rest = &rest[start + end + 1..];
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_secrets_never() {
        let environment = |name: &str| (name == "HOST").then(|| "h:1".to_owned());
        assert_eq!(expand("http://${HOST}/a", &environment), Ok("http://h:1/a".into()));
        assert_eq!(expand("${NONE:-http://d}/{x}", &environment), Ok("http://d/{x}".into()));
        for bad in ["${NONE}", "${", "${A B}", "${}", "${LEVADA_SECRET_X:-y}"] {
            assert!(expand(bad, &environment).is_err(), "{bad}");
        }
    }

    #[test]
    fn placeholders_are_named_and_the_host_is_fixed() {
        assert_eq!(placeholders("http://h/{a}/x?y={b}"), Ok(vec!["a", "b"]));
        for bad in [
            "ftp://h",
            "http://",
            "http://{a}/",
            "http://u:p@h/",
            "http://h/{a",
            "http://h/a}",
            "http://h/a b",
        ] {
            assert!(placeholders(bad).is_err(), "{bad}");
        }
    }
}
