//! Secrets by name, from `secrets.yaml` or the environment. Their values have no Display,
//! a Debug that hides them and no Serialize, and no diagnostic quotes the secrets file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::codes::{self, Code};
use crate::diagnostic::{Diagnostic, Sink};
use crate::source::SourceFile;
use crate::tree::{self, Value};

/// A secret `stripe-api-key` may come as `LEVADA_SECRET_STRIPE_API_KEY`.
pub(crate) const ENV_PREFIX: &str = "LEVADA_SECRET_";
pub const SECRETS_FILE: &str = "secrets.yaml";
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A secret's value. Only [`SecretValue::reveal`] gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// All secrets of a project. The environment goes before the file.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// By the name in capitals with underscores, the form that both places share.
    values: BTreeMap<String, SecretValue>,
}

/// Why secrets could not be read. It never holds a value or a line of the file.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("{} may be read by others (mode {mode:03o})", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{}:{line}: {what}", path.display())]
    Malformed { path: PathBuf, line: u32, what: String },
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

impl SecretsError {
    /// The error in the form of the project's other findings.
    pub fn diagnostic(&self) -> Diagnostic {
        let (code, line, hint): (&'static Code, u32, &str) = match self {
            Self::Open { .. } => (codes::SECRETS_MODE, 1, "run `chmod 600 secrets.yaml`"),
            Self::Malformed { line, .. } => {
                (codes::SECRETS_FORM, *line, "write one `name: \"value\"` a line")
            }
            Self::Unreadable { .. } => (codes::UNREADABLE, 1, "check the file's permissions"),
        };
        let message = match self {
            Self::Open { mode, .. } => format!("the secrets file may be read by others (mode {mode:03o})"),
            Self::Malformed { what, .. } => what.clone(),
            Self::Unreadable { source, .. } => format!("the secrets file cannot be read: {source}"),
        };
        let mut diagnostic = Diagnostic::about(PathBuf::from(SECRETS_FILE), code, message);
        diagnostic.line = line;
        diagnostic.hint(hint);
        diagnostic
    }
}

impl Secrets {
    /// Reads `secrets.yaml` of a project, where there is one, and the `LEVADA_SECRET_*`
    /// variables of this process.
    ///
    /// # Errors
    /// A file that others may read, or that is not a map of names to texts.
    pub fn load(root: &Path) -> Result<Self, SecretsError> {
        Self::load_with(
            root,
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        )
    }

    /// As [`Secrets::load`], with the variables given.
    ///
    /// # Errors
    /// As [`Secrets::load`].
    pub fn load_with(
        root: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SecretsError> {
        let mut secrets = Self { values: read_file(root)? };
        for (name, value) in variables {
            if let Some(name) = name.strip_prefix(ENV_PREFIX).filter(|n| !n.is_empty()) {
                secrets.values.insert(canonical(name), SecretValue(value));
            }
        }
        Ok(secrets)
    }

    pub fn get(&self, name: &str) -> Option<&SecretValue> {
        self.values.get(&canonical(name))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Names only, in capitals with underscores.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

fn canonical(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn read_file(root: &Path) -> Result<BTreeMap<String, SecretValue>, SecretsError> {
    let path = root.join(SECRETS_FILE);
    let unreadable = |source: io::Error| SecretsError::Unreadable { path: path.clone(), source };
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(error)),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SecretsError::Open { path, mode });
        }
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(unreadable(io::Error::other("it is larger than 1 MiB")));
    }
    let text = fs::read_to_string(&path).map_err(unreadable)?;
    parse(&path, text)
}

fn parse(path: &Path, text: String) -> Result<BTreeMap<String, SecretValue>, SecretsError> {
    let malformed = |line: u32, what: &str| SecretsError::Malformed {
        path: path.to_owned(),
        line,
        what: what.to_owned(),
    };
    let file = SourceFile::new(PathBuf::from(SECRETS_FILE), text);
    let mut sink = Sink::default();
    let tree = tree::parse(&file, &mut sink);
    // Only the place and the rule are passed on: a parser's words may quote the text.
    if let Some(first) = sink.finish().first() {
        let what = if first.code == codes::DUPLICATE_KEY.id {
            "a secret is written twice"
        } else {
            "not valid YAML"
        };
        return Err(malformed(first.line, what));
    }
    let Some(Value::Map(entries)) = tree.map(|n| n.value) else {
        return Err(malformed(1, "the secrets file must be a map of names to texts"));
    };
    let mut values = BTreeMap::new();
    for (key, node) in entries {
        let line = file.line_of(key.span.start);
        match node.value {
            Value::Scalar { ref text, .. } if !node.is_null() && !text.is_empty() => {
                values.insert(canonical(&key.text), SecretValue(text.clone()));
            }
            _ => return Err(malformed(line, "a secret must be a text")),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str, mode: u32) -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(SECRETS_FILE);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        dir
    }

    #[test]
    fn values_are_found_by_either_spelling_and_never_shown() {
        let dir = project("stripe-api-key: hunter2\nother: \"777\"\n", 0o600);
        let env =
            [("LEVADA_SECRET_OTHER".to_owned(), "hunter3".to_owned()), ("PATH".to_owned(), "x".to_owned())];
        let secrets = Secrets::load_with(dir.path(), env).expect("secrets");
        assert_eq!(secrets.get("stripe-api-key").map(SecretValue::reveal), Some("hunter2"));
        assert_eq!(
            secrets.get("other").map(SecretValue::reveal),
            Some("hunter3"),
            "the environment goes first"
        );
        assert_eq!(secrets.names().collect::<Vec<_>>(), ["OTHER", "STRIPE_API_KEY"]);
        let shown = format!("{secrets:?}{secrets:#?}");
        assert!(!shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn a_file_open_to_others_is_refused() {
        for mode in [0o644, 0o640, 0o604] {
            let error = Secrets::load_with(project("a: hunter2", mode).path(), []).expect_err("open");
            assert_eq!(error.diagnostic().code, "E0140");
        }
    }

    #[test]
    fn a_broken_file_is_reported_without_its_text() {
        for text in [
            "a: hunter2\na: hunter3",
            "- hunter2",
            "a: [hunter2]",
            "hunter2: {",
            "a: \"hunter2\\q\"",
            "hunter2",
        ] {
            let error = Secrets::load_with(project(text, 0o600).path(), []).expect_err(text);
            let diagnostic = error.diagnostic();
            assert_eq!(diagnostic.code, "E0141");
            let shown = format!("{error}{error:?}{diagnostic:?}{}", diagnostic.render(crate::Style::Plain));
            assert!(!shown.contains("hunter"), "{shown}");
        }
    }
}
