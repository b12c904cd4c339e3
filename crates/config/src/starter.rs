//! The project that `levada init` writes: it runs as it stands, and its comments teach.

use std::path::PathBuf;

macro_rules! starter_files {
    ($($path:literal from $file:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../starter/", $file)))),*]
    };
}

const FILES: [(&str, &str); 12] = starter_files![
    "levada.yaml" from "levada.yaml",
    "README.md" from "README.md",
    ".gitignore" from "gitignore",
    "pipelines/weather.yaml" from "pipelines/weather.yaml",
    "pipelines/checkins.yaml" from "pipelines/checkins.yaml",
    "pipelines/webhooks.yaml" from "pipelines/webhooks.yaml",
    "schemas/weather.json" from "schemas/weather.json",
    "schemas/checkins.json" from "schemas/checkins.json",
    "schemas/webhooks.json" from "schemas/webhooks.json",
    "models/station_days.sql" from "models/station_days.sql",
    "models/webhook_activity.sql" from "models/webhook_activity.sql",
    "landing/weather/README.md" from "landing/weather/README.md",
];

/// The files of a new project: paths relative to its folder, and contents.
pub fn starter(name: &str) -> Vec<(PathBuf, String)> {
    // A JSON text is a YAML text, whatever the name holds.
    let quoted = serde_json::Value::from(name).to_string();
    FILES
        .iter()
        .map(|(path, text)| {
            let name = if path.ends_with(".yaml") { &quoted } else { name };
            (PathBuf::from(path), text.replace("{{name}}", name))
        })
        .collect()
}
