//! Stylesheet, script and icon: compiled in, and addressed by content hash so that
//! browsers may keep them for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

struct Asset {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset {
        name: "console.css",
        media_type: "text/css; charset=utf-8",
        text: include_str!("../assets/console.css"),
    },
    Asset {
        name: "console.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("../assets/console.js"),
    },
    Asset { name: "icon.svg", media_type: "image/svg+xml", text: include_str!("../assets/icon.svg") },
];

static TAG: LazyLock<String> = LazyLock::new(|| {
    let mut hash = blake3::Hasher::new();
    for asset in &ASSETS {
        hash.update(asset.text.as_bytes());
    }
    hash.finalize().to_hex()[..12].to_owned()
});

/// Where a page finds an asset.
pub(crate) fn url(name: &str) -> String {
    format!("/console/assets/{}-{name}", *TAG)
}

pub(crate) async fn serve(Path(file): Path<String>) -> Response {
    let found = file
        .split_once('-')
        .filter(|(tag, _)| *tag == *TAG)
        .and_then(|(_, name)| ASSETS.iter().find(|a| a.name == name));
    match found {
        Some(asset) => (
            [
                (header::CONTENT_TYPE, asset.media_type),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ],
            asset.text,
        )
            .into_response(),
        None => (StatusCode::NOT_FOUND, "no such asset").into_response(),
    }
}
