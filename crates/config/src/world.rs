//! What every file of a project is read against: tenants, secrets, environment, schemas.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use levada_core::TenantId;

use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::fields::{Cx, cut};
use crate::model::{FileFolder, Schema};
use crate::schema;
use crate::secrets::Secrets;
use crate::source::{SourceFile, Span};
use crate::suggest;
use crate::tree::Node;
use crate::url::Environment;

const MAX_FILE_BYTES: u64 = 4 << 20;

pub(crate) struct World<'a> {
    pub root: &'a Path,
    pub secrets: &'a Secrets,
    pub environment: Environment<'a>,
    pub tenants: Vec<TenantId>,
    /// By path from the root; `None`: it is there and has errors.
    schemas: BTreeMap<PathBuf, Option<Arc<Schema>>>,
}

/// The folder that a file belongs to: the root, or `tenants/<t>/`.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub tenant: Option<TenantId>,
}

impl Base {
    pub fn path(&self) -> PathBuf {
        match &self.tenant {
            Some(tenant) => Path::new("tenants").join(tenant.as_str()),
            None => PathBuf::new(),
        }
    }
}

pub(crate) enum SchemaLookup {
    Found(Arc<Schema>),
    /// Its errors are reported already.
    Broken,
    Missing,
}

impl<'a> World<'a> {
    pub fn new(root: &'a Path, secrets: &'a Secrets, environment: Environment<'a>) -> Self {
        Self {
            root,
            secrets,
            environment,
            tenants: vec![TenantId::default_tenant()],
            schemas: BTreeMap::new(),
        }
    }

    /// Reads a file of the project, and reports when that is not possible.
    pub fn read(&self, path: &Path, sink: &mut Sink) -> Option<SourceFile> {
        let full = self.root.join(path);
        let read = || -> Result<String, String> {
            let length = fs::metadata(&full).map_err(|e| e.to_string())?.len();
            if length > MAX_FILE_BYTES {
                return Err(format!("it has {length} bytes, more than 4 MiB"));
            }
            let bytes = fs::read(&full).map_err(|e| e.to_string())?;
            String::from_utf8(bytes)
                .map_err(|e| format!("it is not UTF-8 text (byte {})", e.utf8_error().valid_up_to()))
        };
        match read() {
            Ok(text) => Some(SourceFile::new(path.to_owned(), text)),
            Err(why) => {
                sink.push(Diagnostic::about(
                    path.to_owned(),
                    codes::UNREADABLE,
                    format!("cannot read the file: {why}"),
                ));
                None
            }
        }
    }

    /// The schema that a file names: beside it first, then at the root.
    pub fn schema(&mut self, base: &Base, written: &str, sink: &mut Sink) -> SchemaLookup {
        let Some(written) = safe_relative(written) else { return SchemaLookup::Missing };
        for path in [base.path().join(&written), written] {
            if !self.schemas.contains_key(&path) && self.root.join(&path).is_file() {
                self.load_schema(&path, sink);
            }
            match self.schemas.get(&path) {
                Some(Some(schema)) => return SchemaLookup::Found(Arc::clone(schema)),
                Some(None) => return SchemaLookup::Broken,
                None => {}
            }
        }
        SchemaLookup::Missing
    }

    pub fn load_schema(&mut self, path: &Path, sink: &mut Sink) {
        let schema = self.read(path, sink).and_then(|file| schema::read(&file, sink)).map(Arc::new);
        self.schemas.insert(path.to_owned(), schema);
    }

    pub fn schema_hint(&self, written: &str) -> String {
        let known: Vec<String> = self.schemas.keys().map(|p| p.to_string_lossy().into_owned()).collect();
        suggest::hint(written, known.iter().map(String::as_str), "schema files")
    }

    pub fn tenant(&self, cx: &mut Cx<'_>, node: &Node) -> Option<TenantId> {
        let tenant: TenantId = cx.name(node, "tenant")?;
        if self.tenants.contains(&tenant) {
            return Some(tenant);
        }
        let hint = suggest::hint(tenant.as_str(), self.tenants.iter().map(TenantId::as_str), "tenants");
        cx.report(codes::UNKNOWN_TENANT, &node.span, format!("levada.yaml declares no tenant `{tenant}`"))
            .hint(hint);
        None
    }
}

/// A relative path without `..`.
fn safe_relative(written: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(written).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// Reads a location: a bucket of a cloud, or a folder.
pub(crate) fn folder(cx: &mut Cx<'_>, text: &str, span: &Span) -> Option<FileFolder> {
    let bucket = ["gs://", "s3://", "az://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    if let Some(rest) = bucket {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let named = (1..=222).contains(&bucket.len())
            && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && !bucket.starts_with('.');
        if !named || prefix.split('/').any(|s| s == "..") {
            cx.report(codes::BAD_LOCATION, span, format!("`{}` names no usable bucket", cut(text)))
                .hint("write gs://bucket/folder/");
            return None;
        }
        return Some(FileFolder::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        });
    }
    let path = Path::new(text);
    let climbs = path.components().any(|c| c == Component::ParentDir);
    if text.is_empty() || text.contains("://") || text.contains('\0') || climbs {
        cx.report(codes::BAD_LOCATION, span, format!("`{}` is not a location", cut(text)))
            .hint("name a folder of the project, an absolute folder, or gs://, s3:// or az:// with a bucket");
        return None;
    }
    Some(FileFolder::Local(path.to_owned()))
}
