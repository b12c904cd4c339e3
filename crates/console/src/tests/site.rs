//! The console over a made-up platform, and a browser that follows nothing by itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use levada_console::{ConsoleConfig, router};
use levada_core::ManualClock;
use tower::ServiceExt;

use super::double::Double;

/// The console with a clock that stands until it is told.
pub struct Site {
    pub app: Router,
    pub data: Arc<Double>,
    pub clock: Arc<ManualClock>,
}

/// What came back, read to its end.
pub struct Page {
    pub status: StatusCode,
    pub headers: axum::http::HeaderMap,
    pub text: String,
}

impl Page {
    pub fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// The value after `name="csrf" value="`.
    pub fn csrf(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"csrf\" value=\"").expect("a form with a token");
        rest.split('"').next().unwrap_or_default().to_owned()
    }
}

impl Site {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ConsoleConfig)) -> Self {
        let clock = Arc::new(ManualClock::new(1_795_000_000_000));
        let data = Arc::new(Double::new(clock.clone()));
        let mut config = ConsoleConfig {
            clock: clock.clone(),
            live_interval: Duration::from_millis(1),
            ..ConsoleConfig::default()
        };
        change(&mut config);
        Self { app: router(data.clone(), config), data, clock }
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.app.clone().oneshot(request).await.expect("handlers answer")
    }

    pub async fn read(&self, request: Request<Body>) -> Page {
        let (parts, body) = self.send(request).await.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        Page {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub async fn get(&self, path: &str, cookie: &str) -> Page {
        self.read(Request::get(path).header("cookie", cookie).body(Body::empty()).expect("a request")).await
    }

    pub async fn post(&self, path: &str, cookie: &str, form: &str) -> Page {
        let request = Request::post(path)
            .header("cookie", cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()))
            .expect("a request");
        self.read(request).await
    }

    /// Signs in; the answer is the `Cookie` header of later requests.
    pub async fn sign_in(&self, key: &str) -> String {
        let page = self.post("/console/sign-in", "", &format!("key={key}")).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
        page.header(header::SET_COOKIE).split(';').next().unwrap_or_default().to_owned()
    }

    pub async fn csrf(&self, cookie: &str) -> String {
        self.get("/console", cookie).await.csrf()
    }
}
