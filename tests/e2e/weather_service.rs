//! A small REST service that knows the weather, and can be told to misbehave.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::inputs::Observation;

/// How the service behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Every connection is closed without an answer.
    Down,
    /// Answers after this many milliseconds.
    Slow(u64),
    /// Says 200 and sends a page of HTML.
    Html,
    /// Says 200 and sends texts where numbers belong.
    WrongTypes,
    /// Says 500.
    Failing,
}

pub struct WeatherService {
    pub url: String,
    mood: Arc<Mutex<Mood>>,
    requests: Arc<AtomicU64>,
}

impl WeatherService {
    /// Serves `GET /v1/observations/{station}/{time}` from the rows, by station and hour.
    pub fn start(rows: &[Observation]) -> Result<Self> {
        let known: HashMap<(String, String), Value> = rows
            .iter()
            .map(|row| ((row.origin.clone(), row.time[..13].to_owned()), json!(row.values)))
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let mood = Arc::new(Mutex::new(Mood::Well));
        let requests = Arc::new(AtomicU64::new(0));
        let shared = (Arc::new(known), mood.clone(), requests.clone());
        // Ends with the test process; it holds nothing but its port.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (known, mood, requests) = shared.clone();
                thread::spawn(move || serve(stream, &known, &mood, &requests));
            }
        });
        Ok(Self { url, mood, requests })
    }

    pub fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(
    stream: TcpStream,
    known: &HashMap<(String, String), Value>,
    mood: &Mutex<Mood>,
    requests: &AtomicU64,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        requests.fetch_add(1, Ordering::SeqCst);
        let mood = *mood.lock().unwrap();
        let found = observation(&first, known);
        let (status, body) = match (mood, found) {
            (Mood::Down, _) => return None,
            (Mood::Failing, _) => ("500 Internal Server Error", "{}".to_owned()),
            (Mood::Html, _) => ("200 OK", "<html><body>Please log in</body></html>".to_owned()),
            (Mood::WrongTypes, _) => ("200 OK", json!({ "temp": "hot", "humid": [1] }).to_string()),
            (Mood::Well | Mood::Slow(_), Some(found)) => ("200 OK", found.to_string()),
            (Mood::Well | Mood::Slow(_), None) => ("404 Not Found", "{}".to_owned()),
        };
        if let Mood::Slow(ms) = mood {
            thread::sleep(Duration::from_millis(ms));
        }
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        reader.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}

/// `GET /v1/observations/JFK/2013-01-01T06%3A17%3A00Z HTTP/1.1`
fn observation<'a>(first: &str, known: &'a HashMap<(String, String), Value>) -> Option<&'a Value> {
    let path = first.split(' ').nth(1)?;
    let mut parts = path.strip_prefix("/v1/observations/")?.split('/');
    let station = parts.next()?.to_owned();
    let time = parts.next()?.replace("%3A", ":").replace("%20", "T").replace(' ', "T");
    known.get(&(station, time.get(..13)?.to_owned()))
}
