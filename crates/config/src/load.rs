//! Reads a project folder whole: every file, every finding, one run.

use std::path::Path;
use std::sync::Arc;

use levada_core::{SourceName, TableName};

use crate::codes;
use crate::connector;
use crate::cross;
use crate::diagnostic::{self, Diagnostic, Sink};
use crate::draft::PipelineDraft;
use crate::folder;
use crate::model::{Inactive, Owner, Project};
use crate::model_file;
use crate::pipeline;
use crate::places::{Places, Refused};
use crate::secrets::Secrets;
use crate::server::{self, Settings};
use crate::suggest;
use crate::tree::{self, Node, Value};
use crate::url::Environment;
use crate::world::{Base, World};

/// What a project folder gave.
#[derive(Debug)]
pub struct Loaded {
    /// There when no diagnostic is an error.
    pub project: Option<Project>,
    /// All findings, by file, line and column.
    pub diagnostics: Vec<Diagnostic>,
    /// Where the steps and models of the project are written.
    pub places: Places,
}

impl Loaded {
    /// Takes in what the query engine says against the project, which then is not sound any more.
    pub fn refuse(&mut self, refused: &[Refused]) {
        if refused.is_empty() {
            return;
        }
        self.project = None;
        self.diagnostics.extend(refused.iter().map(|r| self.places.diagnostic(r)));
        diagnostic::sort(&mut self.diagnostics);
    }

    /// Warns of decimal columns that stay doubles, since the pipeline's table holds them so.
    pub fn stay_double(
        &mut self,
        owner: &Owner,
        pipeline: &SourceName,
        table: &TableName,
        columns: &[String],
    ) {
        let names: Vec<String> = columns.iter().map(|c| format!("`{c}`")).collect();
        let message =
            format!("{table} holds {} as FLOAT64, and goes on so: 15 digits, not exact", names.join(", "));
        self.diagnostics.push(self.places.warning(codes::STAYS_DOUBLE, owner, pipeline, &message));
        diagnostic::sort(&mut self.diagnostics);
    }
}

/// The data directory of a project: its `data_dir`, or `.levada` in its folder. Reads only
/// `levada.yaml`, whatever else is wrong with the project; `None` where there is none.
pub fn data_dir(root: &Path) -> Option<std::path::PathBuf> {
    if !root.join("levada.yaml").is_file() {
        return None;
    }
    let secrets = Secrets::default();
    let world = World::new(root, &secrets, &|_| None);
    let settings = settings(&world, &mut Sink::default(), &mut Vec::new());
    Some(root.join(settings.server.data_dir.unwrap_or_else(|| ".levada".into())))
}

/// Reads and checks the folder that holds `levada.yaml`. `${NAME}` in URLs comes from this
/// process's environment.
pub fn load(root: &Path, secrets: &Secrets) -> Loaded {
    load_with(root, secrets, &|name| std::env::var(name).ok())
}

/// As [`load`], with the environment given.
pub fn load_with(root: &Path, secrets: &Secrets, environment: Environment<'_>) -> Loaded {
    let mut sink = Sink::default();
    let mut inactive = Vec::new();
    let mut world = World::new(root, secrets, environment);
    let settings = settings(&world, &mut sink, &mut inactive);
    world.tenants = settings.tenants.iter().map(|t| t.id.clone()).collect();

    let files = folder::scan(root, &world.tenants, &mut sink);
    for path in files.iter().flat_map(|f| &f.schemas) {
        world.load_schema(path, &mut sink);
    }
    let mut pipelines = Vec::new();
    let mut models = Vec::new();
    let mut broken = Vec::new();
    for part in &files {
        for path in &part.sources {
            match read_source(path, &part.base, &mut world, &mut sink, &mut inactive) {
                Some(draft) => pipelines.push(draft),
                None => broken.extend(stem(path)),
            }
        }
        for path in &part.models {
            let file = world.read(path, &mut sink).map(Arc::new);
            match file.and_then(|file| model_file::read(&file, &part.base, &mut sink)) {
                Some(draft) => models.push(draft),
                None => broken.extend(stem(path)),
            }
        }
    }
    let places = Places::of(&pipelines, &models);
    let (pipelines, models) = cross::check(pipelines, models, &broken, &mut sink);
    let sound = sink.errors() == 0;
    inactive.sort_by(|a, b| (&a.file, a.line, &a.part).cmp(&(&b.file, b.line, &b.part)));
    let Settings { name, server, tenants, buckets } = settings;
    let project =
        Project { name, root: root.to_owned(), server, tenants, buckets, pipelines, models, inactive };
    Loaded { project: sound.then_some(project), diagnostics: sink.finish(), places }
}

fn settings(world: &World<'_>, sink: &mut Sink, inactive: &mut Vec<Inactive>) -> Settings {
    let path = Path::new(server::FILE);
    if !world.root.join(path).exists() {
        let message = format!("`{}` holds no levada.yaml", world.root.display());
        sink.push(Diagnostic::about(path.to_owned(), codes::NO_PROJECT, message)).hint(
            if world.root.join("levada.yml").exists() {
                "rename levada.yml to levada.yaml"
            } else {
                "`levada init DIR` writes a project to start from"
            },
        );
        return Settings::default();
    }
    world.read(path, sink).map(|file| server::read(&file, sink, inactive)).unwrap_or_default()
}

fn stem(path: &Path) -> Option<String> {
    path.file_stem().map(|s| s.to_string_lossy().into_owned())
}

fn read_source(
    path: &Path,
    base: &Base,
    world: &mut World<'_>,
    sink: &mut Sink,
    inactive: &mut Vec<Inactive>,
) -> Option<PipelineDraft> {
    let file = Arc::new(world.read(path, sink)?);
    let tree = tree::parse(&file, sink)?;
    match dialect(&tree) {
        Some("source_id") => connector::read(&file, &tree, base, world, sink, inactive),
        Some(_) => pipeline::read(&file, &tree, base, world, sink, inactive),
        None => {
            no_dialect(&file, &tree, sink);
            None
        }
    }
}

/// A file with `source_id` is a connector of the document's dialect; one with `pipeline` is
/// Levada's own. With both, `pipeline` rules, so that the other is an unknown field.
fn dialect(tree: &Node) -> Option<&'static str> {
    ["pipeline", "source_id"].into_iter().find(|name| tree.get(name).is_some())
}

fn no_dialect(file: &crate::source::SourceFile, tree: &Node, sink: &mut Sink) {
    let (span, near) = match &tree.value {
        Value::Map(entries) => {
            let near = entries
                .iter()
                .find_map(|(k, _)| Some((k, suggest::nearest(&k.text, ["pipeline", "source_id"])?)));
            let span =
                near.map(|(k, _)| k).or(entries.first().map(|(k, _)| k)).map_or(0..0, |k| k.span.clone());
            (span, near.map(|(_, word)| word))
        }
        _ => (tree.span.clone(), None),
    };
    let hint = match near {
        Some(word) => format!("did you mean `{word}`?"),
        None => {
            "begin Levada's own file with `pipeline: <name>`, a connector with `source_id: <name>`".to_owned()
        }
    };
    sink.push(Diagnostic::at(
        file,
        codes::NO_DIALECT,
        &span,
        "the file names neither a pipeline nor a connector",
    ))
    .hint(hint);
}
